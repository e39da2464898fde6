"""The chunk-parallel form (affine recurrences, windows, small full maps) equals the loop over ticks, gradients too."""

from __future__ import annotations

import pytest
import torch

from nldsl.ir.program import Program
from nldsl.ir.schedule import Schedule
from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.schedule import schedule
from tests.numeric.chunk_programs import PROGRAMS, delta, gated_linear, momentum
from tests.numeric.chunk_run import ChunkRun, Data, Run, random_data, run_ticks
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.window_programs import WINDOWS

EVERY = {**PROGRAMS, **WINDOWS, **MATRICES}
TICKS = 13
SIZES = (1, 2, 5, 16, 64, TICKS)


def chunked(program: Program, size: int, serial: bool = False) -> Schedule:
    found, notes = chunk(schedule(program), ChunkOptions(size=size, serial=serial))
    assert not any(n.why for n in notes), notes
    return found


def assert_same(run: Run, chunks: ChunkRun, outputs: dict[str, torch.Tensor], bound: float = 1e-9) -> None:
    for name, value in run.outputs.items():
        assert outputs[name].shape == value.shape
        assert (outputs[name] - value).abs().max() < bound, name
    for name, state in run.states.items():
        assert (chunks.states[name] - state).abs().max() < bound, name
    for key, anchor in run.anchors.items():
        assert (chunks.anchors[key] - anchor).abs().max() < bound, key


@pytest.mark.parametrize("name", EVERY)
def test_every_chunk_size(name: str) -> None:
    program = EVERY[name]()
    data = random_data(program, TICKS, scale=0.5)
    run = run_ticks(program, data, TICKS)
    for size in SIZES:
        chunks = ChunkRun(chunked(program, size), data)
        assert_same(run, chunks, chunks.call(TICKS))


@pytest.mark.parametrize("name", EVERY)
def test_calls_of_any_length(name: str) -> None:
    program = EVERY[name]()
    data = random_data(program, TICKS, scale=0.5)
    run = run_ticks(program, data, TICKS)
    chunks = ChunkRun(chunked(program, 4, serial=True), data)
    parts = [chunks.call(n) for n in (1, 6, 2, 4)]
    assert_same(run, chunks, {k: torch.cat([p[k] for p in parts]) for k in run.outputs})


def gradients(data: Data, values: list[torch.Tensor]) -> list[torch.Tensor]:
    torch.manual_seed(3)
    # contiguous: `randn_like` fills a tensor in the order of its memory
    loss = sum(((v * torch.randn_like(v.contiguous())).sum() for v in values), torch.zeros(()))
    found = torch.autograd.grad(loss, data.tensors(), allow_unused=True)
    pairs: list[tuple[torch.Tensor, torch.Tensor | None]] = list(zip(data.tensors(), found, strict=True))
    return [torch.zeros_like(x) if g is None else g for x, g in pairs]


def with_gradients(data: Data) -> Data:
    for tensor in data.tensors():
        tensor.requires_grad_()
    return data


@pytest.mark.parametrize("name", EVERY)
def test_gradients(name: str) -> None:
    program = EVERY[name]()
    data = with_gradients(random_data(program, TICKS, scale=0.5))
    run = run_ticks(program, data, TICKS)
    expected = gradients(data, [*run.outputs.values(), *(run.states[s.name] for s in program.states)])
    for size in (3, 16):
        chunks = ChunkRun(chunked(program, size), data)
        outputs = chunks.call(TICKS)
        found = gradients(data, [*outputs.values(), *(chunks.states[s.name] for s in program.states)])
        for want, got in zip(expected, found, strict=True):
            assert (want - got).abs().max() < 1e-9


def zeros_and_extremes(program: Program, ticks: int) -> Data:
    """Gates from 1 down to 1e-300 and exactly zero, through ``sigmoid``."""
    data = random_data(program, ticks, scale=0.5)
    for name in ("a", "mu"):
        if name in data.inputs:
            data.inputs[name] = 200.0 * data.inputs[name]
            data.inputs[name][::7] = -1e4
    return data


@pytest.mark.parametrize("side", [(), (4,), (3, 1), (3, 4)])
def test_zero_and_tiny_decays(side: tuple[int, ...]) -> None:
    for program in (gated_linear(*side), delta(*side), momentum(False, *side)):
        data = with_gradients(zeros_and_extremes(program, 40))
        run = run_ticks(program, data, 40)
        chunks = ChunkRun(chunked(program, 16), data)
        outputs = chunks.call(40)
        assert_same(run, chunks, outputs)
        want, got = (gradients(data, list(o.values())) for o in (run.outputs, outputs))
        for a, b in zip(want, got, strict=True):
            assert torch.isfinite(b).all()
            assert (a - b).abs().max() < 1e-9
