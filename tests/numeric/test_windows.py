"""Shift registers in the chunk-parallel form equal the loop over ticks: values, states and gradients."""

from __future__ import annotations

import pytest

from nldsl.ir.chunk import ChunkLoop
from tests.numeric.test_chunk import chunked
from tests.numeric.window_programs import attention, omega

TICKS = 13


SMALL = {"attention": attention(9), "Omega": omega(16, n=9), "weights": omega(16, n=9, weights=True)}


@pytest.mark.parametrize("program", SMALL.values(), ids=SMALL)
def test_no_tensor_of_ticks_by_window_by_entries(program: object) -> None:
    """The body never unfolds the keys or values of a window, only masks."""
    planned = chunked(program, 16)  # type: ignore[arg-type]
    (loop,) = (p for p in planned.phases if isinstance(p, ChunkLoop))
    for instr in loop.body:
        if instr.op == "unfold":
            assert len(instr.type.shape) == 2
