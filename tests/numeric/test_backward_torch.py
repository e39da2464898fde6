"""The backward pass of a loop as the torch backend emits it: gradients, gradients of gradients, what it keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.backends.torch.emit import emit
from nldsl.backends.torch.loader import Emitted, load
from nldsl.ir.program import Program
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.plan import plan
from tests.numeric.chunk_programs import PROGRAMS, delta, gated_linear, momentum
from tests.numeric.chunk_run import BATCH_SIZE, Data, random_data, run_ticks
from tests.numeric.emitted_run import calls_of
from tests.numeric.random_recurrences import Recurrence

TICKS = 13


def emitted(program: Program, options: ChunkOptions) -> Emitted:
    source = emit(plan(program, options=options, recompute_above=-1))
    assert "ScanFunction" in source
    return load(source)


def outputs_of(module: Emitted, program: Program, data: Data, calls: tuple[int, ...]) -> list[Tensor]:
    """The outputs (time first) and the states at the end."""
    outputs, states = calls_of(module, program, data, calls)
    return [*(outputs[name] for name, _ in program.outputs), *states.values()]


def gradients(data: Data, values: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    loss = sum(((v * torch.randn(v.shape, dtype=v.dtype)).sum() for v in values), torch.zeros(()))
    return list(torch.autograd.grad(loss, data.tensors(), allow_unused=True, materialize_grads=True))


def check(program: Program, options: ChunkOptions, calls: tuple[int, ...], bound: float, seed: int = 0) -> None:
    data = random_data(program, sum(calls), scale=0.5, seed=seed)
    for tensor in data.tensors():
        tensor.requires_grad_()
    ticks = run_ticks(program, data, sum(calls))
    expected = [ticks.outputs[k] for k, _ in program.outputs] + [ticks.states[s.name] for s in program.states]
    found = outputs_of(emitted(program, options), program, data, calls)
    for want, got in zip(gradients(data, expected), gradients(data, found), strict=True):
        assert ((want - got).abs() / (1 + want.abs())).max() < bound


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients(name: str) -> None:
    program = PROGRAMS[name]()
    for size, calls in ((4, (13,)), (64, (1, 6, 2, 4))):
        check(program, ChunkOptions(size=size), calls, 1e-9)


def test_many_segments_are_not_done_all_at_once() -> None:
    """What is computed for many segments together must not grow with the sequence: more than 128 are several runs."""
    check(delta(), ChunkOptions(size=1), (133,), 1e-9)
    module = emitted(delta(), ChunkOptions(size=1)).forward.__globals__
    assert module["scan_runs"](2, 300, 1, ()) == [(1, 128), (1, 128), (1, 44)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_random_recurrences(seed: int) -> None:
    program = Recurrence(seed).program()
    if "ScanFunction" in emit(plan(program, options=ChunkOptions(size=4))):
        check(program, ChunkOptions(size=4), (3, 8), 1e-8, seed)


@pytest.mark.parametrize("program", [gated_linear(4), delta(), momentum()], ids=["decay", "delta", "momentum"])
def test_gradients_of_gradients(program: Program) -> None:
    data = random_data(program, 5, scale=0.5)
    module = emitted(program, ChunkOptions(size=2))
    tensors = [t.requires_grad_() for t in data.tensors()]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        names = iter(values)
        held = Data({k: next(names) for k in data.inputs}, {k: next(names) for k in data.params})
        return tuple(outputs_of(module, program, held, (5,)))

    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


def test_transforms_differentiate_the_code_as_it_is_written() -> None:
    program = delta()
    data = random_data(program, 6, scale=0.5)
    module = emitted(program, ChunkOptions(size=3))

    def loss(inputs: dict[str, Tensor]) -> Tensor:
        return sum(
            (y.sin().sum() for y in outputs_of(module, program, Data(inputs, data.params), (6,))), torch.zeros(())
        )

    found = torch.func.grad(loss)(data.inputs)
    inputs = {k: v.clone().requires_grad_() for k, v in data.inputs.items()}
    for want, got in zip(torch.autograd.grad(loss(inputs), list(inputs.values())), found.values(), strict=True):
        torch.testing.assert_close(got, want)


def test_kept_for_the_way_back_are_inputs_and_boundaries() -> None:
    """With twice the ticks of a segment, half the states are kept and nothing else changes."""
    program, kept = delta(), {}
    for size in (8, 16):
        module = emitted(program, ChunkOptions(size=size))
        data = random_data(program, 64)
        for tensor in data.tensors():
            tensor.requires_grad_()
        sizes: dict[int, int] = {}

        def pack(x: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            outputs_of(module, program, data, (64,))
        given = {t.untyped_storage().data_ptr() for t in data.tensors()}
        kept[size] = sum(n for pointer, n in sizes.items() if pointer not in given)
    state = BATCH_SIZE * 2 * 3 * 4 * 8
    assert kept[8] - kept[16] == state * 4
