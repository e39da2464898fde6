"""Where tensors lie for a program that takes one lane of one sequence and counts its ticks itself.

The rows of a batch lie one after the other, as packed sequences do: ``first`` is where the sequence begins, ``t``
counts its ticks. A stream without a batch is the same for all rows, or lies as packed sequences do (PACKED is 1). A
workspace has a tile with its padding for each number of a ``place`` (a lane and a block of ticks).
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.backends.triton.builder import Builder, brackets
from nldsl.backends.triton.job import Source
from nldsl.backends.triton.memory import pointer
from nldsl.backends.triton.tiles import Extent, Tile, UnsupportedError
from nldsl.ir.types import BATCH, TIME

BLOCK = "row * N + n"  # a block of ticks of a lane
BEFORE = "row * EVERY + j"  # a tick of a block
LANE = "row"


@dataclass(frozen=True)
class Lanes:
    """The names of the indices of the mapped axes that a program has one entry of, and the sizes of the others as code.
    Without a batch all ticks are those of one sequence."""

    index: dict[str, str]
    size: dict[str, str]

    def has(self, axis: str) -> bool:
        """Whether a tile has no dim for this axis."""
        return axis in self.index or axis == TIME

    def place(self, axis: str, axes: tuple[str, ...]) -> str:
        """Where the program is along an axis of a tensor."""
        if axis == BATCH and axis in self.index:
            return "" if TIME in axes else self.index[axis]
        if axis == TIME:
            if BATCH not in self.index:
                return "t"
            return "(first + t)" if BATCH in axes else "(first * PACKED + t)"
        return self.index.get(axis, "")


def address(b: Builder, lanes: Lanes, source: Source, dims: tuple[Extent, ...]) -> str:
    """The addresses of a tile of a tensor: its axes that are no lanes, then its logical dims."""
    axes, inner = source.type.axes, 1
    for size in source.type.shape:
        if not isinstance(size, int):
            raise UnsupportedError(f"the size {size} is not known")
        inner *= size
    start, strides, stride = "", list[int](), inner
    for axis in reversed(axes):
        strides.append(stride)
        if axis not in (BATCH, TIME):
            stride *= int(lanes.size[axis])
    strides.reverse()
    for number, axis in enumerate(axes):
        if axis == TIME and any(a != BATCH for a in axes[:number]):
            raise UnsupportedError("time is not the first axis after batch")
        place = lanes.place(axis, axes)
        start = f"{_term(start)} * {lanes.size[axis]}" + (f" + {place}" if place else "") if start else place
    if start and inner != 1:
        start = f"{_term(start)} * {inner}"
    base = (
        b.define("index", f"{pointer(source.name)} + {start}", f"{source.name}_at") if start else pointer(source.name)
    )
    steps = [strides[axes.index(axis)] for axis in axes if not lanes.has(axis)]
    rest = inner
    for size in source.type.shape:
        assert isinstance(size, int)
        rest //= max(size, 1)
        steps.append(rest)
    return base + _offsets(b, dims, [str(step) for step in steps])


def load(b: Builder, lanes: Lanes, source: Source, dims: tuple[Extent, ...]) -> Tile:
    """A tile of a tensor, with 0 for padding, in the type of computations."""
    where, mask = address(b, lanes, source, dims), b.mask(dims, range(len(dims)))
    given = where + (f", mask={mask}, other=0" if mask else "")
    kind = source.type.kind
    name = b.define("load", f"tl.load({given}).to({'tl.int32' if kind == 'int' else 'REAL'})", source.name)
    return Tile(name, dims, kind, frozenset(range(len(dims))))


def store(b: Builder, lanes: Lanes, source: Source, tile: Tile) -> None:
    """Write a tile of a tensor; padding is left out."""
    where, mask = address(b, lanes, source, tile.dims), b.mask(tile.dims, range(len(tile.dims)))
    _store(b, where, b.real(tile).name, source.name, mask)


def keep(b: Builder, name: str, tile: Tile, place: str) -> None:
    """Put a tile into a workspace; one number is a scalar."""
    _store(b, _slot(b, name, tile.dims, place), b.real(tile).name, name, "")


def fetch(b: Builder, name: str, dims: tuple[Extent, ...], place: str) -> Tile:
    """A tile from a workspace, whose padding is 0."""
    one = all(e.size == 1 for e in dims)
    found = b.define("load", f"tl.load({_slot(b, name, () if one else dims, place)}).to(REAL)", name)
    return Tile(found) if one else Tile(found, dims, "real", frozenset(range(len(dims))))


def _slot(b: Builder, name: str, dims: tuple[Extent, ...], place: str) -> str:
    blocks = [e.whole for e in dims]
    size = " * ".join(x for x in blocks if x != "1") or "1"
    at = f"{pointer(name)} + {_term(place)}"
    base = b.define("index", at if size == "1" else f"{at} * {_term(size)}", f"{name}_at")
    return base + _offsets(
        b, dims, [" * ".join(x for x in blocks[d + 1 :] if x != "1") or "1" for d in range(len(dims))]
    )


def _store(b: Builder, where: str, text: str, name: str, mask: str) -> None:
    typed = f"{_term(text)}.to({pointer(name)}.dtype.element_ty)"
    b.effect("store", f"tl.store({where}, {typed}{', mask=' + mask if mask else ''})")


def _offsets(b: Builder, dims: tuple[Extent, ...], steps: list[str]) -> str:
    text = ""
    for d, (extent, step) in enumerate(zip(dims, steps, strict=True)):
        one = "tl.arange(0, 1)" + brackets((d,), len(dims))
        index = one if extent.size == 1 else b.index(extent, d, len(dims))
        text += f" + {index}" + ("" if step == "1" else f" * {_term(step)}")
    return text


def _term(text: str) -> str:
    return text if " " not in text or (text[0] == "(" and text.find(")") == len(text) - 1) else f"({text})"
