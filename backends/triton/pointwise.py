"""Pointwise operations on tiles: what each is in Triton, and what it does to zeros in the padding."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from nldsl.backends.triton.builder import Builder, bare, brackets, wide
from nldsl.backends.triton.tiles import ONE, Extent, Moved, Parts, Tile, UnsupportedError, Value, Zero
from nldsl.backends.triton.views import refined, tile_of
from nldsl.ir.ops import COMPARISONS

UNARY = {
    "neg": "-{0}",
    "exp": "tl.exp({0})",
    "log": "tl.log({0})",
    "log1p": "log1p({0})",
    "expm1": "expm1({0})",
    "sqrt": "tl.sqrt({0})",
    "rsqrt": "tl.rsqrt({0})",
    "abs": "tl.abs({0})",
    "sign": "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, 0.0)).to(REAL)",  # numbers alone are float32
    "sin": "tl.sin({0})",
    "cos": "tl.cos({0})",
    "tanh": "tanh({0})",
    "arctan": "arctan({0})",
    "sigmoid": "1.0 / (1.0 + tl.exp(-{0}))",
    "softplus": "softplus({0})",
    "relu": "tl.maximum({0}, 0.0, propagate_nan=tl.PropagateNan.ALL)",
    "erf": "tl.erf({0})",
    "floor": "tl.floor({0})",
    "to_real": "{0}",
}
BINARY = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "maximum": "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "minimum": "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "mod": "modulo({0}, {1})",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
}
KEEPS_ZERO = frozenset("neg expm1 log1p sqrt abs sign sin tanh arctan relu floor erf to_real".split())
LOGICAL = frozenset({"logical_and", "logical_or", "logical_not"})


def aligned(value: Value, positions: tuple[int, ...], rank: int) -> Value:
    """The value with dims of size 1 put in: its own are at ``positions`` of ``rank``."""
    if len(positions) == rank:
        return value
    dims = [ONE] * rank
    for place, extent in zip(positions, value.dims, strict=True):
        dims[place] = extent
    if isinstance(value, Tile):
        zero = frozenset(positions[d] for d in value.zero)
        name = value.name if not positions else _term(value.name) + brackets(positions, rank)
        if not positions:
            return value  # a scalar stretches by itself
        return Tile(name, tuple(dims), value.kind, zero)
    if isinstance(value, Zero):
        return Zero(tuple(dims))
    if isinstance(value, Parts):
        return Parts(positions[value.dim], tuple(aligned(p, positions, rank) for p in value.pieces))
    raise UnsupportedError("a moved tile is aligned after it has its entries")


def _term(text: str) -> str:
    return text if text.isidentifier() else f"({text})"


def settled(b: Builder, value: Value) -> Value:
    """The same without ``Moved``."""
    if isinstance(value, Moved):
        return tile_of(b, value)
    if isinstance(value, Parts):
        return Parts(value.dim, tuple(settled(b, p) for p in value.pieces))
    return value


def pointwise(b: Builder, op: str, values: list[Value], dims: tuple[Extent, ...], hint: str) -> Value:
    """``op`` of operands that are aligned with ``dims`` (or scalars)."""
    whole = [v for v in values if isinstance(v, Parts)]
    if whole:
        dim = whole[0].dim
        sizes = tuple(p.dims[dim].size for p in whole[0].pieces)
        if all(_divides(v, dim, sizes) for v in values):
            pieces = []
            cut = [_cut(b, v, dim, sizes) for v in values]
            for n, size in enumerate(sizes):
                own = (*dims[:dim], Extent(size), *dims[dim + 1 :])
                pieces.append(pointwise(b, op, [c[n] for c in cut], own, hint))
            return Parts(dim, tuple(pieces))
    if any(isinstance(v, Zero) for v in values):
        simple = _with_zero(b, op, values, dims)
        if simple is not None:
            return simple
    tiles = [tile_of(b, v) for v in values]
    return _without_ones(b, op, tiles, dims, hint) or _pointwise(b, op, tiles, dims, hint)


def _without_ones(b: Builder, op: str, tiles: list[Tile], dims: tuple[Extent, ...], hint: str) -> Tile | None:
    """The same where all operands have dims of one entry only put in: these are put into the result instead."""
    places = wide(dims)
    if not places or len(places) == len(dims):
        return None
    inner = []
    for tile in tiles:
        name = bare(tile) if tile.dims else tile.name
        if name is None or (tile.dims and wide(tile.dims) != places):
            return None
        own = tuple(tile.dims[d] for d in places) if tile.dims else ()
        inner.append(Tile(name, own, tile.kind, frozenset(n for n, d in enumerate(places) if d in tile.zero)))
    if not any(t.dims for t in inner):
        return None
    found = _pointwise(b, op, inner, tuple(dims[d] for d in places), hint)
    if not found.name.isidentifier():
        return None
    zero = frozenset(places[n] for n in found.zero)
    return Tile(found.name + brackets(places, len(dims)), dims, found.kind, zero)


def _divides(value: Value, dim: int, sizes: tuple[object, ...]) -> bool:
    if not value.dims or value.dims[dim].size == 1 or isinstance(value, Zero):
        return True
    if isinstance(value, Parts) and value.dim == dim:
        return tuple(p.dims[dim].size for p in value.pieces) == sizes
    if isinstance(value, Parts):
        return all(_divides(p, dim, sizes) for p in value.pieces)
    return all(s == 1 for s in sizes)


def _cut(b: Builder, value: Value, dim: int, sizes: tuple[object, ...]) -> list[Value]:
    if not value.dims or value.dims[dim].size == 1:
        return [value] * len(sizes)
    if isinstance(value, Parts) and value.dim == dim:
        return list(value.pieces)
    return list(refined(b, value, dim, sizes))  # type: ignore[arg-type]


def _with_zero(b: Builder, op: str, values: list[Value], dims: tuple[Extent, ...]) -> Value | None:
    zero = [isinstance(v, Zero) for v in values]
    if op == "mul" or (op in KEEPS_ZERO and all(zero)) or (op in ("add", "sub") and all(zero)):
        return Zero(dims)
    if op == "add" or (op == "sub" and zero[1]):
        other = values[1 if zero[0] else 0]
        same = tuple(e.size for e in other.dims) == tuple(e.size for e in dims)
        return other if same else b.broadcast(b.real(tile_of(b, other)), dims)
    if op == "sub":
        return pointwise(b, "neg", values[1:], dims, "x")
    return None


def _pointwise(b: Builder, op: str, tiles: list[Tile], dims: tuple[Extent, ...], hint: str) -> Tile:
    kind = "bool" if op in COMPARISONS else "real"
    if op == "where":
        condition = _bool(tiles[0])
        tiles = tiles[1:]
        if all(t.kind == "int" for t in tiles):
            kind = "int"
        else:
            tiles = [b.real(t) for t in tiles]
            if all(_number(t.name) for t in tiles):  # a choice of two numbers is float32 otherwise
                tiles[0] = replace(tiles[0], name=f"tl.full((), {tiles[0].name}, REAL)")
        text = f"tl.where({condition}, {tiles[0].name}, {tiles[1].name})"
    elif op == "logical_not":
        text = f"{_bool(tiles[0])} == 0"
    elif op in LOGICAL:
        text = BINARY[op].format(*(f"({_bool(t)})" for t in tiles))
    else:
        if all(t.kind == "int" for t in tiles) and op in (
            "add",
            "sub",
            "mul",
            "neg",
            "maximum",
            "minimum",
            "mod",
            "abs",
        ):
            kind = "int"
        elif op not in COMPARISONS or any(t.kind != "int" for t in tiles):
            tiles = [b.real(t) for t in tiles]
        text = _text(op, tiles, kind)
    zero = _zeros(op, tiles, dims)
    if text == tiles[0].name and tiles[0].dims == dims:
        return tiles[0]
    if not any(t.dims for t in tiles) and dims:
        return b.broadcast(b.tile("pointwise", text, (), hint, kind), dims)
    result = tuple(_widest(tiles, d, dims) for d in range(len(dims)))
    if op == "where":
        result = dims
    found = b.tile("pointwise", text, result, hint, kind, zero)
    return found if result == dims else b.broadcast(replace(found), dims)


def _widest(tiles: list[Tile], d: int, dims: tuple[Extent, ...]) -> Extent:
    return dims[d] if any(t.dims and t.dims[d].size != 1 for t in tiles) else ONE


def _text(op: str, tiles: list[Tile], kind: str) -> str:
    names = [_term(t.name) if not _plain(t.name) else t.name for t in tiles]
    if op == "pow":
        return _power(names[0], names[1])
    if kind == "int" and op == "mod":
        return f"(({names[0]} % {names[1]}) + {names[1]}) % {names[1]}"
    if kind == "int" and op in ("maximum", "minimum"):
        return f"tl.{op}({names[0]}, {names[1]})"
    table = UNARY if op in UNARY else BINARY
    if op not in table:
        raise UnsupportedError(f"`{op}` has no form in a kernel")
    return table[op].format(*names)


def _plain(text: str) -> bool:
    """Whether a text needs no brackets around it."""
    return text.replace(".", "").replace("_", "").isalnum() or (text.endswith("]") and " " not in text.split("[")[0])


def _number(text: str) -> bool:
    return not text.isidentifier() and re.fullmatch(r"[-+.\w()']+", text) is not None


def _power(base: str, exponent: str) -> str:
    try:
        number = float(exponent.strip("()"))
    except ValueError:
        return _power_of(base, exponent) if _number(base) else f"power({base}, {exponent})"
    if number == 0.5:
        return f"tl.sqrt({base})"
    if number == -0.5:
        return f"tl.rsqrt({base})"
    if number == int(number) and 1 <= abs(number) <= 4:
        product = " * ".join([base] * int(abs(number)))
        return product if number > 0 else f"1.0 / ({product})"
    return f"power({base}, tl.full((), {exponent}, REAL))"  # a function takes a bare number for single precision


def _power_of(base: str, exponent: str) -> str:
    """The power of a number."""
    number = float(base.strip("()"))
    if number > 0:
        return f"tl.exp({exponent} * {math.log(number)!r})"
    return f"power(tl.zeros_like({exponent}) + {base}, {exponent})"


def _bool(tile: Tile) -> str:
    return tile.name if tile.kind == "bool" else f"({tile.name} != 0)"


def _zeros(op: str, tiles: list[Tile], dims: tuple[Extent, ...]) -> frozenset[int]:
    """Where the padding of the result is 0. A product of 0 and garbage may be anything, so it counts only where the
    other factor has no padding of its own there."""
    found = set()
    for d in range(len(dims)):
        if not dims[d].padded:
            continue
        wide = [t for t in tiles if t.dims and t.dims[d].size != 1]
        clean = [t for t in wide if t.clean(d)]
        if op in KEEPS_ZERO or op in ("add", "sub", "maximum", "minimum", "where"):
            good = len(clean) == len(tiles)
        elif op == "mul":
            good = bool(clean) and len(clean) == len(wide)
        elif op == "div":
            good = wide == [tiles[0]] and len(clean) == 1
        else:
            good = False
        if good:
            found.add(d)
    return frozenset(found)
