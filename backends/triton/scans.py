"""Operations over the ticks of a segment as tiles: products, scans, systems. See ``nldsl/ir/time_ops.py``."""

from __future__ import annotations

from nldsl.backends.triton.builder import Builder, shape
from nldsl.backends.triton.pointwise import aligned, settled
from nldsl.backends.triton.tiles import Extent, Moved, Parts, Tile, UnsupportedError, Value
from nldsl.backends.triton.views import moved_into, reshape, slice_of, tile_of


def _whole(dims: tuple[Extent, ...]) -> None:
    if any(e.split for e in dims):
        raise UnsupportedError("a scan with columns that are divided among programs")


def _levels(extent: Extent) -> str:
    """How often a block can be halved, as code: known when the kernel is compiled."""
    if extent.block.isdigit():
        return str(int(extent.block).bit_length() - 1)
    factor, _, rest = extent.block.rpartition(" * ")
    if rest != "BT" or "BT" in factor:
        raise UnsupportedError(f"a system of {extent.size} unknowns")
    return f"LOG_BT + {int(factor).bit_length() - 1}" if factor else "LOG_BT"


def filled(b: Builder, tile: Tile, dim: int) -> Tile:
    """The tile with 1 for padding along a dim: what a product does not see."""
    if not tile.dims[dim].padded:
        return tile
    text = f"tl.where({b.mask(tile.dims, (dim,))}, {tile.name}, 1.0)"
    return b.tile("pointwise", text, tile.dims, tile.name, zero=tile.zero - {dim})


def cumprod(b: Builder, value: Value, dim: int, reverse: bool, exclusive: bool, hint: str = "decay") -> Value:
    """Products of all entries up to each one (``reverse``: from each one on; ``exclusive``: without itself)."""
    value = settled(b, value)
    if isinstance(value, Parts) and value.dim != dim:
        return Parts(value.dim, tuple(cumprod(b, p, dim, reverse, exclusive, hint) for p in value.pieces))
    tile = filled(b, b.real(tile_of(b, value)), dim)
    if exclusive:
        size = tile.dims[dim].size
        moved = Moved(tile, dim, 1, 0, size - 1, size) if reverse else Moved(tile, dim, -1, 1, size, size)
        tile = b.broadcast(Tile("1.0"), tile.dims) if size == 1 else moved_into(b, moved, "1.0")
    flag = ", reverse=True" if reverse else ""
    return b.tile("scan", f"tl.cumprod({tile.name}, {dim}{flag})", tile.dims, hint, zero=tile.zero - {dim})


def cumsum(b: Builder, value: Value, dim: int, reverse: bool, hint: str = "total") -> Value:
    """Sums of all entries up to each one."""
    value = settled(b, value)
    if isinstance(value, Parts) and value.dim != dim:
        return Parts(value.dim, tuple(cumsum(b, p, dim, reverse, hint) for p in value.pieces))
    tile = b.clean(b.real(tile_of(b, value)), (dim,))
    flag = ", reverse=True" if reverse else ""
    return b.tile("scan", f"tl.cumsum({tile.name}, {dim}{flag})", tile.dims, hint, zero=tile.zero - {dim})


def segprod(b: Builder, value: Value, lead: int, hint: str = "decay") -> Value:
    """[T, ..] -> [T, T, ..]."""
    value = settled(b, value)
    if isinstance(value, Parts) and value.dim > lead:
        return Parts(value.dim + 1, tuple(segprod(b, p, lead, hint) for p in value.pieces))
    tile = b.real(tile_of(b, value))
    time = tile.dims[lead]
    dims = (*tile.dims[: lead + 1], time, *tile.dims[lead + 1 :])
    if len(tile.dims) == 1:
        text = f"products_between({tile.name}, {time.text}, {time.block})"
        return b.tile("scan", text, dims, hint, zero=(0, 1))
    if len(tile.dims) == 2 and lead == 0:
        text = f"products_between_columns({tile.name}, {time.text}, {time.block})"
        return b.tile("scan", text, dims, hint, zero=(0, 1))
    rank = len(dims)
    t, s = b.index(time, lead, rank), b.index(time, lead + 1, rank)
    wide = _expanded(tile, lead + 1)
    factor = b.define("pointwise", f"tl.where({t} > {s}, {wide}, 1.0)", "factor")
    table = b.define("scan", f"tl.cumprod({factor}, {lead})", "table")
    text = f"tl.where(({t} >= {s}) & ({t} < {time.text}), {table}, 0.0)"
    return b.tile("pointwise", text, dims, hint, zero=(lead, lead + 1))


def _expanded(tile: Tile, at: int) -> str:
    parts = [":"] * len(tile.dims)
    parts.insert(at, "None")
    return f"{tile.name}[{', '.join(parts)}]"


def segprod_matrix(b: Builder, value: Value, lead: int, functions: dict[str, str]) -> Value:
    """[T, n, n, ..] -> [T, T, n, n, ..] for small n: entry by entry, one scan of all entries together."""
    n, rest = value.dims[lead + 1].size, value.dims[lead + 3 :]
    if lead != 0 or not isinstance(n, int) or n > 4 or any(e.split for e in rest):
        raise UnsupportedError("a table of products of large matrices")
    time = value.dims[0]
    sizes = tuple(e.size for e in rest)
    entry = [[_entry(b, value, i, j) for j in range(n)] for i in range(n)]
    dims = (time, time, *rest)
    t, s = b.index(time, 0, len(dims)), b.index(time, 1, len(dims))
    factors = []
    for i in range(n):
        for j in range(n):
            wide = aligned(entry[i][j], (0, *range(2, len(dims))), len(dims))
            assert isinstance(wide, Tile)
            text = f"tl.where({t} > {s}, {wide.name}, {'1.0' if i == j else '0.0'})"
            factors.append(b.define("pointwise", f"tl.broadcast_to({text}, {shape(dims)})", f"factor_{i}{j}"))
    name = f"matrices_{n}"
    functions[name] = _combine(name, n)
    scan = b.define("scan", f"tl.associative_scan(({', '.join(factors)}), 0, {name})", "table")
    rows = []
    for i in range(n):
        row: list[Value] = []
        for j in range(n):
            text = f"tl.where(({t} >= {s}) & ({t} < {time.text}), {scan}[{i * n + j}], 0.0)"
            tile = b.tile("pointwise", text, dims, f"table_{i}{j}", zero=(0, 1))
            row.append(reshape(b, tile, (time.size, time.size, 1, 1, *sizes), 0))
        rows.append(Parts(3, tuple(row)))
    return Parts(2, tuple(rows))


def _entry(b: Builder, value: Value, i: int, j: int) -> Tile:
    one = slice_of(b, slice_of(b, value, 1, i, i + 1), 2, j, j + 1)
    sizes = (value.dims[0].size, *(e.size for e in value.dims[3:]))
    tile = b.real(tile_of(b, reshape(b, settled(b, one), sizes, 0)))
    return b.broadcast(tile, (value.dims[0], *value.dims[3:]))


def _combine(name: str, n: int) -> str:
    """The function that multiplies two matrices, given and returned entry by entry: the second from the left."""
    one = [[f"a{i}{j}" for j in range(n)] for i in range(n)]
    two = [[f"b{i}{j}" for j in range(n)] for i in range(n)]
    results = [" + ".join(f"{two[i][m]} * {one[m][j]}" for m in range(n)) for i in range(n) for j in range(n)]
    names = ", ".join(x for rows in (one, two) for row in rows for x in row)
    lines = [
        "@triton.jit",
        f"def {name}({names}):",
        f'    """The product of two {n} x {n} matrices, the later one on the left."""',
        "    return (",
        *(f"        {r}," for r in results),
        "    )",
    ]
    return "\n".join(lines)


def decay_gram(b: Builder, values: list[Value], lead: int) -> Value:
    """See ``library.decay_gram``; ``lead`` mapped axes come first."""
    tiles = [b.clean(b.real(tile_of(b, v))) for v in values]
    if not b.walking:
        _whole(tiles[0].dims)
    q, a, k = (_stacked(b, t, lead) for t in tiles)
    time, width = tiles[0].dims[lead:]
    count = _count(tiles[0].dims[:lead])
    sizes = f"{count}, {time.block}, {width.block}, {_levels(time)}, REAL, DOT, PRECISION"
    text = f"decay_gram({q}, {a}, {k}, {time.text}, {sizes})"
    dims = (*tiles[0].dims[:lead], time, time)
    return _unstacked(b, b.define("scan", text, "gram"), dims, lead, "gram", (lead, lead + 1))


def _count(dims: tuple[Extent, ...]) -> str:
    return " * ".join(e.block for e in dims) if dims else "1"


def _stacked(b: Builder, tile: Tile, lead: int) -> str:
    if lead == 1:
        return tile.name
    sizes = ", ".join([_count(tile.dims[:lead]), *(e.block for e in tile.dims[lead:])])
    return b.define("view", f"tl.reshape({tile.name}, ({sizes}))", tile.name)


def _unstacked(
    b: Builder, name: str, dims: tuple[Extent, ...], lead: int, hint: str, zero: tuple[int, ...] = ()
) -> Tile:
    if lead == 1:
        return Tile(name, dims, "real", frozenset(zero))
    return b.tile("view", f"tl.reshape({name}, {shape(dims)})", dims, hint, zero=zero)


def decay_gram_grad(b: Builder, values: list[Value], lead: int) -> Value:
    """The cotangents of q, a and k, one after the other along a dim."""
    tiles = [b.clean(b.real(tile_of(b, v))) for v in values]
    d, q, a, k = (_stacked(b, t, lead) for t in tiles)
    dims = tiles[1].dims
    time, width = dims[lead:]
    sizes = f"{_count(dims[:lead])}, {time.block}, {width.block}, {_levels(time)}, REAL, DOT, PRECISION"
    grads = b.define("scan", f"decay_gram_grad({d}, {q}, {a}, {k}, {time.text}, {sizes})", "grads")
    pieces: list[Value] = []
    for n, hint in enumerate(("d_left", "d_decay", "d_right")):
        name = b.define("scan", f"{grads}[{n}]", hint)
        tile = _unstacked(b, name, dims, lead, hint)
        pieces.append(reshape(b, tile, (1, time.size, width.size), lead))
    return Parts(lead, tuple(pieces))


def linear_scan(b: Builder, decay: Value, new: Value, lead: int, reverse: bool) -> Value:
    """x[t] = a[t] * x[t-1] + b[t], or of x[t+1]."""
    tile = b.clean(b.real(tile_of(b, new)), (lead,))
    rank = len(tile.dims)
    a = b.real(tile_of(b, settled(b, decay)))
    if len(a.dims) < rank:
        rest = len(a.dims) - lead - 1
        places = (*range(lead + 1), *range(rank - rest, rank))
        stretched = aligned(a, places, rank)
        assert isinstance(stretched, Tile)
        a = stretched
    a = b.broadcast(b.clean(a, (lead,)), tile.dims)
    flag = ", reverse=True" if reverse else ""
    text = f"tl.associative_scan(({a.name}, {tile.name}), {lead}, after{flag})"
    pair = b.define("scan", text, "scan")
    return b.tile("scan", f"{pair}[1]", tile.dims, "x", zero=tile.zero - {lead})


def inverse(b: Builder, value: Value, lead: int) -> Tile:
    """The inverse of a unit lower triangular matrix."""
    matrix = b.clean(b.real(tile_of(b, value)))
    side = matrix.dims[lead]
    text = f"triangular_inverse({_stacked(b, matrix, lead)}, {_count(matrix.dims[:lead])}, {side.block}, "
    text += f"{_levels(side)}, REAL, SOLVE)"
    return _unstacked(b, b.define("solve", text, "inverse"), matrix.dims, lead, "inverse")
