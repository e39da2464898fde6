"""Writes a kernel as a list of operations on tiles: each defines a name, and is found again if asked for twice."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from nldsl.backends.triton.library_text import functions
from nldsl.backends.triton.ops import Block, Op
from nldsl.backends.triton.printer import lines
from nldsl.backends.triton.tiles import COLUMN, PART, Extent, Tile, UnsupportedError, Zero, beyond, block_size

RESERVED = frozenset(
    "and as assert async await break class continue def del elif else except finally for from global if import in is "
    "lambda nonlocal not or pass raise return try while with yield None True False tl triton T BT BV BP REAL DOT "
    "PRECISION SOLVE LOG_BT first n t range float int tick since owner".split()
)
LARGEST = 1 << 18  # entries of a tile; Triton allows 2**20
LARGEST_WINDOW, MOST_TICKS = 1 << 14, 64  # ticks by ticks that windows see; twice as many spill 16 KiB a thread


class Builder:
    """Writes the operations of one kernel."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.top = self.block = Block()
        self.taken: set[str] = set(RESERVED) | set(functions("library")) | set(names)
        self.note = ""  # the line of the program of which the next operations are a part
        self.walking = False  # whether the columns are a loop's, which sums over them
        self.from_registers = False  # whether products read their operands from registers
        self.low: set[str] = set()  # the loads of what lies in memory in the type of products
        self.numbers: dict[str, Tile] = {}  # the numbers that tiles are made of
        self.exact: set[str] = set()  # the tiles that products take with all of their digits
        self.blocks: dict[str, int] = {}  # what is known of the blocks that have names: of ticks, of columns

    # -- names and operations

    def new_name(self, hint: str) -> str:
        base = re.sub(r"\W", "_", hint.partition("[")[0])[:40].strip("_") or "x"
        base = base if base[0].isalpha() and base.isascii() else "x" + re.sub(r"[^A-Za-z0-9_]", "", base)
        name, count, base = base, 1, re.sub(r"(_\d+)+$", "", base)  # one number behind a name is enough
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name

    def define(self, kind: str, text: str, hint: str = "x", top: bool = False) -> str:
        """The name of what ``text`` computes; the same name for the same text."""
        block = self.top if top else self.block
        found = block.find(text)
        if found:
            return found
        name = self.new_name(hint)
        block.ops.append(Op(kind, text, name, note="" if kind in ("index", "load") else self.note))
        block.known[text] = name
        return name

    def vary(self, name: str) -> bool:
        """Make the last operation a variable of the loop that follows, if it is the one of this name."""
        op = self.block.ops[-1] if self.block.ops else None
        if op is None or op.target != name:
            return False
        op.keep = True
        self.block.known = {text: known for text, known in self.block.known.items() if known != name}
        return True

    def add_up(self, target: str, part: str) -> None:
        """Add a part to a variable of a loop: where it is computed, unless something else needs the part."""
        ops = self.block.ops
        at = next((n for n, op in enumerate(ops) if op.target == part and not op.keep), None)
        alone = at is not None and not any(part in op.uses() for op in self.block.walk())
        if at is not None and alone and ops[at].kind in ("dot", "reduce"):
            ops[at] = Op(ops[at].kind, f"{target} + {ops[at].text}", target, keep=True, note=ops[at].note)
        else:
            self.effect("pointwise", f"{target} + {part}", target)

    def effect(self, kind: str, text: str, target: str = "") -> None:
        """An operation that is done in any case: a store, or an assignment to a variable of the loop."""
        self.block.ops.append(Op(kind, text, target, keep=True))

    def tile(
        self,
        kind: str,
        text: str,
        dims: tuple[Extent, ...],
        hint: str = "x",
        real: str = "real",
        zero: Iterable[int] = (),
    ) -> Tile:
        check(dims)
        return Tile(self.define(kind, text, hint), dims, real, frozenset(zero))

    # -- indices and masks

    def index(self, extent: Extent, position: int = 0, rank: int = 1) -> str:
        """The indices of a dim, to broadcast at ``position`` of ``rank`` dims."""
        if extent.split:
            top = extent.part or not self.walking
            start = PART if extent.part else COLUMN
            name = self.define("index", f"{start} + tl.arange(0, {extent.block})", extent.index, top=top)
        else:
            name = self.define("index", f"tl.arange(0, {extent.block})", extent.index, top=True)
        return name + brackets((position,), rank)

    def mask(self, dims: tuple[Extent, ...], which: Iterable[int]) -> str:
        """What is not padding, in these dims, as an expression; empty if nothing is."""
        parts = []
        for d in which:
            if dims[d].padded:
                name = self.define("index", f"{self.index(dims[d])} < {dims[d].text}", "in_" + dims[d].index[2:])
                parts.append(name + brackets((d,), len(dims)))
        return " & ".join(parts)

    def clean(self, tile: Tile, which: Iterable[int] | None = None) -> Tile:
        """The tile with zeros for padding in these dims (or all)."""
        which = range(len(tile.dims)) if which is None else which
        wanted = [d for d in which if not tile.clean(d)]
        if not wanted:
            return tile
        mask = self.mask(tile.dims, wanted)
        text = f"tl.where({mask}, {tile.name}, {'0' if tile.kind == 'int' else '0.0'})"
        found = self.tile("pointwise", text, tile.dims, tile.name, tile.kind, tile.zero | set(wanted))
        self.exact |= {found.name} if tile.name in self.exact else set()
        return found

    def entries(self, extents: Iterable[Extent]) -> int:
        """The entries of a group of dims, padding included; 0 where a block is not known."""
        total = 1
        for extent in extents:
            for factor in extent.block.split(" * "):
                total *= int(factor) if factor.isdigit() else self.blocks.get(factor, 0)
        return total

    # -- what every operation needs

    def zeros(self, value: Zero) -> Tile:
        zero = range(len(value.dims))
        return self.tile("pointwise", f"tl.full({shape(value.dims)}, 0.0, REAL)", value.dims, "zeros", zero=zero)

    def broadcast(self, tile: Tile, dims: tuple[Extent, ...]) -> Tile:
        """The tile with all of ``dims``; it has as many dims already, or is a scalar."""
        if tile.dims == dims:
            return tile
        if not tile.dims and dims:
            if tile.kind == "real":
                text = f"tl.full({shape(dims)}, 0.0, REAL) + {tile.name}"
            else:
                text = f"tl.full({shape(dims)}, 0, tl.int32) + {tile.name}"
            found = self.tile("view", text, dims, tile.name, tile.kind)
            self.numbers[found.name] = tile
            return found
        if tile.name in self.numbers:
            return self.broadcast(self.numbers[tile.name], dims)
        zero = {d for d in tile.zero if tile.dims[d] == dims[d]}
        return self.tile("view", f"tl.broadcast_to({tile.name}, {shape(dims)})", dims, tile.name, tile.kind, zero)

    def expand(self, tile: Tile, positions: tuple[int, ...], rank: int) -> str:
        """The tile as an operand of ``rank`` dims, its own at ``positions`` (ascending)."""
        return tile.name + brackets(positions, rank)

    def real(self, tile: Tile) -> Tile:
        if tile.kind == "real":
            return tile
        if tile.name.lstrip("-").isdigit():
            return Tile(f"{tile.name}.0")
        return self.tile("pointwise", f"({tile.name}).to(REAL)", tile.dims, tile.name, zero=tile.zero)

    # -- blocks

    def open(self) -> Block:
        """Begin an inner block; the caller closes it with ``close``."""
        self.block = Block(self.block)
        return self.block

    def close(self, head: str) -> None:
        """End the inner block, as the body of ``head``."""
        inner, outer = self.block, self.block.outer
        assert outer is not None
        self.block = outer
        self.taken -= {op.target for op in inner.ops if op.target and not op.keep}
        outer.ops.append(Op("loop", head, keep=True, inner=inner))

    # -- the text

    def text(self, depth: int = 1) -> list[str]:
        """The lines of the kernel, without what nothing uses."""
        return lines(self.top, depth)

    def sink(self) -> None:
        """Move loads, and what is made of one tile alone, to where they are first used: registers are scarce. For
        kernels without a loop."""
        order: list[Op] = []
        waiting: dict[str, Op] = {}
        simple = {op.target for op in self.top.ops if op.kind == "index"}

        def place(op: Op) -> None:
            for name in sorted(op.uses()):
                if name in waiting:
                    place(waiting.pop(name))
            order.append(op)

        for op in self.top.ops:
            operands = {u for u in op.uses() if any(o.target == u for o in self.top.ops)} - simple
            late = op.kind == "load" or (op.kind in ("view", "pointwise") and len(operands) == 1)
            if late and not op.keep and op.target:
                waiting[op.target] = op
            else:
                place(op)
        self.top.ops = order


def check(dims: tuple[Extent, ...]) -> None:
    """Raise UnsupportedError for a tile that no kernel can hold."""
    sizes = " x ".join(str(e.size) for e in dims)
    if math.prod(e.size for e in dims if isinstance(e.size, int)) > LARGEST:
        raise UnsupportedError(f"a tile of {sizes} is too large")
    ticks = [block_size(e.size, MOST_TICKS) for e in dims if not isinstance(e.size, int)]
    if any(beyond(e.size) for e in dims) and math.prod(ticks) > LARGEST_WINDOW:
        raise UnsupportedError(f"a window of so many ticks: a tile of {sizes}")


def shape(dims: tuple[Extent, ...]) -> str:
    """The block of a tile as a tuple."""
    blocks = [d.block for d in dims]
    return f"({', '.join(blocks)}{',' if len(blocks) == 1 else ''})"


def wide(dims: tuple[Extent, ...]) -> tuple[int, ...]:
    """The dims that have more than one entry."""
    return tuple(d for d, extent in enumerate(dims) if extent.size != 1)


BRACKETED = re.compile(r"(\w+)\[((?:(?::|None)(?:, )?)+)\]")


def bare(tile: Tile) -> str | None:
    """The name of a tile without its dims of one entry, where they are only put in: ``k`` of ``k[:, None]``."""
    found = BRACKETED.fullmatch(tile.name)
    if found is None:
        return None
    own = tuple(d for d, word in enumerate(found.group(2).split(", ")) if word == ":")
    return found.group(1) if own == wide(tile.dims) else None


def brackets(positions: tuple[int, ...], rank: int) -> str:
    """``[None, :]``: dims at ``positions`` of ``rank``."""
    if rank <= 1 or len(positions) == rank:
        return ""
    return "[" + ", ".join(":" if d in positions else "None" for d in range(rank)) + "]"
