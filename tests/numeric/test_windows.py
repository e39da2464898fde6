"""Shift registers in the chunk-parallel form equal the loop over ticks: values, states and gradients."""

from __future__ import annotations

import pytest
import torch

from nldsl.ir.chunk import ChunkLoop
from nldsl.passes.choose_chunk import ChunkOptions
from tests.numeric.chunk_run import ChunkRun, random_data, run_ticks
from tests.numeric.test_chunk import assert_same, chunked, gradients, with_gradients
from tests.numeric.test_chunk_torch import assert_close, run
from tests.numeric.window_programs import WINDOWS, attention, omega

TICKS = 13


@pytest.mark.parametrize("name", WINDOWS)
def test_every_chunk_size(name: str) -> None:
    program = WINDOWS[name]()
    data = random_data(program, TICKS, scale=0.5)
    ticks = run_ticks(program, data, TICKS)
    for size in (1, 2, 5, 16, 64):
        chunks = ChunkRun(chunked(program, size), data)
        assert_same(ticks, chunks, chunks.call(TICKS))
    chunks = ChunkRun(chunked(program, 4), data)
    parts = [chunks.call(n) for n in (1, 6, 2, 4)]
    assert_same(ticks, chunks, {k: torch.cat([p[k] for p in parts]) for k in ticks.outputs})


@pytest.mark.parametrize("name", WINDOWS)
def test_derivatives(name: str) -> None:
    program = WINDOWS[name]()
    data = with_gradients(random_data(program, TICKS, scale=0.5))
    ticks = run_ticks(program, data, TICKS)
    expected = gradients(data, [*ticks.outputs.values(), *(ticks.states[s.name] for s in program.states)])
    chunks = ChunkRun(chunked(program, 6), data)
    outputs = chunks.call(TICKS)
    found = gradients(data, [*outputs.values(), *(chunks.states[s.name] for s in program.states)])
    for want, got in zip(expected, found, strict=True):
        assert (want - got).abs().max() < 1e-9


@pytest.mark.parametrize("name", WINDOWS)
def test_emitted(name: str) -> None:
    program = WINDOWS[name]()
    data = random_data(program, TICKS, scale=0.5)
    ticks = run_ticks(program, data, TICKS)
    for size, calls in ((1, (13,)), (4, (13,)), (4, (1, 6, 2, 4)), (64, (13,))):
        assert_close((ticks.outputs, ticks.states), run(program, data, ChunkOptions(size=size), calls))


SMALL = {"attention": attention(9), "Omega": omega(16, n=9), "weights": omega(16, n=9, weights=True)}


@pytest.mark.parametrize("program", SMALL.values(), ids=SMALL)
def test_no_tensor_of_ticks_by_window_by_entries(program: object) -> None:
    """The body never unfolds the keys or values of a window, only masks."""
    planned = chunked(program, 16)  # type: ignore[arg-type]
    (loop,) = (p for p in planned.phases if isinstance(p, ChunkLoop))
    for instr in loop.body:
        if instr.op == "unfold":
            assert len(instr.type.shape) == 2
