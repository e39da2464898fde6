"""``solve(A, b)``: Gaussian elimination with partial pivots, on copies of A and b.

Vectors run along the rows. Rows are changed by the largest entry below the diagonal, as LAPACK does; it is looked for
while the column before is eliminated. The row that is taken from the others stays in registers, and columns that are
done are left out in up to four steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from nldsl.backends.mlir import vector_math as vm
from nldsl.backends.mlir.lane import Lane
from nldsl.backends.mlir.nests import copy, fill, horizontal, rows, runs
from nldsl.backends.mlir.text import Function, Ix, Val, at
from nldsl.backends.mlir.views import View, load, pieces, store

SEGMENTS = 4  # of the columns
REGISTERS = 12  # vectors of a row that are held
Part = tuple[View, int, int]  # a matrix, a column of it, and the width of the vector there (0: one number)


def solve(lane: Lane, target: View, matrix: View, right: View, lead: int) -> None:
    """``target``, ``matrix`` and ``right`` have the same ``lead`` first dimensions; b is a vector or a matrix."""
    f = lane.f
    n = matrix.dims[-1]
    vector = len(right.dims) == lead + 1
    width = 1 if vector else right.dims[-1]
    work, side = lane.scratch((n, n)), lane.scratch((n, width))
    found = lane.scratch((n,)) if vector else None
    ends = _segments(n, f.lanes)
    with rows(f, [*target.dims[:lead], 1], ()) as index:
        head = index[:lead]
        with f.fence():
            copy(lane, _at(matrix, head), work)
        with f.fence():
            copy(lane, _columns(_at(right, head), vector), side)
        pivot = _largest(f, work)
        for first, last in pairwise(ends):
            parts = [*_parts(work, first, f.lanes), *_parts(side, 0, f.lanes)]
            pivot = _eliminated(f, work, parts, pivot, first, last)
        if found is None:
            with f.loop(f.index(0), f.index(n), 1, "q") as name:
                _substitute(f, work, side, at(name) * -1 + (n - 1))
            with f.fence():
                copy(lane, side, _at(target, head))
        else:
            with f.fence():
                fill(f, found, lambda _, vec: f.number(0.0, vec[1] if vec else 0))
            for first, last in reversed([*pairwise(ends)]):
                parts = _parts(work, first, f.lanes)
                with f.loop(f.index(0), f.index(last - first), 1, "q") as name:
                    _found(f, work, side, found, parts, at(name) * -1 + (last - 1))
            with f.fence():
                copy(lane, found, _at(target, head))


def _segments(n: int, lanes: int) -> list[int]:
    """Where the columns are cut, at multiples of a vector: 0, .., n."""
    blocks = -(-n // lanes)
    step = -(-blocks // SEGMENTS) * lanes
    return [*range(0, n, step), n]


def _parts(view: View, first: int, lanes: int) -> list[Part]:
    """The columns from ``first`` on, in vectors."""
    size = view.dims[1]
    found = [(start + n * max(width, 1), width) for start, count, width in pieces(size, lanes) for n in range(count)]
    return [(view, start, width) for start, width in found if start >= first]


def _at(view: View, head: Sequence[Ix]) -> View:
    """The part of a tensor at a place of its first dimensions."""
    base = view.base
    for position, stride, size in zip(head, view.strides, view.dims, strict=False):
        if size > 1:
            base = base + position * stride
    k = len(head)
    return View(view.buffer, base, view.strides[k:], view.dims[k:], view.element)


def _columns(view: View, vector: bool) -> View:
    return View(view.buffer, view.base, (*view.strides, 1), (*view.dims, 1), view.element) if vector else view


def _largest(f: Function, work: View) -> Val:
    """The row with the largest entry in the first column."""
    start = [f.number(-1.0), f.integer(0)]
    return f.reduce(f.index(work.dims[0]), 1, start, lambda name, best: _larger(f, work, at(name), Ix(), best))[1]


def _larger(f: Function, work: View, row: Ix, column: Ix, best: list[Val]) -> list[Val]:
    """The larger one of an entry and the largest so far, with its row."""
    size = f.apply("math.absf", load(f, work, [row, column], None))
    larger = f.apply("arith.cmpf ogt,", size, best[0], kind="b")
    return [f.select(larger, size, best[0]), f.select(larger, f.as_integer(row), best[1])]


def _eliminated(f: Function, work: View, parts: Sequence[Part], pivot: Val, first: int, last: int) -> Val:
    """Eliminates some columns, of which the first has its pivot in a known row; the pivot of the column after them."""

    def column(name: str, given: list[Val]) -> list[Val]:
        _exchange(f, parts, at(name), at(f.op(f"arith.index_cast {given[0].name} : i32 to index")))
        with f.fence():
            return [_eliminate(f, work, parts, at(name))]

    return f.reduce(f.index(last), 1, [pivot], column, f.index(first))[0]


def _exchange(f: Function, parts: Sequence[Part], one: Ix, other: Ix) -> None:
    for view, start, width in parts:
        with f.fence():
            vec = (1, width) if width else None
            first, second = load(f, view, [one, Ix(start)], vec), load(f, view, [other, Ix(start)], vec)
            store(f, view, [one, Ix(start)], second, vec)
            store(f, view, [other, Ix(start)], first, vec)


def _eliminate(f: Function, work: View, parts: Sequence[Part], row: Ix) -> Val:
    """Takes the row from all below it; where the next column then has its largest entry."""

    def loaded(place: Ix, part: Part) -> Val:
        view, start, width = part
        return load(f, view, [place, Ix(start)], (1, width) if width else None)

    scale = vm.div(f, f.number(1.0), load(f, work, [row, row], None))
    held = [loaded(row, part) for part in parts] if len(parts) <= REGISTERS else None

    def take(name: str, best: list[Val]) -> list[Val]:
        factor = f.apply("arith.negf", vm.mul(f, load(f, work, [at(name), row], None), scale))
        for n, part in enumerate(parts):
            view, start, width = part
            own = loaded(row, part) if held is None else held[n]
            new = vm.fma(f, f.spread(factor, width), own, loaded(at(name), part))
            store(f, view, [at(name), Ix(start)], new, (1, width) if width else None)
        with f.fence():
            return _larger(f, work, at(name), row + 1, best)

    start = [f.number(-1.0), f.as_integer(row + 1)]
    return f.reduce(f.index(work.dims[0]), 1, start, take, f.position(row + 1))[1]


def _found(f: Function, work: View, side: View, found: View, parts: Sequence[Part], row: Ix) -> None:
    """An entry of the solution from those after it; those before are zero yet."""
    sums: dict[int, Val] = {}
    for _, start, width in parts:
        a = load(f, work, [row, Ix(start)], (1, width) if width else None)
        x = load(f, found, [Ix(start)], (0, width) if width else None)
        sums[width] = vm.fma(f, a, x, sums[width]) if width in sums else vm.mul(f, a, x)
    known = load(f, side, [row, Ix()], None)
    for part in sums.values():
        known = f.apply("arith.subf", known, horizontal(f, part))
    store(f, found, [row], vm.div(f, known, load(f, work, [row, row], None)), None)


def _substitute(f: Function, work: View, side: View, row: Ix) -> None:
    """The row is what it is divided by its pivot; those above get rid of it."""
    with f.fence():
        pivot = load(f, work, [row, row], None)
        for block in runs(f, side.dims[1], f.lanes):
            for position, width in block:
                vec = (1, width) if width else None
                known = vm.div(f, load(f, side, [row, position], vec), f.spread(pivot, width))
                store(f, side, [row, position], known, vec)
    with f.fence(), f.loop(f.index(0), f.position(row), 1, "r") as name:
        factor = f.apply("arith.negf", load(f, work, [at(name), row], None))
        _add_row(f, side, at(name), row, factor)


def _add_row(f: Function, work: View, target: Ix, source: Ix, factor: Val) -> None:
    for block in runs(f, work.dims[1], f.lanes):
        for position, width in block:
            vec = (1, width) if width else None
            old = load(f, work, [target, position], vec)
            new = vm.fma(f, f.spread(factor, width), load(f, work, [source, position], vec), old)
            store(f, work, [target, position], new, vec)
