"""Contractions of tiles: one operand is summed and transposed, two are a matrix product (batched) or a sum of products.

Dims are *labels*: the names of mapped axes and the letters of the spec.
"""

from __future__ import annotations

from nldsl.backends.triton.builder import Builder, shape
from nldsl.backends.triton.pointwise import aligned, pointwise, settled
from nldsl.backends.triton.tiles import Extent, Moved, Parts, Tile, UnsupportedError, Value, Zero
from nldsl.backends.triton.views import refined, tile_of

Labels = tuple[str, ...]
LEAST = 16  # the depth a matrix product of the hardware needs
ROWS = 64  # the rows that four warps together take
LARGE = 1 << 14  # entries of an operand that warps of any GPU may hold in registers, each all of its rows


def permute(b: Builder, value: Value, order: tuple[int, ...]) -> Value:
    """The dims in another order: dim ``order[i]`` becomes dim i."""
    if order == tuple(range(len(order))):
        return value
    dims = tuple(value.dims[d] for d in order)
    if isinstance(value, Zero):
        return Zero(dims)
    if isinstance(value, Parts):
        return Parts(order.index(value.dim), tuple(permute(b, p, order) for p in value.pieces))
    tile = tile_of(b, value)
    zero = frozenset(order.index(d) for d in tile.zero)
    real = [d for d in order if tile.dims[d].size != 1]
    if real == sorted(real):
        return b.tile("view", f"tl.reshape({tile.name}, {shape(dims)})", dims, tile.name, tile.kind, zero)
    text = f"tl.permute({tile.name}, {order})" if order != (1, 0) else f"tl.trans({tile.name})"
    return b.tile("view", text, dims, tile.name, tile.kind, zero)


def total(b: Builder, value: Value, which: tuple[int, ...], hint: str = "total") -> Value:
    """The sum over these dims."""
    if not which:
        return value
    left = tuple(e for d, e in enumerate(value.dims) if d not in which)
    if isinstance(value, Zero):
        return Zero(left)
    if isinstance(value, Moved):
        value = tile_of(b, value)
    if isinstance(value, Parts):
        parts = [total(b, p, which, hint) for p in value.pieces]
        if value.dim not in which:
            return Parts(value.dim - sum(d < value.dim for d in which), tuple(parts))
        found = parts[0]
        for part in parts[1:]:
            found = pointwise(b, "add", [found, part], left, hint)
        return found
    tile = b.clean(b.real(tile_of(b, value)), which)
    text = tile.name
    for d in sorted(which, reverse=True):
        if tile.dims[d].split and not b.walking:
            raise UnsupportedError("a sum over columns that are divided among programs")
        text = f"tl.sum({text}, {d})"
    kept = [d for d in range(len(tile.dims)) if d not in which]
    zero = [n for n, d in enumerate(kept) if d in tile.zero]
    return b.tile("reduce", text, left, hint, zero=zero)


def largest(b: Builder, value: Value, which: tuple[int, ...]) -> Tile:
    """The maximum over these dims."""
    tile = b.real(tile_of(b, value))
    mask = b.mask(tile.dims, which)
    text = f"tl.where({mask}, {tile.name}, float('-inf'))" if mask else tile.name
    for d in sorted(which, reverse=True):
        if tile.dims[d].split:
            raise UnsupportedError("a maximum over columns that are divided among programs")
        text = f"tl.max({text}, {d})"
    left = tuple(e for d, e in enumerate(tile.dims) if d not in which)
    return b.tile("reduce", text, left, "largest")


def contract(b: Builder, values: list[Value], labels: list[Labels], target: Labels, hint: str) -> Value:
    """``einsum``: over each label that ``target`` lacks the product of the operands is summed."""
    values = [settled(b, v) for v in values]
    while len(values) > 2:
        rest = {x for text in (*labels[2:], target) for x in text}
        middle = tuple(dict.fromkeys(x for x in (*labels[0], *labels[1]) if x in rest))
        first = contract(b, values[:2], labels[:2], middle, "product")
        values, labels = [first, *values[2:]], [middle, *labels[2:]]
    if len(values) == 1:
        return _one(b, values[0], labels[0], target)
    return _two(b, values[0], labels[0], values[1], labels[1], target, hint)


def _one(b: Builder, value: Value, labels: Labels, target: Labels) -> Value:
    doubled = next((x for x in labels if labels.count(x) > 1), None)
    if doubled is not None:
        first, second = [d for d, x in enumerate(labels) if x == doubled][:2]
        tile = b.real(tile_of(b, value))
        rank = len(tile.dims)
        same = f"{b.index(tile.dims[first], first, rank)} == {b.index(tile.dims[second], second, rank)}"
        kept = b.tile("pointwise", f"tl.where({same}, {tile.name}, 0.0)", tile.dims, tile.name, zero=tile.zero)
        summed = total(b, b.clean(kept, (second,)), (second,))
        return _one(b, summed, (*labels[:second], *labels[second + 1 :]), target)
    gone = tuple(d for d, x in enumerate(labels) if x not in target)
    value = total(b, value, gone)
    left = tuple(x for x in labels if x in target)
    return permute(b, value, tuple(left.index(x) for x in target))


def _two(b: Builder, one: Value, la: Labels, two: Value, lb: Labels, target: Labels, hint: str) -> Value:
    if len(set(la)) < len(la):
        one, la = _one(b, one, la, tuple(dict.fromkeys(la))), tuple(dict.fromkeys(la))
    if len(set(lb)) < len(lb):
        two, lb = _one(b, two, lb, tuple(dict.fromkeys(lb))), tuple(dict.fromkeys(lb))
    size = {x: e for value, text in ((one, la), (two, lb)) for x, e in zip(text, value.dims, strict=True)}
    result = tuple(size[x] for x in target)
    if isinstance(one, Zero) or isinstance(two, Zero):
        return Zero(result)
    for value, labels, other, others in ((one, la, two, lb), (two, lb, one, la)):
        if isinstance(value, Parts):
            found = _by_parts(b, value, labels, other, others, target, hint)
            if found is not None:
                return found
    alone = tuple(d for d, x in enumerate(la) if x not in lb and x not in target)
    one, la = total(b, one, alone), tuple(x for x in la if x in lb or x in target)
    alone = tuple(d for d, x in enumerate(lb) if x not in la and x not in target)
    two, lb = total(b, two, alone), tuple(x for x in lb if x in la or x in target)
    contracted = tuple(x for x in la if x in lb and x not in target)
    a, c = b.real(tile_of(b, one)), b.real(tile_of(b, two))
    if any(size[x].split for x in contracted) and not b.walking:
        raise UnsupportedError("a product over columns that are divided among programs")
    if not contracted:
        return _outer(b, a, la, c, lb, target, result, hint)
    a, c = b.clean(a, [la.index(x) for x in contracted]), b.clean(c, [lb.index(x) for x in contracted])
    batch = tuple(x for x in target if x in la and x in lb)
    rows = tuple(x for x in target if x in la and x not in lb)
    columns = tuple(x for x in target if x in lb and x not in la)
    depth = _blocks(size[x] for x in contracted)
    if depth < LEAST or min(_blocks(size[x] for x in rows), _blocks(size[x] for x in columns)) == 1:
        return _summed(b, a, la, c, lb, target, contracted, size, hint)
    groups = batch, rows, columns, contracted
    return _product(b, a, la, c, lb, target, groups, size, hint)


def _by_parts(
    b: Builder, value: Parts, labels: Labels, other: Value, others: Labels, target: Labels, hint: str
) -> Value | None:
    """The contraction piece by piece, where the other operand can be had in such pieces."""
    label = labels[value.dim]
    sizes = tuple(p.dims[value.dim].size for p in value.pieces)
    if label in others:
        place = others.index(label)
        if isinstance(other, Parts) and other.dim == place and _sizes(other) == sizes:
            cut: tuple[Value, ...] = other.pieces
        elif all(s == 1 for s in sizes):
            cut = refined(b, other, place, sizes)
        else:
            return None
    else:
        cut = (other,) * len(sizes)
    found = [contract(b, [p, c], [labels, others], target, hint) for p, c in zip(value.pieces, cut, strict=True)]
    if label in target:
        return Parts(target.index(label), tuple(found))
    whole = found[0]
    for part in found[1:]:
        whole = pointwise(b, "add", [settled(b, whole), settled(b, part)], whole.dims, hint)
    return whole


def _sizes(value: Parts) -> tuple[object, ...]:
    return tuple(p.dims[value.dim].size for p in value.pieces)


def _blocks(extents: object) -> int:
    """The number of entries of a group of dims; a block of ticks counts as ``LEAST``."""
    product = 1
    for extent in extents:  # type: ignore[attr-defined]
        product *= int(extent.block) if extent.block.isdigit() else LEAST
    return product


def _outer(
    b: Builder, a: Tile, la: Labels, c: Tile, lb: Labels, target: Labels, dims: tuple[Extent, ...], hint: str
) -> Value:
    left = _placed(b, a, la, target)
    right = _placed(b, c, lb, target)
    return pointwise(b, "mul", [left, right], dims, hint)


def _placed(b: Builder, tile: Tile, labels: Labels, target: Labels) -> Value:
    wanted = tuple(x for x in target if x in labels)
    value = permute(b, tile, tuple(labels.index(x) for x in wanted))
    return aligned(value, tuple(target.index(x) for x in wanted), len(target))


def _summed(
    b: Builder,
    a: Tile,
    la: Labels,
    c: Tile,
    lb: Labels,
    target: Labels,
    contracted: Labels,
    size: dict[str, Extent],
    hint: str,
) -> Value:
    """For products that are too thin for the hardware: multiply, then sum, where the wider operand has its entries."""
    every = next((text for text in (la, lb) if {*text} == {*target, *contracted}), (*target, *contracted))
    product = _outer(b, a, la, c, lb, every, tuple(size[x] for x in every), "product")
    summed = total(b, product, tuple(d for d, x in enumerate(every) if x in contracted), hint)
    left = tuple(x for x in every if x not in contracted)
    return permute(b, summed, tuple(left.index(x) for x in target))


def _product(
    b: Builder,
    a: Tile,
    la: Labels,
    c: Tile,
    lb: Labels,
    target: Labels,
    groups: tuple[Labels, Labels, Labels, Labels],
    size: dict[str, Extent],
    hint: str,
) -> Value:
    batch, rows, columns, contracted = groups
    if _turned(b, groups, target, size):
        return _product(b, c, lb, a, la, target, (batch, columns, rows, contracted), size, hint)
    few = 0 < b.entries(size[x] for x in rows) < ROWS
    left = _matrix(b, a, la, (batch, rows, contracted), size, few)
    right = _matrix(b, c, lb, (batch, contracted, columns), size, few)
    out = (*batch, *rows, *columns)
    flat = _flat_dims((batch, rows, columns), size)
    text = f"tl.dot({left}, {right}, input_precision=PRECISION, out_dtype=REAL)"
    more = []
    if a.name in b.exact:
        more.append(f"{_matrix(b, a, la, (batch, rows, contracted), size, few, True)}, {right}")
    if c.name in b.exact:
        more.append(f"{left}, {_matrix(b, c, lb, (batch, contracted, columns), size, few, True)}")
    for operands in more:
        text = f"with_rest({b.define('dot', text, hint)}, {operands}, REAL, DOT, PRECISION)"
    dims = tuple(size[x] for x in out)
    zero = [n for n, x in enumerate(out) if (x in la and la.index(x) in a.zero) or (x in lb and lb.index(x) in c.zero)]
    if tuple(flat) == tuple(e.block for e in dims):
        found = b.tile("dot", text, dims, hint, zero=zero)
    else:
        name = b.define("dot", text, hint)
        found = b.tile("view", f"tl.reshape({name}, {shape(dims)})", dims, hint, zero=zero)
    return permute(b, found, tuple(out.index(x) for x in target))


def _turned(b: Builder, groups: tuple[Labels, Labels, Labels, Labels], target: Labels, size: dict[str, Extent]) -> bool:
    """Whether the second operand is better to stand first. The hardware divides the rows of a result among warps, 16 to
    each or more: with fewer rows than columns every warp would have to hold the other operand as a whole. Else the
    order is the one that leaves the result as it is wanted."""
    batch, rows, columns, _ = groups
    high, wide = (b.entries(size[x] for x in group) for group in (rows, columns))
    if high and wide and high != wide and min(high, wide) < ROWS:
        return wide > high
    return target == (*batch, *columns, *rows) and target != (*batch, *rows, *columns)


def _flat_dims(groups: tuple[Labels, ...], size: dict[str, Extent]) -> list[str]:
    first, *rest = groups
    flat = [_joined_block(first, size)] if first else []
    return flat + [_joined_block(g, size) for g in rest]


def _joined_block(labels: Labels, size: dict[str, Extent]) -> str:
    blocks = [size[x].block for x in labels]
    return " * ".join(blocks) if blocks else "1"


def _matrix(
    b: Builder,
    tile: Tile,
    labels: Labels,
    groups: tuple[Labels, Labels, Labels],
    size: dict[str, Extent],
    few: bool,
    rest: bool = False,
) -> str:
    """The operand as a matrix, or as a batch of them, in the type of products, for a result with ``few`` rows.
    ``rest``: what the rounding leaves of it instead."""
    order = tuple(x for g in groups for x in g)
    batch, rows, columns = groups
    simple = not batch and len(rows) == 1 and len(columns) == 1
    if simple and order != labels:
        return f"tl.trans({_low(b, tile.name, b.entries(tile.dims), few, rest)})"
    moved = permute(b, tile, tuple(labels.index(x) for x in order))
    assert isinstance(moved, Tile)
    flat = _flat_dims((batch, rows, columns), size)
    name = moved.name
    if flat != [size[x].block for x in order]:
        name = b.define("view", f"tl.reshape({name}, ({', '.join(flat)}))", name)
    return _low(b, name, b.entries(tile.dims), few, rest)


def _low(b: Builder, name: str, entries: int, few: bool, rest: bool = False) -> str:
    """A tile in the type of products. Where they read their operands from registers, as they may everywhere and do
    where a result has ``few`` rows, the compiler would move what is loaded there as it is, and do all that is made of
    it entry by entry in every warp: up to eight times the work and the registers."""
    if rest:
        return b.define("view", f"rest({name}, DOT)", f"{name}_rest")
    here = (few or b.from_registers or entries >= LARGE) and name not in b.low
    text = f"rounded({name}, DOT)" if here else f"{name}.to(DOT)"
    return b.define("view", text, f"{name}_low")
