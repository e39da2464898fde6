"""A loop over segments instead of ticks: the chunk-parallel form of a ``Scan``.

The ticks of a call are cut into *segments* of at most ``size`` ticks, and after every tick at which one of ``clocks``
fires (counted from the beginning of the sequence). For each segment, in order:

1. anchors that are due at its first tick take the value of their state;
2. ``body`` runs once. Its leaves are

       given(value)            a value of ``Program.body`` computed before: of the segment's ticks, with axis ``time``
       param, const, iota      as everywhere
       clock(scale, period)    of the segment's ticks, with axis ``time``
       state(state)            at the beginning of the segment (also of the states of other loops that no tick changes)
       anchor(state, period)   constant in the segment

   ``when(new, old; clock)`` is ``new`` if the clock fires at the last tick of the segment. Guarded instructions are
   needed only then. The number of ticks of the segment is the size of ``time``, ``TICKS`` wherever a shape has it;
3. the states take the values of ``carry``; ``outputs`` (value of ``Program.body``, value here) are the segment's part
   of the streams that other phases need. An output without the axis ``time`` is the same at all ticks of the segment;
4. states whose reset clock fires at the last tick take their initial value, with their anchors.

A backend may run the body as three: see ``stages.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.dims import symbol
from nldsl.ir.program import Axis, Instr
from nldsl.ir.schedule import Phase, Scan
from nldsl.ir.types import Clock, Type

TICKS = symbol("ticks")


@dataclass(frozen=True)
class Pack:
    """States of one type that the loop holds side by side, along a mapped axis. In the body, ``carry`` and ``anchors``
    of a loop the pack is one state called ``name``, whose type has the axis; outside they stay what they are."""

    name: str
    axis: str
    states: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """The value ``inside`` of a body is kept for the way back, where it is ``kept(value)`` and has this type.
    ``unread``: entries that nothing there depends on, as in ``ir/triangular.py``."""

    value: int
    inside: int
    type: Type
    unread: tuple[tuple[tuple[int, int], int], ...] = ()


@dataclass(frozen=True)
class ChunkLoop(Phase):
    """``scan`` is the sequential loop that this one replaces; ``lanes`` are axes that only the body has; ``kind`` says
    in words how its states depend on their past, ``mixed`` are those that full matrices lead to. Without ``hoist`` all
    of the body waits for the states. ``serial``: the body is made for a backend that runs a segment in one piece.
    ``kept``: what the segment leaves for its way back, besides what it was given and the states at its beginning."""

    scan: Scan
    body: tuple[Instr, ...]
    carry: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[int, int], ...]
    clocks: tuple[Clock, ...]
    anchors: tuple[tuple[str, int], ...]
    size: int
    lanes: tuple[Axis, ...] = ()
    kind: str = ""
    packs: tuple[Pack, ...] = ()
    mixed: tuple[str, ...] = ()
    hoist: bool = True
    serial: bool = False
    kept: tuple[Kept, ...] = ()

    @property
    def states(self) -> tuple[str, ...]:
        return self.scan.states


def segments(start: int, count: int, size: int, clocks: tuple[Clock, ...]) -> list[int]:
    """The lengths of the segments of ticks ``start + 1 .. start + count``."""
    found: list[int] = []
    tick, last = start, start + count
    while tick < last:
        end = min(tick + size, last)
        for clock in clocks:
            end = min(end, _next(clock, tick))
        found.append(end - tick)
        tick = end
    return found


def _next(clock: Clock, tick: int) -> int:
    """The first tick after ``tick`` at which the clock fires."""
    period = clock.period
    if clock.start:  # at 1, 1 + period, ..
        return (tick + period - 1) // period * period + 1
    return (tick // period + 1) * period
