"""``solve(A, b)``: Gaussian elimination with partial pivots, on a copy of A with b beside it.

Vectors run along the rows of that copy. Rows are changed by the largest entry below the diagonal, as LAPACK does.
"""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.backends.mlir import vector_math as vm
from nldsl.backends.mlir.lane import Lane
from nldsl.backends.mlir.nests import copy, rows, runs
from nldsl.backends.mlir.text import Function, Ix, Val, at
from nldsl.backends.mlir.views import View, load, store


def solve(lane: Lane, target: View, matrix: View, right: View, lead: int) -> None:
    """``target``, ``matrix`` and ``right`` have the same ``lead`` first dimensions; b is a vector or a matrix."""
    f = lane.f
    n = matrix.dims[-1]
    vector = len(right.dims) == lead + 1
    width = 1 if vector else right.dims[-1]
    work = lane.scratch((n, n + width))
    with rows(f, [*target.dims[:lead], 1], ()) as index:
        head = index[:lead]
        with f.fence():
            copy(lane, _at(matrix, head), work.sliced(1, 0, n))
        side = work.sliced(1, n, width)
        with f.fence():
            copy(lane, _columns(_at(right, head), vector), side)
        with f.loop(f.index(0), f.index(n), 1, "p") as name:
            _exchange(f, work, at(name), _pivot(f, work, name))
            _eliminate(f, work, at(name))
        with f.loop(f.index(0), f.index(n), 1, "q") as name:
            _substitute(f, work, side, at(name) * -1 + (n - 1))
        with f.fence():
            copy(lane, side, _columns(_at(target, head), vector))


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


def _pivot(f: Function, work: View, column: str) -> Ix:
    """The row with the largest entry in a column, from the diagonal on."""

    def step(name: str, best: list[Val]) -> list[Val]:
        size = f.apply("math.absf", load(f, work, [at(name), at(column)], None))
        larger = f.apply("arith.cmpf ogt,", size, best[0], kind="b")
        return [f.select(larger, size, best[0]), f.select(larger, f.as_integer(at(name)), best[1])]

    start = [f.number(-1.0), f.as_integer(at(column))]
    found = f.reduce(f.index(work.dims[0]), 1, start, step, column)[1]
    return at(f.op(f"arith.index_cast {found.name} : i32 to index"))


def _exchange(f: Function, work: View, one: Ix, other: Ix) -> None:
    with f.fence():
        for block in runs(f, work.dims[1], f.lanes):
            for position, width in block:
                vec = (1, width) if width else None
                first, second = load(f, work, [one, position], vec), load(f, work, [other, position], vec)
                store(f, work, [one, position], second, vec)
                store(f, work, [other, position], first, vec)


def _eliminate(f: Function, work: View, row: Ix) -> None:
    """Take the row from all below it."""
    with f.fence():
        scale = vm.div(f, f.number(1.0), load(f, work, [row, row], None))
        with f.loop(f.position(row + 1), f.index(work.dims[0]), 1, "r") as name:
            factor = f.apply("arith.negf", vm.mul(f, load(f, work, [at(name), row], None), scale))
            _add_row(f, work, at(name), row, factor)


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
