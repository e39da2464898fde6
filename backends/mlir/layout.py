"""Which dimension of a tensor lies in one piece, and copies for what lies the other way round.

Work over vectors is tried out: its code is written, counted and thrown away. What it would have to gather entry by
entry is copied once by blocks that are transposed in registers, and the copy serves every later step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nldsl.backends.mlir.lane import Index, Lane, Vec
from nldsl.backends.mlir.nests import copy, transposed
from nldsl.backends.mlir.text import Val, at
from nldsl.backends.mlir.views import View, entries, pieces

Make = Callable[[Index, Vec | None], Val]
COPIED = 0.3  # instructions for each entry of a transposed copy


@dataclass(frozen=True)
class Trial:
    """``lines``: of the code for one vector. ``gathered``: what it reads across."""

    lines: int
    gathered: tuple[tuple[View, int], ...]


def trial(lane: Lane, dims: Sequence[int], dim: int, make: Make) -> Trial:
    """The code of ``make`` for a vector along a dimension; nothing of it is kept."""
    f = lane.f
    width = widest(dims[dim], f.lanes)
    index = tuple(at(f"%p{d}") for d in range(len(dims)))
    kept = f.lines, f.constants, f.count, lane.gathers
    f.lines, f.constants, lane.gathers = [], dict(f.constants), []
    with f.fence():
        make(index, (dim, width) if width > 1 else None)
    gathered = tuple(dict.fromkeys(lane.gathers))
    lines = len(f.lines) - sum(f.lanes for _ in gathered)
    f.lines, f.constants, f.count, lane.gathers = kept
    return Trial(max(lines, 1), gathered)


def widest(size: int, lanes: int) -> int:
    """The longest vectors along a dimension."""
    return max(1, max(w for _, _, w in pieces(size, lanes)))


def best_dim(lane: Lane, dims: Sequence[int], make: Make, usual: int | None) -> int | None:
    """The dimension along which the vectors of pointwise work cost least; ``usual`` where others are no better."""
    best, least = usual, float("inf")
    for dim in sorted((d for d in range(len(dims)) if dims[d] >= 4), key=lambda d: d != usual):
        cost = price(lane, dims, dim, trial(lane, dims, dim, make))
        if cost < 0.9 * least:
            best, least = dim, cost
    return best


def price(lane: Lane, dims: Sequence[int], dim: int, found: Trial) -> float:
    """Instructions for all entries, with the copies that are not made yet."""
    copies = sum(COPIED * entries(view.dims) for view, _ in found.gathered)
    return found.lines * entries(dims) / widest(dims[dim], lane.f.lanes) + copies


def prepare(lane: Lane, dims: Sequence[int], dim: int | None, make: Make) -> int:
    """Copies of what vectors along a dimension would gather. How many lines the code for a vector has, 0 where that
    was not tried."""
    if dim is None or dims[dim] < 4 or entries(dims) < 4 * lane.f.lanes:
        return 0
    found = trial(lane, dims, dim, make)
    for view, across in found.gathered:
        if entries(view.dims) <= 2 * entries(dims):
            laid_along(lane, view, across)
    return found.lines


def laid_along(lane: Lane, view: View, dim: int) -> View:
    """A copy of a tensor in which a dimension lies in one piece; made once."""
    key = ("packed", view, dim)
    if key not in lane.packed:
        target = lane.scratch(view.dims, dim)
        down = next((d for d in range(len(view.dims)) if view.step(d) == 1 and d != dim), None)
        with lane.before_segments(view), lane.f.fence():
            if down is None:
                copy(lane, view, target)
            else:
                transposed(lane, view, target, down, dim)
        lane.packed[key] = target
    return lane.packed[key]
