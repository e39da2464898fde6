"""Loops over segments as the torch backend emits them, against the loop over ticks: random recurrences, long ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program
from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.schedule import schedule
from tests.numeric.chunk_programs import PROGRAMS, delta, gated_linear, momentum, titans
from tests.numeric.chunk_run import BATCH_SIZE, Data, random_data, run_ticks
from tests.numeric.emitted_run import assert_close, run
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.random_recurrences import Recurrence
from tests.numeric.window_programs import WINDOWS

EVERY = {**PROGRAMS, **WINDOWS, **MATRICES}
TICKS = 13


@pytest.mark.parametrize("name", EVERY)
def test_emitted_programs(name: str) -> None:
    program = EVERY[name]()
    data = random_data(program, TICKS, scale=0.5)
    ticks = run_ticks(program, data, TICKS)
    expected = ticks.outputs, ticks.states
    for size, calls in ((1, (13,)), (4, (13,)), (4, (1, 6, 2, 4)), (64, (13,))):
        assert_close(expected, run(program, data, ChunkOptions(size=size), calls))


def check_recurrence(seed: int) -> bool:
    program = Recurrence(seed).program()
    data = random_data(program, 11, scale=0.5, seed=seed)
    ticks = run_ticks(program, data, 11)
    expected = ticks.outputs, ticks.states
    for size, calls in ((4, (11,)), (16, (3, 8))):
        assert_close(expected, run(program, data, ChunkOptions(size=size), calls), 1e-8)
    planned, _ = chunk(schedule(program), ChunkOptions(size=4))
    return any(isinstance(p, ChunkLoop) for p in planned.phases)


@pytest.mark.parametrize("seed", range(40))
def test_random_recurrences(seed: int) -> None:
    check_recurrence(seed)


@pytest.mark.slow
def test_many_random_recurrences() -> None:
    assert sum(check_recurrence(seed) for seed in range(40, 400)) > 300


@pytest.mark.slow
@pytest.mark.parametrize("side", [(), (4,), (3, 1), (3, 4)])
def test_long_with_strong_forgetting(side: tuple[int, ...]) -> None:
    """4096 ticks with gates down to 1e-30: values and gradients of single precision stay finite and right."""
    for program in (gated_linear(*side), delta(*side)):
        data = random_data(program, 4096, scale=0.5)
        data.inputs["a"] = 30.0 * data.inputs["a"]
        expected = run(program, data, ChunkOptions(enabled=False), (4096,))
        assert_close(expected, run(program, data, ChunkOptions(), (4096,)))
        single = Data({k: v.float() for k, v in data.inputs.items()}, {k: v.float() for k, v in data.params.items()})
        for tensor in single.tensors():
            tensor.requires_grad_()
        outputs, states = run(program, single, ChunkOptions(), (4096,))
        assert_close(
            expected, ({k: v.double() for k, v in outputs.items()}, {k: v.double() for k, v in states.items()}), 1e-4
        )
        loss = torch.stack([v.square().mean() for v in outputs.values()]).sum()
        for gradient in torch.autograd.grad(loss, single.tensors(), allow_unused=True, materialize_grads=True):
            assert torch.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [delta(), delta(4), momentum(), titans()], ids=["delta", "KDA", "momentum", "Titans"]
)
def test_gradcheck(program: Program) -> None:
    data = random_data(program, 5, scale=0.3)
    names, params = list(data.inputs), list(data.params)
    given = [x[:, :1, :1].clone().requires_grad_() for x in data.inputs.values()]
    given += [x.clone().requires_grad_() for x in data.params.values()]

    def values(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = {k: x.expand(-1, BATCH_SIZE, 2, *x.shape[3:]) for k, x in zip(names, tensors, strict=False)}
        held = Data(inputs, dict(zip(params, tensors[len(names) :], strict=True)))
        outputs, states = run(program, held, ChunkOptions(size=4), (5,))
        return tuple(v[:, 0, 0] if k in outputs else v for k, v in outputs.items()) + tuple(
            v[0, 0] for v in states.values()
        )

    assert torch.autograd.gradcheck(values, given)
