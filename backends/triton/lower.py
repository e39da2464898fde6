"""The instructions of a segment's body as operations on tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nldsl.backends.triton import contract as contractions
from nldsl.backends.triton import scans, systems, views, windows
from nldsl.backends.triton.apart import INVERSE
from nldsl.backends.triton.builder import Builder
from nldsl.backends.triton.contract import permute
from nldsl.backends.triton.pointwise import aligned, pointwise, settled
from nldsl.backends.triton.tiles import Extent, Tile, UnsupportedError, Value, column_extent
from nldsl.backends.triton.views import tile_of
from nldsl.dims import Dim
from nldsl.ir.ops import POINTWISE, split_spec
from nldsl.ir.program import Instr
from nldsl.ir.types import Type

Leaf = Callable[[int, Instr], Value]
Place = tuple[int, int]  # a value of the body and one of its dims (mapped axes first)


@dataclass
class Lowering:
    """``names`` is what to call the values. ``lanes`` are the mapped axes that programs of the launch divide; ``sizes``
    has those of the others. ``leaves`` gives the values that the body takes from outside. ``split`` are the places of
    the dim divided into tiles of ``columns``, ``parts`` those of another that programs divide, ``width`` to each.
    ``exact`` are values that products take with all of their digits."""

    b: Builder
    body: Sequence[Instr]
    lanes: frozenset[str]
    sizes: dict[str, Dim]
    leaves: Leaf
    given: Callable[[int], Value | None] = lambda value: None
    split: frozenset[Place] = frozenset()
    columns: int = 0
    parts: frozenset[Place] = frozenset()
    width: int = 0
    fires: Callable[[object], str] = str
    names: Sequence[str] = ()
    exact: frozenset[int] = frozenset()
    known: dict[int, Value] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)

    def __call__(self, value: int) -> Value:
        """The value, with all it needs, computed once."""
        stack = [value]
        while stack:
            at = stack[-1]
            if at in self.known:
                stack.pop()
                continue
            found = self.given(at)
            if found is not None:
                self.known[at] = found
                continue
            missing = [a for a in self.body[at].args if a not in self.known]
            if missing:
                stack.extend(reversed(missing))
                continue
            self.b.note = noted(self.body[at])
            self.known[at] = made = self.compute(at, self.body[at])
            self.b.exact |= {made.name} if at in self.exact and isinstance(made, Tile) else set()
            self.b.note = ""
        return self.known[value]

    def tile(self, value: int) -> Tile:
        """The value in registers."""
        return tile_of(self.b, self(value))

    # -- shapes

    def axes(self, type: Type) -> tuple[str, ...]:
        """The mapped axes that a tile has as dims."""
        return tuple(a for a in type.axes if a not in self.lanes)

    def dims(self, value: int) -> tuple[Extent, ...]:
        """The dims of a value, all of them."""
        type = self.body[value].type
        sizes = [*(self.sizes[a] for a in self.axes(type)), *type.shape]
        return tuple(
            column_extent(s, self.columns)
            if (value, d) in self.split
            else column_extent(s, self.width, True)
            if (value, d) in self.parts
            else Extent(s)
            for d, s in enumerate(sizes)
        )

    def hint(self, value: int) -> str:
        """What to call a value."""
        return (self.names[value] if self.names else self.body[value].name) or self.body[value].op

    def aligned(self, value: int, axes: tuple[str, ...], rank: int) -> Value:
        """An operand with a dim for each axis and ``rank`` logical dims; scalars stay scalars."""
        found = settled(self.b, self(value))
        own = self.axes(self.body[value].type)
        logical = len(found.dims) - len(own) if found.dims else 0
        if not found.dims:
            return found
        total = len(axes) + rank
        places = (*(axes.index(a) for a in own), *range(total - logical, total))
        return aligned(found, places, total)

    # -- instructions

    def compute(self, value: int, instr: Instr) -> Value:
        op = instr.op
        if op == "const":
            number = instr.attr("value")
            return Tile(literal(number), (), "int" if isinstance(number, int) else "real")
        if op == "iota":
            extent = self.dims(value)[0]
            return Tile(self.b.index(extent), (extent,), "int")
        if not instr.args:
            return self.leaves(value, instr)
        if op in ("stop_grad", "fixed"):
            return self(instr.args[0])
        if op in POINTWISE:
            return self._pointwise(value, instr)
        rule = _RULES.get(op)
        if rule is None:
            raise UnsupportedError(f"`{op}` has no form in a kernel")
        return rule(self, value, instr)

    def _pointwise(self, value: int, instr: Instr) -> Value:
        axes, rank = self.axes(instr.type), len(instr.type.shape)
        operands = [self.aligned(a, axes, rank) for a in instr.args]
        return pointwise(self.b, instr.op, operands, self.dims(value), self.hint(value))

    def einsum(self, value: int, instr: Instr) -> Value:
        """A contraction; mapped axes that are dims are letters like others."""
        inputs, output = split_spec(instr.attr("spec"))
        labels = []
        values = []
        for arg, text in zip(instr.args, inputs, strict=True):
            own = self.axes(self.body[arg].type)
            found = self(arg)
            values.append(found)
            labels.append((*own, *text) if found.dims else ())
        target = (*self.axes(instr.type), *output)
        return contractions.contract(self.b, values, labels, target, self.hint(value))

    def reduce(self, value: int, instr: Instr) -> Value:
        """Sums and maxima."""
        (arg,) = instr.args
        lead = len(self.axes(self.body[arg].type))
        which = tuple(lead + d for d in instr.attr("dims"))
        found = settled(self.b, self(arg))
        if not found.dims:
            found = self.b.broadcast(tile_of(self.b, found), self.dims(arg))
        if instr.op == "sum":
            return contractions.total(self.b, found, which, self.hint(value))
        return contractions.largest(self.b, found, which)

    def reshape(self, value: int, instr: Instr) -> Value:
        """The same entries in another shape."""
        (arg,) = instr.args
        found = self(arg)
        lead = len(self.axes(self.body[arg].type))
        if not found.dims:
            if all(e.size == 1 for e in self.dims(value)):
                return found
            found = self.b.broadcast(tile_of(self.b, found), self.dims(arg))
        return views.reshape(self.b, found, tuple(instr.attr("shape")), lead)

    def broadcast(self, value: int, instr: Instr) -> Value:
        """Stretched dims."""
        operand = self.aligned(instr.args[0], self.axes(instr.type), len(instr.type.shape))
        if isinstance(operand, Tile):
            return self.b.broadcast(operand, self.dims(value))
        return self.b.broadcast(tile_of(self.b, operand), self.dims(value))

    def concat(self, value: int, instr: Instr) -> Value:
        """Values side by side."""
        axes, rank = self.axes(instr.type), len(instr.type.shape)
        dim = len(axes) + instr.attr("dim")
        dims = self.dims(value)
        pieces = []
        for arg in instr.args:
            found = self.full(arg, axes, rank)
            size = self.body[arg].type.shape[instr.attr("dim")]
            wide = (*dims[:dim], Extent(size), *dims[dim + 1 :])
            short = [d for d, e in enumerate(found.dims) if e.size == 1 and wide[d].size != 1]
            pieces.append(self.b.broadcast(tile_of(self.b, found), wide) if short else found)
        return views.concat(pieces, dim)

    def full(self, value: int, axes: tuple[str, ...], rank: int) -> Value:
        """An operand with all its dims: a scalar that stands for more is stretched."""
        found = self.aligned(value, axes, rank)
        if found.dims or not (axes or rank):
            return found
        shape = self.body[value].type.shape
        dims = (*(Extent(1) for _ in axes), *(Extent(s) for s in shape))
        return self.b.broadcast(tile_of(self.b, found), dims)

    def slice(self, value: int, instr: Instr) -> Value:
        """A part along a dim."""
        (arg,) = instr.args
        dim = len(self.axes(self.body[arg].type)) + instr.attr("dim")
        found = self(arg)
        if not found.dims:
            return found
        return views.slice_of(self.b, found, dim, instr.attr("start"), instr.attr("stop"))

    def pad(self, value: int, instr: Instr) -> Value:
        """Zeros around a value."""
        (arg,) = instr.args
        axes = self.axes(self.body[arg].type)
        found = self(arg)
        if not found.dims:
            found = self.full(arg, axes, len(instr.type.shape))
        return views.pad(self.b, found, len(axes) + instr.attr("dim"), instr.attr("before"), instr.attr("after"))

    def collect(self, value: int, instr: Instr) -> Value:
        """A mapped axis becomes the first dim."""
        (arg,), axis = instr.args, instr.attr("axis")
        own = self.axes(self.body[arg].type)
        out = self.axes(instr.type)
        found = self(arg)
        if not found.dims:
            return self.b.broadcast(tile_of(self.b, found), self.dims(value))
        if axis in own:
            labels = (*own, *(f"dim {n}" for n in range(len(self.body[arg].type.shape))))
            target = (*out, axis, *labels[len(own) :])
            return permute(self.b, found, tuple(labels.index(x) for x in target))
        rank = len(found.dims) + 1
        places = tuple(d if d < len(own) else d + 1 for d in range(rank - 1))
        stretched = aligned(settled(self.b, found), places, rank)
        return self.b.broadcast(tile_of(self.b, stretched), self.dims(value))

    def spread(self, value: int, instr: Instr) -> Value:
        """The first dim becomes a mapped axis."""
        (arg,), axis = instr.args, instr.attr("axis")
        own = self.axes(self.body[arg].type)
        out = self.axes(instr.type)
        found = self(arg)
        if not found.dims:
            return found
        rest = tuple(f"dim {n}" for n in range(1, len(self.body[arg].type.shape)))
        if axis in own:
            return contractions.contract(self.b, [found], [(*own, axis, *rest)], (*out, *rest), self.hint(value))
        labels = (*own, axis, *rest)
        return permute(self.b, found, tuple(labels.index(x) for x in (*out, *rest)))

    def axis_sum(self, value: int, instr: Instr) -> Value:
        """The sum over a mapped axis."""
        (arg,), axis = instr.args, instr.attr("axis")
        own = self.axes(self.body[arg].type)
        if axis in own:
            found = self(arg)
            whole = found if found.dims else self.b.broadcast(tile_of(self.b, found), self.dims(arg))
            return contractions.total(self.b, whole, (own.index(axis),))
        if axis not in self.sizes:
            raise UnsupportedError(f"a sum over the axis `{axis}`")
        size = self.sizes[axis]
        factor = Tile(f"({Extent(size).text}).to(REAL)" if not isinstance(size, int) else f"{size}.0")
        return pointwise(self.b, "mul", [settled(self.b, self(arg)), factor], self.dims(value), "total")

    def lane(self, value: int, instr: Instr) -> Value:
        """The value of one lane."""
        (arg,), axis, index = instr.args, instr.attr("axis"), instr.attr("index")
        own = self.axes(self.body[arg].type)
        found = self(arg)
        if not found.dims:
            return found
        place = own.index(axis)
        one = views.slice_of(self.b, found, place, index, index + 1)
        return contractions.total(self.b, settled(self.b, one), (place,))

    def when(self, value: int, instr: Instr) -> Value:
        """A choice by the clock at the end of the segment."""
        fires = self.b.define("index", self.fires(instr.attr("clock")), "at_end")
        axes, rank = self.axes(instr.type), len(instr.type.shape)
        new, old = (tile_of(self.b, self.aligned(a, axes, rank)) for a in instr.args)
        if new.kind != old.kind:
            new, old = self.b.real(new), self.b.real(old)
        dims = self.dims(value)
        text = f"tl.where({fires}, {new.name}, {old.name})"
        zero = [d for d in range(len(dims)) if new.dims and old.dims and new.clean(d) and old.clean(d)]
        return self.b.tile("pointwise", text, dims, self.hint(value), instr.type.kind, zero)

    def lead(self, value: int) -> int:
        """The number of mapped axes that are dims."""
        return len(self.axes(self.body[value].type))

    def same_axes(self, arg: int, value: int) -> Value:
        """An operand with all mapped axes of the result."""
        axes = self.axes(self.body[value].type)
        own = self.axes(self.body[arg].type)
        found = settled(self.b, self(arg))
        wide = (*self.dims(value)[: len(axes)], *self.dims(arg)[len(own) :])
        if not found.dims:
            return self.b.broadcast(tile_of(self.b, found), wide)
        if own == axes:
            return found
        places = (*(axes.index(a) for a in own), *range(len(axes), len(wide)))
        stretched = aligned(found, places, len(wide))
        return self.b.broadcast(tile_of(self.b, stretched), wide)

    def scan(self, value: int, instr: Instr) -> Value:
        """What runs over the ticks of the segment."""
        args = [self.same_axes(a, value) for a in instr.args]
        lead, b, hint = self.lead(value), self.b, self.hint(value)
        if instr.op == "cumprod":
            return scans.cumprod(b, args[0], lead, instr.attr("reverse"), instr.attr("exclusive"), hint)
        if instr.op == "cumsum":
            return scans.cumsum(b, args[0], lead + instr.attr("dim"), instr.attr("reverse"), hint)
        if instr.op == "segprod":
            if instr.attr("matrix"):
                return scans.segprod_matrix(b, args[0], lead, self.functions)
            return scans.segprod(b, args[0], lead, hint)
        if instr.op == "decay_gram":
            return scans.decay_gram(b, args, lead)
        if instr.op == "linear_scan":
            return scans.linear_scan(b, args[0], args[1], lead, bool(dict(instr.attrs).get("reverse", False)))
        if instr.op == "decay_gram_grad":
            return scans.decay_gram_grad(b, args, lead)
        return scans.inverse(b, args[0], lead)

    def window(self, value: int, instr: Instr) -> Value:
        """What the windows of a segment see, and back."""
        (arg,) = instr.args
        found = self(arg)
        whole = (
            found
            if isinstance(found, Tile) and found.dims
            else self.b.broadcast(tile_of(self.b, found), self.dims(arg))
        )
        if whole.kind == "bool":
            whole = self.b.real(whole)
        lead, n = self.lead(value), instr.attr("n")
        if instr.op == "unfold":
            return windows.unfold(self.b, whole, n, instr.type.shape[0], lead)
        return (windows.band if instr.op == "band" else windows.unband)(self.b, whole, n, lead)

    def solve(self, value: int, instr: Instr) -> Value:
        """A^-1 b for a vector or a matrix b."""
        matrix, right = (self.b.real(tile_of(self.b, self.same_axes(a, value))) for a in instr.args)
        return systems.solve(self.b, matrix, right, self.lead(value))

    def one_hot(self, value: int, instr: Instr) -> Value:
        """A row with a 1 at an index."""
        (arg,) = instr.args
        found = tile_of(self.b, self(arg))
        dims = self.dims(value)
        rank = len(dims)
        wide = aligned(found, tuple(range(rank - 1)), rank)
        assert isinstance(wide, Tile)
        text = f"tl.where({wide.name} == {self.b.index(dims[-1], rank - 1, rank)}, 1.0, 0.0)"
        return self.b.tile("pointwise", text, dims, "one_hot")


def noted(instr: Instr) -> str:
    """The line of the program that an instruction is a part of."""
    if instr.span.is_none or not instr.args:
        return ""
    file = instr.span.file
    line = file.line_text(file.position(instr.span.start)[0]).strip()
    return line if len(line) <= 100 else line[:97] + "..."


def literal(number: float) -> str:
    """A number as Triton code."""
    if isinstance(number, int):
        return str(number)
    text = repr(float(number))
    return f"float('{text}')" if text.lstrip("-") in ("inf", "nan") else text


_Rule = Callable[[Lowering, int, Instr], Value]
_RULES: dict[str, _Rule] = {
    "einsum": Lowering.einsum,
    "sum": Lowering.reduce,
    "max": Lowering.reduce,
    "reshape": Lowering.reshape,
    "broadcast": Lowering.broadcast,
    "concat": Lowering.concat,
    "slice": Lowering.slice,
    "pad": Lowering.pad,
    "collect": Lowering.collect,
    "spread": Lowering.spread,
    "axis_sum": Lowering.axis_sum,
    "lane": Lowering.lane,
    "when": Lowering.when,
    "one_hot": Lowering.one_hot,
    "solve": Lowering.solve,
    **dict.fromkeys(("unfold", "band", "unband"), Lowering.window),
    **dict.fromkeys(
        ("cumprod", "cumsum", "segprod", "decay_gram", "decay_gram_grad", "linear_scan", INVERSE),
        Lowering.scan,
    ),
}
