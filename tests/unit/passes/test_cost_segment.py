"""The cost of a tick in segments of some length, and the length that follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from nldsl.api import load_program
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program
from nldsl.passes.cost_segment import best_length, tick_cost
from nldsl.passes.plan import plan

DELTA = ("stdlib/memories/delta.nl", "GatedDelta", {"dk": 64, "dv": 64})
DEEP = ("stdlib/memories/titans.nl", "Titans", {"dk": 64, "dv": 64, "chunk": 64})
SHORT = ("stdlib/memories/titans.nl", "Titans", {"dk": 8, "dv": 8, "chunk": 8})


def loop_of(path: str, entry: str, dims: dict[str, Any], serial: bool = True) -> tuple[ChunkLoop, Program]:
    program = load_program(path, entry, **dims)
    (loop,) = [p for p in plan(program, {"backward"}, serial=serial).all_phases() if isinstance(p, ChunkLoop)]
    return loop, program


@pytest.mark.parametrize(("what", "length"), [(DELTA, 32), (DEEP, 64), (SHORT, 8)])
def test_the_length_follows_from_the_cost(what: tuple[str, str, dict[str, Any]], length: int) -> None:
    """Products of ticks with ticks make long segments dear, large states make short ones dear; a clock limits both."""
    loop, program = loop_of(*what)
    assert loop.size == length
    if length > 8:
        costs = {n: tick_cost(loop, program, n) for n in (32, 64)}
        assert min(costs, key=lambda n: costs[n] or 0.0) == length


def test_other_backends_take_the_longest() -> None:
    loop, _ = loop_of(*DELTA, serial=False)
    assert loop.size == 64


def test_wide_states_want_long_segments() -> None:
    path, entry, _ = DELTA
    shares = []
    for width in (16, 64, 256):
        loop, program = loop_of(path, entry, {"dk": width, "dv": width})
        short, long = (tick_cost(loop, program, n) for n in (16, 64))
        assert short is not None and long is not None
        shares.append(short / long)
    assert shares == sorted(shares) and shares[-1] > 1


def test_half_empty_tables_count_half(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, program = loop_of(*DELTA)
    half = tick_cost(loop, program, 64)
    monkeypatch.setattr("nldsl.passes.cost_segment.share", lambda bounds: 1.0)
    whole = tick_cost(loop, program, 64)
    assert half is not None and whole is not None
    # K K', Q K' and what they multiply: half of 64 * 64 terms of two operations, for each tick
    assert whole - half == pytest.approx(3 * 0.5 * 2 * 64 * 64)


def test_nothing_shorter_than_the_usual_lengths_is_chosen() -> None:
    loop, program = loop_of(*DELTA)
    assert best_length(loop, program, 16) == 16
