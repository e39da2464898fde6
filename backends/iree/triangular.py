"""Triangular systems of a segment's ticks, forward and transposed."""

from __future__ import annotations

from nldsl.backends.iree.carried import Carried
from nldsl.backends.iree.contraction import einsum
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import REAL, Node, Size
from nldsl.backends.iree.products import padded
from nldsl.backends.iree.shapes import cut, lined, pad, pick, reshape

BLOCK = 16  # rows that are solved one by one; the rest is products


def solve_triangular(low: Lower, matrix: Node, right: Node, transposed: bool) -> Node:
    """(1 + L) x = right, or (1 + L') x = right: L is what stands below the diagonal of ``matrix``.

    Block by block, x[p] = (1 + L[p, p])^-1 (right[p] - sum over q < p of L[p, q] x[q]). The inverses of the blocks on
    the diagonal are solved row by row, all at once: a series of powers would cancel where ticks are much alike.
    """
    n = matrix.shape[0]
    axes = low.merged([matrix, right])
    if n == 1:
        return low.stretched(right, axes, right.shape)
    columns = reshape(low, right, (n, 1)) if len(right.shape) == 1 else right
    if n <= BLOCK:
        alone = reshape(low, matrix, (1, n, n)), reshape(low, columns, (1, *columns.shape))
        return reshape(low, _row_by_row(low, *alone, transposed), right.shape)
    size = -(-n // BLOCK) * BLOCK
    if size > n:
        matrix = pad(low, pad(low, matrix, 0, 0, size - n), 1, 0, size - n)
    found = _block_by_block(low, matrix, padded(low, columns, size, 0.0), transposed)
    return reshape(low, cut(low, found, len(axes), 0, n), right.shape)


def _row_by_row(low: Lower, matrix: Node, right: Node, transposed: bool) -> Node:
    """[P, b, b] and [P, b, C]: x[i] = right[i] - matrix[i] @ x, where the rows of x that are not known yet are zero."""
    blocks, n = matrix.shape[:2]
    text, table, given = low.text, low.force(matrix), low.force(right)
    made = Carried.like(low, [table, given], (blocks, n, right.shape[2]), 1)
    with text.loop(n, [(text.unlike(made.sizes, REAL), made.sizes, REAL)]) as (count, (now,), end):
        here = low.inside()
        at: Size = text.index_op("subi", n - 1, count) if transposed else count
        row = pick(here, table, len(table.axes) + (2 if transposed else 1), at)
        known = einsum(here, "pj,pjc->pc", [row, made.value(now)])
        new = here.point("sub", pick(here, given, len(given.axes) + 1, at), known)
        (found,) = end([made.put(here, new, now, at)])
    return made.value(text.tied(found, made.sizes, REAL))


def _block_by_block(low: Lower, matrix: Node, right: Node, transposed: bool) -> Node:
    """[n, n] and [n, C], for a number of rows that ``BLOCK`` divides."""
    (n, _), width, blocks = matrix.shape, right.shape[1], matrix.shape[0] // BLOCK
    text = low.text
    tiles = low.force(reshape(low, matrix, (blocks, BLOCK, blocks, BLOCK)))
    lead = len(tiles.axes)
    diagonal = low.view(tiles, tiles.axes, (blocks, BLOCK, BLOCK), [*range(lead), lead, lead + 1, lead, lead + 2])
    square = (blocks, BLOCK, BLOCK)
    unit = low.point("to_real", low.point("eq", lined(low, 1, square), lined(low, 2, square)))
    inverse = low.force(_row_by_row(low, low.full(diagonal), low.stretched(unit, (), square), False))
    given = low.force(reshape(low, right, (blocks, BLOCK, width)))
    made = Carried.like(low, [tiles, given], (blocks, BLOCK, width), 0)
    with text.loop(blocks, [(text.unlike(made.sizes, REAL), made.sizes, REAL)]) as (count, (now,), end):
        here = low.inside()
        at: Size = text.index_op("subi", blocks - 1, count) if transposed else count
        known = reshape(here, made.value(now), (n, width))
        if transposed:
            strip = reshape(here, pick(here, tiles, lead + 2, at), (n, BLOCK))
        else:
            strip = reshape(here, pick(here, tiles, lead, at), (BLOCK, n))
        taken = einsum(here, "ji,jc->ic" if transposed else "ij,jc->ic", [strip, known])
        rest = here.force(here.point("sub", pick(here, given, len(given.axes), at), taken))
        new = einsum(here, "ji,jc->ic" if transposed else "ij,jc->ic", [pick(here, inverse, lead, at), rest])
        (found,) = end([made.put(here, new, now, at)])
    return reshape(low, made.value(text.tied(found, made.sizes, REAL)), (n, width))
