"""General linear systems as tiles: all lanes and ticks of a program at once, by elimination row by row."""

from __future__ import annotations

from nldsl.backends.triton.builder import Builder, check, shape
from nldsl.backends.triton.tiles import ONE, Tile, UnsupportedError


def solve(b: Builder, matrix: Tile, right: Tile, lead: int) -> Tile:
    """``matrix``: [.., n, n], ``right``: [.., n] or [.., n, m] with the same ``lead`` first dims. n is a number."""
    size = matrix.dims[lead]
    if not isinstance(size.size, int) or size.split:
        raise UnsupportedError(f"a system of {size.size} unknowns")
    stack = " * ".join(e.block for e in matrix.dims[:lead]) or "1"
    columns = right.dims[lead + 1] if len(right.dims) > lead + 1 else ONE
    check((*matrix.dims[:lead], size, size))
    square, side = f"({stack}, {size.block}, {size.block})", f"({stack}, {size.block}, {columns.block})"
    a = b.define("view", f"tl.reshape({b.clean(matrix).name}, {square})", matrix.name)
    r = b.define("view", f"tl.reshape({b.clean(right).name}, {side})", right.name)
    text = f"solution({a}, {r}, {size.size}, {size.block})"
    whole = b.define("solve", text, "solution")
    zero = [d for d in right.zero if d >= lead]
    return b.tile("view", f"tl.reshape({whole}, {shape(right.dims)})", right.dims, "solution", zero=zero)
