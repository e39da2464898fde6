"""Windows of ticks as operations on tiles: entries are moved, nothing is multiplied.

A window of ``n`` ticks that ends at tick t of a segment sees the rows t .. t + n - 1 of the ``T + n - 1`` that the
segment and the ``n - 1`` ticks before it have. ``lead`` is the number of mapped axes that are dims.
"""

from __future__ import annotations

from nldsl.backends.triton.builder import Builder, brackets, shape
from nldsl.backends.triton.tiles import Extent, Tile, UnsupportedError
from nldsl.dims import Dim


def unfold(b: Builder, x: Tile, n: Dim, ticks: Dim, lead: int) -> Tile:
    """[.., T + n - 1, ..] -> [.., T, n, ..]: entry t, i is x[t + i]."""
    _whole(x, lead)
    rows, window = Extent(ticks), Extent(n)
    dims = (*x.dims[:lead], rows, window, *x.dims[lead + 1 :])
    flat = f"({rows.block} * {window.block})"
    first, last = b.index(rows, 0, 2), b.index(window, 1, 2)
    line = b.define("index", f"tl.reshape({_inside(f'{first} + {last}', x.dims[lead])}, ({flat},))", "seen")
    blocks = [e.block for e in x.dims]
    blocks[lead] = flat
    where = f"tl.broadcast_to({line}{brackets((lead,), len(blocks))}, ({', '.join(blocks)},))"
    index = b.define("index", where, "source")
    text = f"tl.reshape(tl.gather({x.name}, {index}, {lead}), {shape(dims)})"
    return b.tile("gather", text, dims, x.name, x.kind)


def band(b: Builder, x: Tile, n: Dim, lead: int) -> Tile:
    """[.., T, T + n - 1, ..] -> [.., T, n, ..]: entry t, i is x[t, t + i]."""
    _whole(x, lead + 1)
    window = Extent(n)
    dims = (*x.dims[: lead + 1], window, *x.dims[lead + 2 :])
    rank = len(dims)
    tick, place = b.index(x.dims[lead], lead, rank), b.index(window, lead + 1, rank)
    source = _inside(f"{tick} + {place}", x.dims[lead + 1])
    where = b.define("index", f"tl.broadcast_to({source}, {shape(dims)})", "source")
    zero = [d for d in x.zero if d != lead + 1]
    return b.tile("gather", f"tl.gather({x.name}, {where}, {lead + 1})", dims, x.name, x.kind, zero)


def unband(b: Builder, x: Tile, n: Dim, lead: int) -> Tile:
    """[.., T, n, ..] -> [.., T, T + n - 1, ..]: entry t, t + i is x[t, i], the others are 0."""
    _whole(x, lead + 1)
    seen = Extent(x.dims[lead].size + n - 1)
    dims = (*x.dims[: lead + 1], seen, *x.dims[lead + 2 :])
    rank = len(dims)
    offset = f"{b.index(seen, lead + 1, rank)} - {b.index(x.dims[lead], lead, rank)}"
    where = b.define("index", f"tl.broadcast_to({_inside(offset, x.dims[lead + 1])}, {shape(dims)})", "source")
    found = b.define("gather", f"tl.gather({x.name}, {where}, {lead + 1})", x.name)
    inside = b.define("index", f"({offset} >= 0) & ({offset} < {n})", "in_window")
    zero = [d for d in x.zero if d != lead + 1]
    return b.tile("pointwise", f"tl.where({inside}, {found}, 0.0)", dims, x.name, x.kind, zero)


def _inside(index: str, extent: Extent) -> str:
    return f"tl.minimum(tl.maximum({index}, 0), {extent.block} - 1)"


def _whole(x: Tile, dim: int) -> None:
    if x.dims[dim].split:
        raise UnsupportedError("a window over columns that are divided among programs")
