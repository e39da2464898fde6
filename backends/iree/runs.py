"""Which segments a loop has in a call: where the length of a call is only known when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from nldsl.backends.iree.nodes import BOOL, INT, Size
from nldsl.backends.iree.text import Text
from nldsl.ir.chunk import ChunkLoop


@dataclass(frozen=True)
class Run:
    """``count`` segments of ``length`` ticks each, the first one after ``offset`` ticks of the call. ``present``:
    whether there are any, as a condition; where there are none ``count`` is 1, and nothing of it is done."""

    length: int
    count: Size
    offset: Size
    present: str = ""


def segment_length(loop: ChunkLoop) -> tuple[int, int]:
    """The length of segments of which an end falls on every tick of a clock; and what is left of the number of ticks
    at their ends, when it is divided by the length."""
    periods = [c.period for c in loop.clocks if c.period > 1]
    if any(c.period == 1 for c in loop.clocks):
        return 1, 0
    if not periods:
        return loop.size, 0
    common = gcd(*periods)
    length = max(n for n in range(1, min(common, loop.size) + 1) if common % n == 0)
    rests = {(1 if c.start else 0) % length for c in loop.clocks}
    return (length, rests.pop()) if len(rests) == 1 else (1, 0)


def runs_of(text: Text, loop: ChunkLoop, tick: str, total: Size) -> list[Run]:
    """The runs of a call of ``total`` ticks after tick ``tick``: to the first end of a segment tick by tick, then
    whole segments, then tick by tick again."""
    length, rest = segment_length(loop)
    if length == 1:
        return [Run(1, total, 0)]
    found: list[Run] = []
    head: Size = 0
    if loop.clocks:
        period = text.const(length, INT)
        ahead = text.int_op("subi", text.const(rest + length, INT), text.int_op("remsi", tick, period))
        head = text.index_op("minui", total, text.as_size(text.int_op("remsi", ahead, period)))
        start: Size = 0
        if total != 1:  # not known to be 0, so that the ticks before and after the segments are the same loop
            start = text.let("arith.constant 0 : index")
        found.append(Run(1, head, start))
    left = text.index_op("subi", total, head)
    count = text.index_op("divui", left, length)
    done = text.index_op("addi", head, text.index_op("muli", count, length))
    found.append(Run(length, count, head))
    found.append(Run(1, text.index_op("subi", total, done), done))
    return [_never_empty(text, run) for run in found if run.count != 0]


def _never_empty(text: Text, run: Run) -> Run:
    """IREE makes tensors before it knows whether they are needed, and must never make one without entries."""
    if isinstance(run.count, int):
        return Run(run.length, run.count, run.offset, text.const(1, BOOL))
    return Run(run.length, text.index_op("maxui", run.count, 1), run.offset, text.positive(run.count))
