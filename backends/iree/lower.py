"""Expressions as operations on tensors: what is not computed yet becomes ``linalg.generic`` where it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nldsl.backends.iree import scalars
from nldsl.backends.iree.nodes import (
    BOOL,
    INT,
    REAL,
    Contract,
    Counter,
    Gather,
    Held,
    Literal,
    Node,
    Point,
    Reduce,
    Scalar,
    Size,
    View,
    alignment,
    held,
    work,
)
from nldsl.backends.iree.text import Text, number, tensor_type

_COMBINED = {
    ("mul", REAL): "arith.mulf",
    ("add", REAL): "arith.addf",
    ("max", REAL): "arith.maximumf",
    ("add", INT): "arith.addi",
    ("max", INT): "arith.maxsi",
}
MOST_WORK = 60  # operations of one expression


@dataclass
class Lower:
    """``sizes``: of the mapped axes; ``order``: in which order axes lie in tensors that are made."""

    text: Text
    sizes: dict[str, Size]
    order: tuple[str, ...]
    made: dict[int, tuple[Node, Held]] = field(default_factory=dict)

    def inside(self) -> Lower:
        """The same in a branch: what is made there is not known outside."""
        return Lower(self.text, self.sizes, self.order, dict(self.made))

    # ------------------------------------------------------------ sizes

    def size(self, node: Node, dim: int) -> Size:
        lead = len(node.axes)
        return self.sizes[node.axes[dim]] if dim < lead else node.shape[dim - lead]

    def dims(self, node: Node) -> list[Size]:
        return [self.size(node, d) for d in range(node.rank)]

    def merged(self, nodes: Sequence[Node]) -> tuple[str, ...]:
        """All axes of some values, in order."""
        names = {a for node in nodes for a in node.axes}
        return tuple(a for a in self.order if a in names)

    # ------------------------------------------------------------ making expressions

    def point(self, op: str, *args: Node) -> Node:
        rank = max(len(a.shape) for a in args)
        shape = []
        for n in range(rank):
            own = [a.shape[n - rank + len(a.shape)] for a in args if n - rank + len(a.shape) >= 0]
            shape.append(next((s for s in own if s != 1), 1))
        made = Point(self.merged(args), tuple(shape), scalars.result_of(op, [a.elem for a in args]), op, args)
        if work(made) > MOST_WORK:
            made = replace(made, args=tuple(self.force(a) if work(a) > 8 and held(a) else a for a in args))
        return made

    def literal(self, value: float) -> Node:
        return Literal((), (), INT if isinstance(value, int) and not isinstance(value, bool) else REAL, value)

    def scalar(self, ssa: str, elem: str) -> Node:
        return Scalar((), (), elem, ssa)

    def counter(self, axis: str = "", n: int = 0) -> Node:
        """0, 1, .. along an axis, or along a logical dim of length ``n``."""
        return Counter((axis,) if axis else (), () if axis else (n,), INT, 0)

    def view(self, arg: Node, axes: tuple[str, ...], shape: tuple[int, ...], where: Sequence[int | None]) -> Node:
        if isinstance(arg, Held):
            places = [where[w] for w in arg.where]
            return Held(axes, shape, arg.elem, arg.ssa, arg.sizes, tuple(p for p in places if p is not None))
        if isinstance(arg, View):
            inner = tuple(None if w is None else where[w] for w in arg.where)
            return View(axes, shape, arg.elem, arg.arg, inner)
        if isinstance(arg, (Literal, Scalar)):
            return View(axes, shape, arg.elem, arg, ())
        return View(axes, shape, arg.elem, arg, tuple(where))

    def stretched(self, node: Node, axes: tuple[str, ...], shape: tuple[int, ...]) -> Node:
        """The value with more axes and dims, the same along them."""
        if node.axes == axes and node.shape == shape:
            return node
        return self.view(node, axes, shape, alignment(node, axes, len(shape)))

    def reduce(self, node: Node, over: Sequence[int], kind: str = "add") -> Node:
        """The sum (or ``max``) over some dims. Sums of sums and of products are one operation."""
        over = sorted(set(over))
        if not over:
            return node
        seen = held(node)
        missing = [d for d in over if d not in seen]
        if missing:
            found = self.reduce(self._without(node, missing), _moved(over, missing), kind)
            return self.times(found, [self.size(node, d) for d in missing]) if kind == "add" else found
        kept = [d for d in range(node.rank) if d not in over]
        axes, shape = self._dims_of(node, kept)
        if isinstance(node, View) and isinstance(node.arg, (Reduce, Contract)):
            places = [w for w in node.where if w is not None]
            if len(set(places)) == len(places):
                inner = [d for d, w in enumerate(node.where) if w in over]
                rest = [node.where[d] for d in range(node.arg.rank) if d not in inner]
                body = self.reduce(node.arg, inner, kind)
                return self.view(body, axes, shape, [None if w is None else kept.index(w) for w in rest])
        if isinstance(node, Reduce) and node.kind == kind:
            outer = [d for d in range(node.arg.rank) if d not in node.over]
            return Reduce(axes, shape, node.elem, node.arg, (*node.over, *(outer[d] for d in over)), kind)
        if isinstance(node, Contract) and kind == "add":
            return replace(node, axes=axes, shape=shape, out=tuple(node.out[d] for d in kept))
        return Reduce(axes, shape, REAL if node.elem == BOOL else node.elem, node, tuple(over), kind)

    def _dims_of(self, node: Node, kept: Sequence[int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
        lead = len(node.axes)
        return tuple(node.axes[d] for d in kept if d < lead), tuple(node.shape[d - lead] for d in kept if d >= lead)

    def _without(self, node: Node, dims: Sequence[int]) -> Node:
        """The value without dims along which it does not differ."""
        kept = [d for d in range(node.rank) if d not in dims]
        axes, shape = self._dims_of(node, kept)
        return self.view(node, axes, shape, [kept.index(d) if d in kept else None for d in range(node.rank)])

    def times(self, node: Node, sizes: Sequence[Size]) -> Node:
        total: Size = 1
        for size in sizes:
            total = self.text.index_op("muli", total, size)
        if total == 1:
            return node
        if node.elem == BOOL:
            node = self.point("to_real", node)
        factor = self.literal(total) if isinstance(total, int) else self.scalar(self.text.integer(total), INT)
        return self.point("mul", node, factor)

    # ------------------------------------------------------------ single numbers

    def _emit(self, node: Node, where: Sequence[int | None], work: _Work) -> str:
        """The entry of an expression at the place of the iteration; dim ``d`` of ``node`` is dim ``where[d]`` of it."""
        key = id(node), tuple(where)
        if key in work.known:
            return work.known[key][1]
        found = self._entry(node, where, work)
        work.known[key] = node, found
        return found

    def _entry(self, node: Node, where: Sequence[int | None], work: _Work) -> str:
        match node:
            case Held():
                places = tuple(where[w] for w in node.where)
                return work.read(node, places)
            case Literal():
                return self.text.const(node.value, node.elem)
            case Scalar():
                return node.ssa
            case Counter():
                place = where[node.dim]
                return self.text.const(0, INT) if place is None else work.counter(place)
            case View():
                inner = [None if w is None else where[w] for w in node.where] or [None] * node.arg.rank
                return self._emit(node.arg, inner, work)
            case Gather():
                return self._gathered(node, where, work)
            case Point():
                args = []
                for arg in node.args:
                    places = alignment(arg, node.axes, len(node.shape))
                    text = self._emit(arg, [None if p is None else where[p] for p in places], work)
                    args.append((text, arg.elem))
                last = node.args[-1]
                literal = last.value if isinstance(last, Literal) else None
                return scalars.apply(work.let, self.text.const, node.op, args, literal)
        return self._emit(self.force(node), where, work)

    def _gathered(self, node: Gather, where: Sequence[int | None], work: _Work) -> str:
        index = []
        for of in node.index:
            if isinstance(of, Node):
                places = alignment(of, node.axes, len(node.shape))
                text = self._emit(of, [None if p is None else where[p] for p in places], work)
                index.append(
                    work.let(
                        f"arith.index_cast {scalars.converted(work.let, self.text.const, text, of.elem, INT)}"
                        " : i64 to index"
                    )
                )
            else:
                place = where[of]
                index.append(
                    self.text.const(0, "index") if place is None else work.let(f"linalg.index {place} : index")
                )
        source = node.source
        return work.let(f"tensor.extract {source.ssa}[{', '.join(index)}] : {tensor_type(source.sizes, source.elem)}")

    # ------------------------------------------------------------ tensors

    def force(self, node: Node) -> Held:
        """The value as a tensor."""
        if isinstance(node, Held):
            return node
        if id(node) in self.made:
            return self.made[id(node)][1]
        if isinstance(node, View):
            inner = self.force(node.arg)
            found = self.view(inner, node.axes, node.shape, node.where or [None] * inner.rank)
            assert isinstance(found, Held)
        elif isinstance(node, Reduce):
            found = self._reduction(node)
        elif isinstance(node, Contract):
            found = self._contraction(node)
        else:
            seen = held(node)
            found = self._pointwise(node, [d for d in range(node.rank) if d in seen and self.size(node, d) != 1])
        self.made[id(node)] = node, found
        return found

    def laid(self, node: Node, dims: Sequence[int]) -> Held:
        """The value as a tensor that lies along exactly these dims, in this order; sizes 1 are left out."""
        dims = [d for d in dims if self.size(node, d) != 1]
        if isinstance(node, (Reduce, Contract, View)):
            node = self.force(node)
        if isinstance(node, Held) and list(node.where) == dims and node.elem != BOOL:
            return node
        return self._pointwise(node, dims)

    def full(self, node: Node) -> Held:
        """The value as a tensor that lies along all its dims."""
        return self.laid(node, range(node.rank))

    def zero(self) -> Node:
        """Zero for the beginning of a loop (``Text.nearly_zero``)."""
        return self.literal(self.text.nearly_zero())

    def _pointwise(self, node: Node, dims: Sequence[int]) -> Held:
        sizes = [self.size(node, d) for d in dims]
        where: list[int | None] = [None] * node.rank
        for n, d in enumerate(dims):
            where[d] = n
        elem = REAL if node.elem == BOOL else node.elem
        work = _Work(self.text)
        value = self._emit(node, where, work)
        value = scalars.converted(work.let, self.text.const, value, node.elem, elem)
        work.lines.append(f"linalg.yield {value} : {elem}")
        start = self.text.empty(sizes, elem)
        every = range(len(sizes))
        ssa = self.text.generic(
            sizes, frozenset(), work.ins, start, every, elem, work.lines, (work.names, self.text.new())
        )
        if not work.ins:  # IREE 3.13 copies what is made of nothing to where it is used, and loses some of the copies
            ssa = self.text.apart(ssa, sizes, elem)
        return Held(node.axes, node.shape, elem, ssa, tuple(sizes), tuple(dims))

    def _reduction(self, node: Reduce) -> Held:
        arg = node.arg
        seen = held(arg)
        outer = [d for d in range(arg.rank) if d not in node.over]
        kept = [d for d in outer if d in seen and self.size(arg, d) != 1]
        over = [d for d in node.over if self.size(arg, d) != 1 or d in seen]
        where: list[int | None] = [None] * arg.rank
        for n, d in enumerate([*kept, *over]):
            where[d] = n
        work = _Work(self.text)
        value = self._emit(arg, where, work)
        elem = node.elem
        value = scalars.converted(work.let, self.text.const, value, arg.elem, elem)
        total = self.text.new()
        result = work.let(f"{_COMBINED[node.kind, elem]} {total}, {value} : {elem}")
        work.lines.append(f"linalg.yield {result} : {elem}")
        lowest = -(2**62) if elem == INT else float("-inf")
        sizes = [self.size(arg, d) for d in [*kept, *over]]
        start = self.text.fill({"add": 0, "mul": 1, "max": lowest}[node.kind], sizes[: len(kept)], elem)
        reduced = frozenset(range(len(kept), len(sizes)))
        seen_dims = {n for i in work.ins for n in i[3]}
        for n in sorted(reduced - seen_dims):  # its length has to come from an operand
            work.ins.append((self.text.empty([sizes[n]], REAL), [sizes[n]], REAL, [n]))
            work.names.append(self.text.new())
        ssa = self.text.generic(
            sizes, reduced, work.ins, start, range(len(kept)), elem, work.lines, (work.names, total)
        )
        where_out = tuple(outer.index(d) for d in kept)
        return Held(node.axes, node.shape, elem, ssa, tuple(sizes[: len(kept)]), where_out)

    def _contraction(self, node: Contract) -> Held:
        """A product of two tensors, summed; labels along which nobody differs count as factors."""
        args = [self.force(a if a.elem == REAL else self.point("to_real", a)) for a in node.args]
        seen: dict[str, None] = {}
        for arg, labels in zip(args, node.labels, strict=True):
            seen.update({labels[w]: None for w in arg.where})
        out = [label for label in node.out if label in seen]
        inner = [label for label in seen if label not in node.out]
        missing = {label for labels in node.labels for label in labels} - {*seen, *node.out}
        axis = {label: n for n, label in enumerate([*out, *inner])}
        sizes = [node.sizes[label] for label in axis]
        start = self.text.fill(0.0, sizes[: len(out)], REAL)
        ins = [
            (a.ssa, a.sizes, REAL, [axis[labels[w]] for w in a.where])
            for a, labels in zip(args, node.labels, strict=True)
        ]
        names = [self.text.new() for _ in ins]
        total, product = self.text.new(), names[0]
        body = []
        for name in names[1:]:
            new = self.text.new()
            body.append(f"{new} = arith.mulf {product}, {name} : f32")
            product = new
        body += [f"%sum = arith.addf {total}, {product} : f32", "linalg.yield %sum : f32"]
        reduced = frozenset(range(len(out), len(sizes)))
        ssa = self.text.generic(sizes, reduced, ins, start, range(len(out)), REAL, body, (names, total))
        found: Node = Held(
            node.axes, node.shape, REAL, ssa, tuple(sizes[: len(out)]), tuple(node.out.index(label) for label in out)
        )
        found = self.times(found, [node.sizes[label] for label in sorted(missing)])
        return self.force(found)


def _moved(over: Sequence[int], missing: Sequence[int]) -> list[int]:
    """The numbers of dims when some are gone."""
    return [d - sum(m < d for m in missing) for d in over if d not in missing]


class _Work:
    """The body of one operation while it is written."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.lines: list[str] = []
        self.ins: list[tuple[str, Sequence[Size], str, Sequence[int]]] = []
        self.names: list[str] = []
        self.known: dict[tuple[int, tuple[int | None, ...]], tuple[Node, str]] = {}
        self.reads: dict[tuple[str, tuple[int | None, ...]], str] = {}
        self.counters: dict[int, str] = {}

    def let(self, what: str) -> str:
        name = self.text.new()
        self.lines.append(f"{name} = {what}")
        return name

    def read(self, node: Held, places: tuple[int | None, ...]) -> str:
        key = node.ssa, places
        if key not in self.reads:
            assert None not in places, f"{node} is read at {places}"
            self.reads[key] = self.text.new()
            self.names.append(self.reads[key])
            self.ins.append((node.ssa, node.sizes, node.elem, [p for p in places if p is not None]))
        return self.reads[key]

    def counter(self, place: int) -> str:
        if place not in self.counters:
            index = self.let(f"linalg.index {place} : index")
            self.counters[place] = self.let(f"arith.index_cast {index} : index to i64")
        return self.counters[place]


__all__ = ["Lower", "number"]
