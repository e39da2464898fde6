"""What a kernel computes with: tiles, and values that are not tiles yet.

A *tile* is a Triton tensor in registers. Its dims are the mapped axes that are not lanes of the launch, then the
logical dims. Triton wants powers of two, so each dim has an ``Extent`` (how many entries count) and a block (how many
there are); what is behind the extent is padding. ``zero`` says in which dims the padding is known to be 0.

``Parts`` (a concatenation) and ``Moved`` (a slice, a shift, a padding) stay what they are as long as possible: most are
taken apart again, and cost nothing then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nldsl.dims import Dim, Poly
from nldsl.ir.chunk import TICKS


class UnsupportedError(Exception):
    """This loop has no kernel; the message says why, in the words of a report."""


@dataclass(frozen=True)
class Extent:
    """The size of a dim, a number or a polynomial of the ticks of the segment. A ``split`` dim is divided into columns:
    the tile has those from ``COLUMN`` on, another program or another round of a loop has the rest. ``even``: the tiles
    of columns end where the columns do. ``part``: they are divided among programs, in a kernel in which a loop goes
    through the columns of another dim: the tile has those from ``PART`` on."""

    size: Dim
    split: bool = False
    even: bool = False
    part: bool = False

    @property
    def text(self) -> str:
        return dim_text(self.size)

    @property
    def block(self) -> str:
        if self.split:
            return "BP" if self.part else "BV"
        return block_text(self.size)

    @property
    def whole(self) -> str:
        """The block of the dim where it is not split: how it lies in a workspace."""
        return block_text(self.size)

    @property
    def padded(self) -> bool:
        """Whether there can be padding."""
        if self.split:
            return not self.even
        return not isinstance(self.size, int) or power_of_two(self.size) != self.size

    @property
    def index(self) -> str:
        """The name of the indices of the entries."""
        if self.split:
            return "i_p" if self.part else "i_v"
        return "i_" + self.block.replace(" * ", "x").replace("BT", "T")


COLUMN, PART = "column", "part"
ONE = Extent(1)


def column_extent(size: Dim, columns: int, part: bool = False) -> Extent:
    """A dim of which a tile has ``columns`` columns. There are programs for the padding of workspaces too, so that only
    a power of two is divided evenly."""
    assert isinstance(size, int)
    return Extent(size, True, power_of_two(size) == size and size % min(columns, size) == 0, part)


@dataclass(frozen=True)
class Tile:
    """``kind``: real, int or bool. A tile without dims is a scalar."""

    name: str
    dims: tuple[Extent, ...] = ()
    kind: str = "real"
    zero: frozenset[int] = frozenset()

    def clean(self, dim: int) -> bool:
        return dim in self.zero or not self.dims[dim].padded

    @property
    def known_zero(self) -> frozenset[int]:
        """The dims whose padding is 0, or that have none."""
        return frozenset(d for d in range(len(self.dims)) if self.clean(d))


@dataclass(frozen=True)
class Zero:
    """Zeros of this shape."""

    dims: tuple[Extent, ...]


@dataclass(frozen=True)
class Parts:
    """Values side by side along a dim."""

    dim: int
    pieces: tuple[Value, ...]

    @property
    def dims(self) -> tuple[Extent, ...]:
        total: Dim = 0
        for piece in self.pieces:
            total = total + piece.dims[self.dim].size
        first = self.pieces[0].dims
        return (*first[: self.dim], Extent(total), *first[self.dim + 1 :])


@dataclass(frozen=True)
class Moved:
    """Along ``dim``, entry i is entry ``i + offset`` of ``tile`` where ``low <= i < high``, and 0 elsewhere."""

    tile: Tile
    dim: int
    offset: Dim
    low: Dim
    high: Dim
    size: Dim

    @property
    def dims(self) -> tuple[Extent, ...]:
        own = self.tile.dims
        return (*own[: self.dim], Extent(self.size), *own[self.dim + 1 :])


Value = Tile | Zero | Parts | Moved


def power_of_two(size: int) -> int:
    """The least power of two that is not smaller."""
    return 1 << max(0, size - 1).bit_length()


def dim_text(size: Dim) -> str:
    """A size as Triton code; ``T`` is the number of ticks of the segment."""
    if isinstance(size, int):
        return str(size)
    text = ""
    for monomial, coefficient in size.terms:
        factors = [name for name, power in monomial for _ in range(power)]
        if any(name != "ticks" for name in factors) or not isinstance(coefficient, int):
            raise UnsupportedError(f"the size {size} is not known")
        number = abs(coefficient)
        words = ([str(number)] if number != 1 or not factors else []) + ["T"] * len(factors)
        sign = ("-" if coefficient < 0 else "") if not text else (" - " if coefficient < 0 else " + ")
        text += sign + " * ".join(words)
    return text


def block_text(size: Dim) -> str:
    """The power of two that holds a size, as code; ``BT`` is the one that holds ``T``, ``BT_n`` that of ``T + n``."""
    if isinstance(size, int):
        return str(power_of_two(size))
    more = beyond(size)
    if more:
        return f"BT_{more}"
    factor, power = leading(size)
    return " * ".join(([str(factor)] if factor > 1 else []) + ["BT"] * power)


def block_size(size: Dim, ticks: int) -> int:
    """The same as a number, for segments of at most ``ticks`` ticks."""
    if isinstance(size, int):
        return power_of_two(size)
    more = beyond(size)
    if more:
        return power_of_two(ticks + more)
    factor, power = leading(size)
    return factor * int(ticks**power)


def beyond(size: Dim) -> int:
    """n for ``ticks + n``, 0 for other sizes."""
    more = size - TICKS
    return more if isinstance(more, int) and more > 0 else 0


def more_blocks(text: str, ticks: int) -> dict[str, int]:
    """The blocks ``BT_n`` that occur in a text, for segments whose ticks take ``ticks`` entries of a tile."""
    found = sorted({int(n) for n in re.findall(r"\bBT_(\d+)\b", text)})
    return {f"BT_{n}": power_of_two(ticks + n) for n in found}


def leading(size: Poly) -> tuple[int, int]:
    """``(factor, power)``: ``factor * ticks ** power`` is not smaller than the size."""
    most = max(sum(power for _, power in monomial) for monomial, _ in size.terms)
    total = 0
    for monomial, coefficient in size.terms:
        if any(name != "ticks" or power < 0 for name, power in monomial) or not isinstance(coefficient, int):
            raise UnsupportedError(f"the size {size} is not known")
        degree = sum(power for _, power in monomial)
        if degree == most or coefficient > 0:
            total += coefficient
    return power_of_two(max(1, total)), most
