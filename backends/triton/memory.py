"""Where tensors lie: addresses of tiles in the tensors of a call, and in workspaces between kernels.

A workspace has, for each lane and segment, a tile with its padding, so that nothing is masked.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.backends.triton.builder import Builder, bare, brackets, shape, wide
from nldsl.backends.triton.job import Source
from nldsl.backends.triton.tiles import Extent, Tile, UnsupportedError
from nldsl.ir.types import BATCH, TIME


@dataclass(frozen=True)
class Lanes:
    """The names of the indices of the lanes of a program, and the sizes of all axes as code. ``count``: how many lanes
    a sequence has. A program of ``step`` knows its sequence, one of another stage its segment ``n``."""

    index: dict[str, str]
    size: dict[str, str]
    count: int
    step: bool


def since(b: Builder) -> str:
    """The ticks of the sequence before the segment ``n``, in this call."""
    return b.define("load", "tl.load(since_ptr + n)", "since")


def _shared(b: Builder) -> str:
    """Where the segment ``n`` begins in a stream without batch."""
    return b.define("load", "tl.load(shared_ptr + n)", "shared")


def _sequence(b: Builder, lanes: Lanes) -> str:
    return "sequence" if lanes.step else b.define("load", "tl.load(owner_ptr + n)", "owner")


def _place(b: Builder, lanes: Lanes, axis: str, axes: tuple[str, ...]) -> str:
    """Where a program is along an axis. Sequences lie one after the other: ``first`` counts the ticks of all."""
    if axis == BATCH and axis in lanes.index:
        return "" if TIME in axes else _sequence(b, lanes)
    if axis == TIME:
        return _shared(b) if BATCH in lanes.index and BATCH not in axes else "first"
    return lanes.index.get(axis, "")


def pointer(source: str) -> str:
    """The name of the pointer to a tensor."""
    return f"{source}_ptr"


def address(b: Builder, lanes: Lanes, source: Source, dims: tuple[Extent, ...]) -> str:
    """The addresses of a tile of a tensor: its axes that are no lanes, then its logical dims."""
    axes, shape = source.type.axes, source.type.shape
    inner = 1
    for size in shape:
        if not isinstance(size, int):
            raise UnsupportedError(f"the size {size} is not known")
        inner *= size
    start, strides = "", []
    stride: list[str] = [str(inner)]
    for axis in reversed(axes):
        strides.append(" * ".join(s for s in stride if s != "1") or "1")
        stride.append("1" if axis in (BATCH, TIME) else lanes.size[axis])
    strides.reverse()
    for axis in axes:
        place = _place(b, lanes, axis, axes)
        if not start or start == "0":
            start = place or "0"
        elif axis == TIME:
            raise UnsupportedError("time is not the first axis after batch")
        else:
            start = f"({start}) * {lanes.size[axis]}" if " " in start else f"{start} * {lanes.size[axis]}"
            start += f" + {place}" if place and place != "0" else ""
    if start and inner != 1:
        start = f"({start}) * {inner}" if " " in start else f"{start} * {inner}"
    text = pointer(source.name) + (f" + {start}" if start and start != "0" else "")
    base = b.define("index", text, f"{source.name}_at") if text != pointer(source.name) else text
    tiled = [axis for axis in axes if axis not in lanes.index]
    steps = [strides[axes.index(axis)] for axis in tiled]
    rest = inner
    for size in shape:
        assert isinstance(size, int)
        rest //= max(size, 1)
        steps.append(str(rest))
    return base + _offsets(b, dims, steps)


def _offsets(b: Builder, dims: tuple[Extent, ...], steps: list[str]) -> str:
    """What to add to an address for each entry of a tile: in int32, which tiles of other tensors share. Dims of one
    entry are left out, but for a tile that has no others."""
    parts, places = [], wide(dims)
    for n, d in enumerate(places):
        index, step = b.index(dims[d], n, len(places)), steps[d]
        parts.append(index + ("" if step == "1" else f" * {step}" if " " not in step else f" * ({step})"))
    if not parts:
        return " + tl.arange(0, 1)" + brackets((0,), len(dims)) if dims else ""
    return f" + {parts[0]}" if len(parts) == 1 else f" + ({' + '.join(parts)})"


def load(b: Builder, lanes: Lanes, source: Source, dims: tuple[Extent, ...]) -> Tile:
    """A tile of a tensor, with 0 for padding, in the type of computations."""
    where = address(b, lanes, source, dims)
    mask = _mask(b, dims)
    arguments = where + (f", mask={mask}, other=0" if mask else "")
    kind = source.type.kind
    name = b.define("load", f"tl.load({arguments}).to({'tl.int32' if kind == 'int' else 'REAL'})", source.name)
    b.low |= {name} if TIME in source.type.axes and source.type.shape and not source.wide else set()
    return Tile(name + _ones(dims), dims, kind, frozenset(range(len(dims))))


def _ones(dims: tuple[Extent, ...]) -> str:
    """What puts the dims of one entry, which memory does not have, into a tile."""
    return brackets(wide(dims) or tuple(range(len(dims))), len(dims))


def _mask(b: Builder, dims: tuple[Extent, ...]) -> str:
    """What is not padding of a tile as it lies in memory."""
    own = tuple(dims[d] for d in wide(dims))
    return b.mask(own, range(len(own)))


def _flat(tile: Tile) -> str:
    """A tile as it lies in memory."""
    places = wide(tile.dims)
    if len(places) in (0, len(tile.dims)):
        return tile.name
    return bare(tile) or f"tl.reshape({tile.name}, {shape(tuple(tile.dims[d] for d in places))})"


def store(b: Builder, lanes: Lanes, source: Source, tile: Tile) -> None:
    """Write a tile of a tensor; padding is left out."""
    where = address(b, lanes, source, tile.dims)
    _store(b, where, _flat(b.real(tile)), _mask(b, tile.dims))


def _store(b: Builder, where: str, text: str, mask: str) -> None:
    b.effect("store", f"tl.store({where}, {text}{', mask=' + mask if mask else ''})")


def slot(name: str, lanes: Lanes, dims: tuple[Extent, ...], b: Builder, segment: str = "n", parts: int = 0) -> str:
    """The addresses of a tile in a workspace; of the one of this program, where there are ``parts`` for a segment."""
    own = segment if lanes.count == 1 else f"({segment} * {lanes.count} + lane)"
    if parts:
        own = f"({own} * {parts} + tl.program_id(1))"
    blocks = [e.whole for e in dims]
    size = " * ".join(x for x in blocks if x != "1") or "1"
    if size == "1":
        return f"{pointer(name)} + {own}"
    base = b.define("index", f"{pointer(name)} + {own} * {'(' + size + ')' if ' ' in size else size}", f"{name}_at")
    steps = [" * ".join(x for x in blocks[d + 1 :] if x != "1") or "1" for d in range(len(blocks))]
    return base + _offsets(b, dims, steps)


def keep(b: Builder, lanes: Lanes, name: str, tile: Tile, segment: str = "n", parts: int = 0) -> None:
    """Put a tile into a workspace."""
    if all(e.size == 1 for e in tile.dims) and tile.dims:
        raise AssertionError("one number is kept as a scalar")
    _store(b, slot(name, lanes, tile.dims, b, segment, parts), _flat(b.real(tile)), "")


def fetch(
    b: Builder, lanes: Lanes, name: str, dims: tuple[Extent, ...], zero: frozenset[int], narrow: bool = False
) -> Tile:
    """A tile from a workspace. ``narrow``: it lies there in the type of products."""
    found = b.define("load", f"tl.load({slot(name, lanes, dims, b)}).to(REAL)", name.removesuffix("_kept"))
    b.low |= {found} if narrow else set()
    if all(e.size == 1 for e in dims):
        return Tile(found)
    return Tile(found + _ones(dims), dims, "real", zero)


def fetch_sum(b: Builder, lanes: Lanes, name: str, dims: tuple[Extent, ...], parts: int) -> Tile:
    """The sum of the parts of a tile that so many programs have left."""
    dims = () if all(e.size == 1 for e in dims) else dims
    hint = name.removesuffix("_kept")
    every = b.define("load", f"tl.load({slot(name, lanes, (Extent(parts), *dims), b)}).to(REAL)", hint)
    total = b.define("reduce", f"tl.sum({every}, 0)", hint)
    return Tile(total + _ones(dims), dims)
