"""A kernel as a list of operations on tiles, and its text.

``Block`` is a sequence of operations with a loop inside at most; each operation defines one name and is found again if
the same is asked for twice. What nothing uses is not printed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nldsl.backends.triton.library_text import functions
from nldsl.backends.triton.tiles import COLUMN, Extent, Tile, UnsupportedError, Zero, beyond, block_size

INDENT = "    "
WORD = re.compile(r"[A-Za-z_]\w*")
RESERVED = frozenset(
    "and as assert async await break class continue def del elif else except finally for from global if import in is "
    "lambda nonlocal not or pass raise return try while with yield None True False tl triton T BT BV REAL DOT "
    "PRECISION first n t range N".split()
)
LARGEST = 1 << 18  # entries of a tile; Triton allows 2**20
LARGEST_WINDOW, MOST_TICKS = 1 << 14, 64  # ticks by ticks that windows see; twice as many spill 16 KiB a thread


@dataclass
class Op:
    """``target = text``, or only ``text`` where it is done for its effect. ``kind`` is for readers of the list: index,
    load, store, dot, scan, solve, reduce, gather, pointwise, view, loop."""

    kind: str
    text: str
    target: str = ""
    keep: bool = False
    inner: Block | None = None
    note: str = ""

    def uses(self) -> set[str]:
        return set(WORD.findall(self.text))


@dataclass
class Block:
    """Operations in order. A name that an outer block knows is known in the inner one."""

    outer: Block | None = None
    ops: list[Op] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)

    def find(self, text: str) -> str | None:
        found = self.known.get(text)
        return found if found or self.outer is None else self.outer.find(text)

    def walk(self) -> Iterator[Op]:
        for op in self.ops:
            yield op
            if op.inner is not None:
                yield from op.inner.walk()


class Builder:
    """Writes the operations of one kernel."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.top = self.block = Block()
        self.taken: set[str] = set(RESERVED) | set(functions("library")) | set(names)
        self.walking = False  # whether the columns are a loop's, which sums over them

    # -- names and operations

    def new_name(self, hint: str) -> str:
        base = re.sub(r"\W", "_", hint)[:40].strip("_") or "x"
        base = base if base[0].isalpha() and base.isascii() else "x" + re.sub(r"[^A-Za-z0-9_]", "", base)
        name, count = base, 1
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
        block.ops.append(Op(kind, text, name))
        block.known[text] = name
        return name

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
            top = not self.walking
            name = self.define("index", f"{COLUMN} + tl.arange(0, BV)", extent.index, top=top)
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
        return self.tile("pointwise", text, tile.dims, tile.name, tile.kind, tile.zero | set(wanted))

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
            return self.tile("view", text, dims, tile.name, tile.kind)
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
        return list(_lines(self.top, _needed(self.top), depth))

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


def _needed(top: Block) -> set[int]:
    """The operations to print, by identity: those kept, and what they use."""
    ops = list(top.walk())
    defined: dict[str, list[Op]] = {}
    for op in ops:
        if op.target:
            defined.setdefault(op.target, []).append(op)
    stack = [op for op in ops if op.keep]
    found: set[int] = set()
    while stack:
        op = stack.pop()
        if id(op) in found:
            continue
        found.add(id(op))
        for name in op.uses():
            stack.extend(defined.get(name, ()))
    return found


def _lines(block: Block, needed: set[int], depth: int) -> Iterator[str]:
    for op in block.ops:
        if id(op) not in needed:
            continue
        text = f"{op.target} = {op.text}" if op.target else op.text
        if op.inner is not None:
            yield INDENT * depth + text
            yield from _lines(op.inner, needed, depth + 1)
        else:
            yield from _wrapped(text, depth)


def _wrapped(text: str, depth: int) -> Iterator[str]:
    """A line, or several where it is long and has brackets to break at."""
    line = INDENT * depth + text
    if len(line) <= 116 or "(" not in text:
        yield line
        return
    head, rest = _break(text)
    yield INDENT * depth + head
    for argument in rest[:-1]:
        yield INDENT * (depth + 1) + argument
    yield INDENT * depth + rest[-1]


def _break(text: str) -> tuple[str, list[str]]:
    """``f(a, b)`` as the lines of a call with an argument on each."""
    start = text.index("(")
    level, parts, last = 0, [], start + 1
    for at in range(start, len(text)):
        if text[at] in "([{":
            level += 1
        elif text[at] in ")]}":
            level -= 1
            if level == 0:
                parts.append(text[last:at] + ",")
                return text[: start + 1], [*parts, text[at:]]
        elif text[at] == "," and level == 1:
            parts.append(text[last : at + 1].strip())
            last = at + 2
    return text, []


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


def brackets(positions: tuple[int, ...], rank: int) -> str:
    """``[None, :]``: dims at ``positions`` of ``rank``."""
    if rank <= 1 or len(positions) == rank:
        return ""
    return "[" + ", ".join(":" if d in positions else "None" for d in range(rank)) + "]"
