"""The last segments of a call whose states nobody reads afterwards: what they still have to do.

A call that is asked for outputs alone (``nldsl.runtime.module``) needs of its last segment only what leads to the
outputs; of the segment before, that and what leads to the states that the last one reads; and so on, as long as no
clock of the loop fires at the end of a segment. On the way back the cotangents of states that nobody reads are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nldsl.ir.backward import BackwardLoop, Key
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.types import Clock


@dataclass(frozen=True)
class Ending:
    """A segment after which only ``read`` (states, packs and anchors) matter, and at whose end, unless it is the last
    one, no clock fires. ``loop`` and ``backward`` are the forms of a segment that leave out the rest: states that are
    not read stay as they were or hold anything, and their cotangents must come as zero. ``keeping``: the way back that
    reads kept values, and (its ``loop``) the segment that keeps them. ``share``: about how much of
    the work of a whole segment is left. ``steady``: what is read before is what is read after, so that it also serves
    the segments before."""

    read: frozenset[Key]
    loop: ChunkLoop
    backward: BackwardLoop | None
    share: float
    steady: bool
    keeping: BackwardLoop | None = None


Endings = Callable[[], Sequence[Ending]]  # of one loop: the last segment, the one before, ..; made when they are wanted


def endings_of(
    tick: int,
    runs: Sequence[tuple[int, int]],
    clocks: Sequence[Clock],
    shares: Sequence[float],
    steady: bool,
    worth: float,
) -> list[tuple[int, int, int]]:
    """Which segments of a call have which form: runs of (ticks, number of segments, form), -1 for the usual one.

    ``runs`` are the segments of the ticks from ``tick + 1`` on. The last form, if it is ``steady``, serves all segments
    before, up to one at whose end a clock fires. All keep the usual form where less than ``worth`` of the whole work is
    left out."""
    forms: list[int] = []
    end = tick + sum(ticks * n for ticks, n in runs)
    lengths = [ticks for ticks, n in runs for _ in range(n)]
    saved = 0.0
    for place, ticks in enumerate(reversed(lengths)):
        if (place >= len(shares) and not steady) or (place and any(c.fires(end) for c in clocks)):
            break
        forms.insert(0, min(place, len(shares) - 1))
        saved += ticks * (1.0 - shares[forms[0]])
        end -= ticks
    if saved < worth * sum(lengths):
        forms = []
    chosen = [-1] * (len(lengths) - len(forms)) + forms
    found: list[tuple[int, int, int]] = []
    for ticks, form in zip(lengths, chosen, strict=True):
        if found and found[-1][0] == ticks and found[-1][2] == form:
            found[-1] = (ticks, found[-1][1] + 1, form)
        else:
            found.append((ticks, 1, form))
    return found
