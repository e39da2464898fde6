"""Values that are no tiles yet become tiles; slices, paddings, concatenations, reshapes."""

from __future__ import annotations

from dataclasses import replace

from nldsl.backends.triton.builder import Builder, bare, brackets, shape, wide
from nldsl.backends.triton.tiles import ONE, Extent, Moved, Parts, Tile, UnsupportedError, Value, Zero, dim_text
from nldsl.dims import Dim, Poly


def tile_of(b: Builder, value: Value) -> Tile:
    """The value in registers."""
    if isinstance(value, Tile):
        return value
    if isinstance(value, Zero):
        return b.zeros(value)
    if isinstance(value, Moved):
        return _moved(b, value)
    return _joined(b, value)


def _moved(b: Builder, value: Moved, nothing: str = "") -> Tile:
    """``nothing``: what is where no entry of the tile is moved to, 0 if empty."""
    tile, dim = value.tile, value.dim
    dims, rank = value.dims, len(value.dims)
    if value.size == 1:  # one entry: a sum over what is masked
        at = f"{b.index(tile.dims[dim])} == {dim_text(value.offset)}"
        at = f"({at})" + brackets((dim,), rank) if rank > 1 else at
        nothing = "0" if tile.kind == "int" else "0.0"
        total = b.define("reduce", f"tl.sum(tl.where({at}, {tile.name}, {nothing}), {dim})", tile.name)
        if all(e.size == 1 for e in dims) and rank == 1:
            return Tile(total, (), tile.kind)
        places = tuple(d for d in range(rank) if d != dim)
        return Tile(total + brackets(places, rank), dims, tile.kind, tile.zero - {dim})
    extent = dims[dim]
    moved = tile
    if value.offset == 0 and extent.block == tile.dims[dim].block:
        moved = replace(tile, dims=dims, zero=tile.zero - {dim})
    elif tile.dims[dim].block == "1":  # compilers before Triton 3.9 have no gather from so few entries
        text = f"tl.broadcast_to({tile.name}, {shape(dims)})"
        moved = b.tile("view", text, dims, tile.name, tile.kind, tile.zero - {dim})
    else:
        index = b.index(extent, dim, rank)
        last = tile.dims[dim].block
        source, same = f"{index}{_plus(value.offset)}", extent.block == last
        ahead = isinstance(value.offset, int) and value.offset > 0
        behind = isinstance(value.offset, int) and value.offset < 0
        source = source if same and ahead else f"tl.maximum({source}, 0)"
        source = source if same and behind else f"tl.minimum({source}, {last} - 1)"
        own = tile.dims[:dim] + (extent,) + tile.dims[dim + 1 :]
        where = b.define("index", source if rank == 1 else f"tl.broadcast_to({source}, {shape(own)})", "source")
        text = f"tl.gather({tile.name}, {where}, {dim})"
        moved = b.tile("gather", text, dims, tile.name, tile.kind, tile.zero - {dim})
    inside = []
    index = b.index(extent, dim, rank)
    if value.low != 0:
        inside.append(f"({index} >= {dim_text(value.low)})")
    if extent.block != str(value.high):  # a block that is full needs no mask
        inside.append(f"({index} < {dim_text(value.high)})")
    if not inside:
        return moved
    mask = " & ".join(inside) if len(inside) > 1 else inside[0][1:-1]
    text = f"tl.where({mask}, {moved.name}, {nothing or ('0' if tile.kind == 'int' else '0.0')})"
    return b.tile("pointwise", text, dims, tile.name, tile.kind, moved.zero - {dim} if nothing else moved.zero | {dim})


def moved_into(b: Builder, value: Moved, nothing: str) -> Tile:
    """A tile that is moved by more than its size, or less, with ``nothing`` where no entry is."""
    return _moved(b, value, nothing)


def _plus(offset: Dim) -> str:
    text = dim_text(offset)
    return f" - {text[1:]}" if text.startswith("-") and "+" not in text else f" + {text}"


def _joined(b: Builder, value: Parts) -> Tile:
    """Pieces of one entry are selected by index, others are moved to where they belong."""
    dims, dim = value.dims, value.dim
    rank, start = len(dims), 0
    at: Dim = start
    result: Tile | None = None
    index = b.index(dims[dim], dim, rank)
    for piece in value.pieces:
        size = piece.dims[dim].size
        if not isinstance(piece, Zero):
            tile = b.real(tile_of(b, piece))
            if size == 1:
                text = f"tl.where({index} == {dim_text(at)}, {tile.name}, {result.name if result else '0.0'})"
                own = replace(tile, dims=dims)
                result = b.tile("pointwise", text, dims, "joined", zero=(own.zero | {dim}) & _zero(result, dims))
            else:
                part = _moved(b, Moved(tile, dim, -at, at, at + size, dims[dim].size))
                if result is None:
                    result = part
                else:
                    text = f"{result.name} + {part.name}"
                    result = b.tile("pointwise", text, dims, "joined", zero=part.zero & result.zero)
        at = at + size
    return b.zeros(Zero(dims)) if result is None else result


def _zero(result: Tile | None, dims: tuple[Extent, ...]) -> frozenset[int]:
    return frozenset(range(len(dims))) if result is None else result.zero


# -- the operations


def slice_of(b: Builder, value: Value, dim: int, start: Dim, stop: Dim) -> Value:
    """Entries ``start`` to ``stop`` along a dim."""
    size = stop - start
    if start == 0 and size == value.dims[dim].size:
        return value
    dims = value.dims[:dim] + (Extent(size),) + value.dims[dim + 1 :]
    if isinstance(value, Zero):
        return Zero(dims)
    if isinstance(value, Parts) and value.dim != dim:
        return Parts(value.dim, tuple(slice_of(b, p, dim, start, stop) for p in value.pieces))
    if isinstance(value, Parts):
        chosen = _chosen(value, start, stop)
        if chosen is not None:
            return chosen[0] if len(chosen) == 1 else Parts(dim, chosen)
        inside = _within(value, start, stop)
        if inside is not None:
            piece, offset = inside
            return slice_of(b, piece, dim, start - offset, stop - offset)
    if isinstance(value, Moved) and value.dim == dim and size != 1:
        # a padding that is cut away again: bounds move with the entries, and may leave the slice
        low, high = value.low - start, value.high - start
        if _order(low, 0) is not None and _order(high, size) is not None:
            low = low if _order(low, 0) else 0
            high = size if _order(high, size) else high
            return Moved(value.tile, dim, value.offset + start, low, high, size)
    tile = tile_of(b, value)
    if tile.dims[dim].split:
        raise UnsupportedError("a slice of columns that are divided among programs")
    return Moved(tile, dim, start, 0, size, size)


def pad(b: Builder, value: Value, dim: int, before: Dim, after: Dim) -> Value:
    """The value with zeros before and after, along a dim."""
    if before == 0 and after == 0:
        return value
    size = value.dims[dim].size + before + after
    dims = value.dims
    if isinstance(value, Moved) and value.dim == dim and value.size != 1:
        return Moved(value.tile, dim, value.offset - before, value.low + before, value.high + before, size)
    pieces: list[Value] = []
    if before != 0:
        pieces.append(Zero((*dims[:dim], Extent(before), *dims[dim + 1 :])))
    pieces.append(value)
    if after != 0:
        pieces.append(Zero((*dims[:dim], Extent(after), *dims[dim + 1 :])))
    if isinstance(before, int) and isinstance(after, int) and isinstance(value.dims[dim].size, int):
        return Parts(dim, tuple(pieces))
    tile = tile_of(b, value)
    return Moved(tile, dim, -before, before, before + value.dims[dim].size, size)


def concat(values: list[Value], dim: int) -> Value:
    """Values side by side along a dim."""
    pieces: list[Value] = []
    for value in values:
        if isinstance(value, Parts) and value.dim == dim:
            pieces.extend(value.pieces)
        elif value.dims[dim].size != 0:
            pieces.append(value)
    return pieces[0] if len(pieces) == 1 else Parts(dim, tuple(pieces))


def _chosen(value: Parts, start: Dim, stop: Dim) -> tuple[Value, ...] | None:
    """The pieces that a slice consists of, if it does."""
    at: Dim = 0
    found: list[Value] = []
    on = False
    for piece in value.pieces:
        on = on or at == start
        if at == stop:
            break
        if on:
            found.append(piece)
        at = at + piece.dims[value.dim].size
    return tuple(found) if on and at == stop and found else None


def _within(value: Parts, start: Dim, stop: Dim) -> tuple[Value, Dim] | None:
    """The piece that a slice lies in, and where it begins."""
    at: Dim = 0
    for piece in value.pieces:
        end = at + piece.dims[value.dim].size
        if all(isinstance(x, int) for x in (at, end, start, stop)) and at <= start and stop <= end:  # type: ignore[operator]
            return piece, at
        at = end
    return None


def _order(left: Dim, right: Dim) -> bool | None:
    """Whether ``left >= right`` for all numbers of ticks; None if that is not known."""
    difference = left - right
    if isinstance(difference, int):
        return difference >= 0
    assert isinstance(difference, Poly)
    signs = {c > 0 for _, c in difference.terms}
    return signs.pop() if len(signs) == 1 else None


def refined(b: Builder, value: Value, dim: int, sizes: tuple[Dim, ...]) -> tuple[Value, ...]:
    """The value in pieces of these sizes along a dim."""
    at: Dim = 0
    pieces = []
    for size in sizes:
        pieces.append(slice_of(b, value, dim, at, at + size))
        at = at + size
    return tuple(pieces)


def reshape(b: Builder, value: Value, target: tuple[Dim, ...], lead: int) -> Value:
    """The logical dims (behind the first ``lead``) in another shape."""
    own = tuple(d.size for d in value.dims[lead:])
    if own == target:
        return value
    if isinstance(value, Zero):
        return Zero((*value.dims[:lead], *(Extent(s) for s in target)))
    if isinstance(value, Parts):
        place = _kept_dim(own, target, value.dim - lead)
        if place is not None:
            pieces = []
            for piece in value.pieces:
                size = piece.dims[value.dim].size
                shape_of_piece = (*target[:place], size, *target[place + 1 :])
                pieces.append(reshape(b, piece, shape_of_piece, lead))
            return Parts(place + lead, tuple(pieces))
        if value.dim < lead:
            pieces = [reshape(b, piece, target, lead) for piece in value.pieces]
            return Parts(value.dim, tuple(pieces))
    tile = tile_of(b, value)
    squeezed = [s for s in own if s != 1]
    wanted = [s for s in target if s != 1]
    if squeezed == wanted:
        return _with_ones(b, tile, target, lead)
    return _general(b, tile, target, lead)


def _kept_dim(own: tuple[Dim, ...], target: tuple[Dim, ...], dim: int) -> int | None:
    """Where a dim is after a reshape that leaves it as it is."""
    if dim < 0 or own[dim] == 1:
        return None
    before: Dim = 1
    for size in own[:dim]:
        before = before * size
    total: Dim = 1
    for place, size in enumerate(target):
        if total == before and size == own[dim]:
            return place
        total = total * size
    return None


def _with_ones(b: Builder, tile: Tile, target: tuple[Dim, ...], lead: int) -> Tile:
    """Dims of size 1 put in and taken away."""
    kept = [(d, e) for d, e in enumerate(tile.dims) if d < lead or e.size != 1]
    dims: list[Extent] = list(tile.dims[:lead])
    zero = {d for d in tile.zero if d < lead}
    rest = iter(kept[lead:])
    for size in target:
        if size == 1:
            dims.append(ONE)
        else:
            old, extent = next(rest)
            if old in tile.zero:
                zero.add(len(dims))
            dims.append(extent)
    if not dims:
        if not tile.dims:
            return tile
        return b.tile("reduce", scalar(tile), (), tile.name, tile.kind)
    if not tile.dims:
        return tile if all(e.size == 1 for e in dims) else b.broadcast(tile, tuple(dims))
    inner = bare(tile)
    if inner is not None:  # what has been put in is taken away again
        places = list(wide(tuple(dims)))
        return Tile(inner + brackets(tuple(places), len(dims)), tuple(dims), tile.kind, frozenset(zero))
    if len(kept) == len(tile.dims) and tile.name.isidentifier():
        places = [d for d, e in enumerate(dims) if d < lead or e.size != 1]
        return Tile(tile.name + brackets(tuple(places), len(dims)), tuple(dims), tile.kind, frozenset(zero))
    text = f"tl.reshape({tile.name}, {shape(tuple(dims))})"
    return b.tile("view", text, tuple(dims), tile.name, tile.kind, zero)


def scalar(tile: Tile) -> str:
    """A tile of one entry as a number."""
    text = tile.name
    for _ in tile.dims:
        text = f"tl.sum({text}, 0)"
    return text


def _general(b: Builder, tile: Tile, target: tuple[Dim, ...], lead: int) -> Tile:
    """A reshape that joins or divides dims: free where only the outermost of the joined has padding."""
    dims = (*tile.dims[:lead], *(Extent(s) for s in target))
    if any(d.split for d in tile.dims):
        raise UnsupportedError("a reshape of columns that are divided among programs")
    if _fits(tile.dims[lead:], dims[lead:]):
        zero = {d for d in tile.zero if d < lead}
        return b.tile("view", f"tl.reshape({tile.name}, {shape(dims)})", dims, tile.name, tile.kind, zero)
    # entry by entry: the position among the entries that count, then where that one is in the padded tile
    position, rank = "", len(dims)
    for d, extent in enumerate(dims):
        place = b.index(extent, d, rank)
        position = place if not position else f"({position}) * ({extent.text}) + {place}"
    where = b.define("index", position, "position")
    source, stride = "", "1"
    for extent in reversed(tile.dims):
        digit = f"(({where}) % ({extent.text})) * ({stride})"
        source = digit if not source else f"{source} + {digit}"
        where = b.define("index", f"({where}) // ({extent.text})", "position")
        stride = f"{stride} * {extent.block}" if stride != "1" else extent.block
    total_in = " * ".join(e.block for e in tile.dims)
    total_out = " * ".join(e.block for e in dims)
    most = f"tl.minimum(tl.maximum({source}, 0), {total_in} - 1)"
    index = b.define("index", f"tl.reshape(tl.broadcast_to({most}, {shape(dims)}), ({total_out},))", "source")
    line = b.define("view", f"tl.reshape({tile.name}, ({total_in},))", tile.name)
    text = f"tl.reshape(tl.gather({line}, {index}, 0), {shape(dims)})"
    return b.tile("gather", text, dims, tile.name, tile.kind)


def _fits(own: tuple[Extent, ...], target: tuple[Extent, ...]) -> bool:
    """Whether both shapes order the entries that count alike in memory: group by group with equal sizes, padding at
    most in the first dim of a group (on both sides), and equal blocks of the rest."""
    left, right = list(own), list(target)
    while left or right:
        a, c = [left.pop(0)] if left else [], [right.pop(0)] if right else []
        if not a or not c:
            return all(e.size == 1 for e in (*a, *c, *left, *right))
        while _size(a) != _size(c):
            if left and (not right or _order(_size(c), _size(a))):
                a.append(left.pop(0))
            elif right:
                c.append(right.pop(0))
            else:
                return False
        if any(e.padded for e in (*a[1:], *c[1:])):
            return False
    return True


def _size(group: list[Extent]) -> Dim:
    total: Dim = 1
    for e in group:
        total = total * e.size
    return total
