"""Linear systems: Gauss-Jordan elimination with row pivoting, one column after the other, for all lanes at once."""

from __future__ import annotations

from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import INT, REAL, Held, Node, Size
from nldsl.backends.iree.shapes import gather, join, lined, reshape


def solve(low: Lower, matrix: Node, right: Node) -> Node:
    """``matrix^-1 right`` for a vector or the columns of a matrix."""
    n = matrix.shape[0]
    vector = len(right.shape) == 1
    axes = low.merged([matrix, right])
    columns = reshape(low, right, (n, 1)) if vector else right
    width = n + columns.shape[1]
    whole = join(low, [low.stretched(matrix, axes, matrix.shape), low.stretched(columns, axes, columns.shape)], 1)
    start = low.full(low.stretched(whole, axes, (n, width)))
    with low.text.loop(n, [(start.ssa, start.sizes, REAL)]) as (count, (now,), end):
        table = Held(axes, (n, width), REAL, now, start.sizes, start.where)
        done = low.full(_column(low, table, low.scalar(low.text.integer(count), INT), n))
        found = end([done.ssa])
    result = Held(axes, (n, width), REAL, low.text.tied(found[0], start.sizes, REAL), start.sizes, start.where)
    lead = len(axes)
    rest = _last(low, result, lead, n, width)
    return reshape(low, rest, right.shape) if vector else rest


def _last(low: Lower, table: Held, lead: int, n: int, width: int) -> Node:
    from nldsl.backends.iree.shapes import cut

    return cut(low, table, lead + 1, n, width - n)


def _column(low: Lower, table: Held, k: Node, n: int) -> Node:
    """Eliminate column ``k`` with the row that has the largest entry in it."""
    axes, shape = table.axes, table.shape
    lead = len(axes)
    whole = [*range(lead + 2)]
    row, column = lined(low, 0, (n,)), lined(low, 0, (n,))
    del column
    every: dict[int, Node | int] = {d: d for d in whole}
    at_k = gather(low, table, axes, (n,), {**{d: d for d in range(lead)}, lead: lead, lead + 1: k})
    size = low.point("where", low.point("ge", row, k), low.point("abs", at_k), low.literal(-1.0))
    size = low.force(size)
    largest = low.force(low.reduce(size, (lead,), "max"))
    last = low.view(largest, axes, (1,), list(range(lead)))
    candidate = low.point(
        "where", low.point("eq", size, last), low.point("sub", low.literal(n - 1), row), low.literal(-1)
    )
    pivot = low.force(low.point("sub", low.literal(n - 1), low.reduce(low.force(candidate), (lead,), "max")))
    spaced = low.view(pivot, axes, (1, 1), list(range(lead)))
    rows = lined(low, 0, shape)
    source = low.point(
        "where", low.point("eq", rows, k), spaced, low.point("where", low.point("eq", rows, spaced), k, rows)
    )
    every[lead] = source
    swapped = low.full(gather(low, table, axes, shape, every))
    index: dict[int, Node | int] = {d: d for d in whole}
    index[lead] = k
    top = gather(low, swapped, axes, (1, shape[1]), {**index, lead + 1: lead + 1})
    head = gather(low, swapped, axes, (1, 1), {**{d: d for d in range(lead)}, lead: k, lead + 1: k})
    scaled = low.force(low.point("div", top, head))
    factor = gather(low, swapped, axes, (n, 1), {**{d: d for d in range(lead + 1)}, lead + 1: k})
    reduced = low.point("sub", swapped, low.point("mul", low.force(factor), scaled))
    return low.point("where", low.point("eq", rows, k), scaled, reduced)


__all__ = ["Size", "solve"]
