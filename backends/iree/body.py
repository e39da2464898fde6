"""Bodies of instructions as expressions: one row of a table for each operation of the IR."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nldsl.backends.iree import over_time as time
from nldsl.backends.iree.choices import Branch, planned
from nldsl.backends.iree.contraction import einsum
from nldsl.backends.iree.decay_gram import decay_gram, decay_gram_grad
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import BOOL, INT, REAL, Held, Node, Scalar, View, fixed, simple, work
from nldsl.backends.iree.picks import LazyPicks
from nldsl.backends.iree.products import cumprod, segprod
from nldsl.backends.iree.scalars import POINTWISE
from nldsl.backends.iree.shapes import collect, cut, join, one_hot, pad, pick, reshape, rows, scatter_rows, spread
from nldsl.backends.iree.solve import solve
from nldsl.backends.iree.triangular import solve_triangular
from nldsl.dims import Dim, Poly
from nldsl.ir.clocks import implies
from nldsl.ir.program import Instr
from nldsl.ir.types import BATCH, Clock, Type

AGAIN = 4  # operations that are rather done again than stored
Handler = Callable[["Body", Instr, list[Node]], Node]


@dataclass
class Body:
    """Lowers instructions of one list. ``ticks``: what the size ``ticks`` is here; ``fires``: whether a clock does, as
    a condition; ``known``: the values so far. ``one_by_one``: what only a slow clock needs is computed at its ticks
    (``choices.py``), for ``fires`` is one number; ``taken``: the clock that is known to fire."""

    low: Lower
    body: Sequence[Instr]
    fires: Callable[[Clock], Node]
    ticks: int = 1
    known: dict[int, Node] = field(default_factory=dict)
    one_by_one: bool = False
    taken: Clock | None = None

    def dim(self, size: Dim) -> int:
        return number_of(size, self.ticks)

    def shape(self, sizes: Iterable[Dim]) -> tuple[int, ...]:
        return tuple(self.dim(s) for s in sizes)

    def run(self, values: Sequence[int], kept: Iterable[int] = ()) -> None:
        """Lower these values, whose operands are known or among them. What is used more than once, or is ``kept``, is
        computed where it stands."""
        values = [v for v in values if v not in self.known]
        uses = Counts(a for v in values for a in self.body[v].args)
        wanted = set(kept)
        for item in planned(self.body, values, wanted, self.taken) if self.one_by_one else values:
            if isinstance(item, Branch):
                self.branch(item)
                continue
            instr = self.body[item]
            self.low.text.place = instr.span if not instr.span.is_none else self.low.text.place
            found = self.value(instr)
            if item in wanted or (uses[item] > 1 and not brief(found)):
                found = found if cheap(found) else self.low.force(found)
            self.known[item] = found

    def branch(self, branch: Branch) -> None:
        """The choices of one clock: a loop of one round or none, which carries what they have chosen so far."""
        low, clock = self.low, branch.clock
        condition = self.fires(clock)
        assert isinstance(condition, Scalar)
        olds: list[Held] = []
        for w in branch.whens:
            old = self.settled(w, self.known[self.body[w].args[1]])
            if old.elem == REAL and old.ssa in {o.ssa for o in olds}:  # what is carried must not begin as one tensor
                old = low.full(low.point("add", old, low.zero()))
            olds.append(old)
        with low.text.only_if(condition.ssa, [(o.ssa, o.sizes, o.elem) for o in olds]) as (results, end):
            here = low.inside()
            known = self.known.inside(here) if isinstance(self.known, LazyPicks) else dict(self.known)
            inside = Body(here, self.body, self.fires, self.ticks, known, True, clock)
            new = [self.body[w].args[0] for w in branch.whens]
            used = {a for v in branch.inside for a in self.body[v].args}
            inside.run(sorted({*branch.inside, *used.intersection(branch.whens)}), new)
            end([inside.settled(w, inside.known[v]).ssa for w, v in zip(branch.whens, new, strict=True)])
        for w, old, ssa in zip(branch.whens, olds, results, strict=True):
            self.known[w] = replace(old, ssa=low.text.tied(ssa, old.sizes, old.elem))

    def settled(self, v: int, node: Node) -> Held:
        """A value in the layout of the type of value ``v``."""
        type = self.body[v].type
        return settled(self.low, node, type, self.shape(type.shape))

    def value(self, instr: Instr) -> Node:
        args = [self.known[a] for a in instr.args]
        if instr.op in POINTWISE:
            return self.low.point(instr.op, *args)
        return TABLE[instr.op](self, instr, args)


def settled(low: Lower, node: Node, type: Type, shape: tuple[int, ...]) -> Held:
    """A value as a tensor in the layout of a type, as a loop or a branch carries it."""
    if fixed(node) and node.elem == REAL:  # equal numbers would be one tensor
        node = low.point("add", node, low.zero())
    if node.elem == BOOL or (node.elem == INT and type.kind == "real"):
        node = low.point("to_real", node)
    axes = tuple(a for a in low.order if a in type.axes)
    return low.full(low.stretched(node, axes, shape))


def number_of(size: Dim, ticks: int) -> int:
    """A size when a segment has this many ticks."""
    if isinstance(size, int):
        return size
    assert isinstance(size, Poly)
    total = 0
    for monomial, coefficient in size.terms:
        power = sum(p for name, p in monomial if name == "ticks")
        assert power == sum(p for _, p in monomial), f"the size {size} has no value"
        total += int(coefficient) * ticks**power
    return total


def cheap(node: Node) -> bool:
    """Whether an expression is written again wherever it is used: a tensor, or nothing but numbers and places."""
    if isinstance(node, View):
        return cheap(node.arg)
    return isinstance(node, Held) or fixed(node)


def brief(node: Node) -> bool:
    """Whether it is less to compute an expression again where it is used than to store it: a few operations."""
    return cheap(node) or (simple(node) and work(node) <= AGAIN)


def _axis_sum(body: Body, instr: Instr, args: list[Node]) -> Node:
    (node,), axis, low = args, instr.attr("axis"), body.low
    if axis in node.axes:
        return low.reduce(node, (node.axes.index(axis),))
    return low.times(node, [low.sizes[axis]])


def _batch_mean(body: Body, _instr: Instr, args: list[Node]) -> Node:
    (node,), low = args, body.low
    if BATCH not in node.axes:
        return node
    total = low.reduce(low.point("to_real", node), (node.axes.index(BATCH),))
    size = low.sizes[BATCH]
    count = low.literal(size) if isinstance(size, int) else low.scalar(low.text.integer(size), INT)
    return low.point("div", total, count)


def _reduction(kind: str) -> Handler:
    def handler(body: Body, instr: Instr, args: list[Node]) -> Node:
        lead = len(args[0].axes)
        return body.low.reduce(args[0], [lead + d for d in instr.attr("dims")], kind)

    return handler


def _slice(body: Body, instr: Instr, args: list[Node]) -> Node:
    start, stop = body.dim(instr.attr("start")), body.dim(instr.attr("stop"))
    return cut(body.low, args[0], len(args[0].axes) + instr.attr("dim"), start, stop - start)


def _pad(body: Body, instr: Instr, args: list[Node]) -> Node:
    before, after = body.dim(instr.attr("before")), body.dim(instr.attr("after"))
    return pad(body.low, args[0], instr.attr("dim"), before, after) if before or after else args[0]


def _broadcast(body: Body, instr: Instr, args: list[Node]) -> Node:
    return body.low.stretched(args[0], args[0].axes, body.shape(instr.attr("shape")))


def _when(body: Body, instr: Instr, args: list[Node]) -> Node:
    new, old = args
    if implies(body.taken, instr.attr("clock")):
        return new
    return body.low.point("where", body.fires(instr.attr("clock")), new, old)


def _lane(body: Body, instr: Instr, args: list[Node]) -> Node:
    (node,), axis = args, instr.attr("axis")
    return pick(body.low, node, node.axes.index(axis), instr.attr("index")) if axis in node.axes else node


def _flag(instr: Instr, name: str) -> bool:
    return (name, True) in instr.attrs


def _segprod(body: Body, instr: Instr, args: list[Node]) -> Node:
    return time.matrix_products(body.low, args[0]) if instr.attr("matrix") else segprod(body.low, args[0])


TABLE: dict[str, Handler] = {
    "const": lambda b, i, a: b.low.literal(i.attr("value")),
    "iota": lambda b, i, a: b.low.counter(n=b.dim(i.attr("n"))),
    "einsum": lambda b, i, a: einsum(b.low, i.attr("spec"), a),
    "sum": _reduction("add"),
    "max": _reduction("max"),
    "cumsum": lambda b, i, a: time.cumsum(b.low, a[0], i.attr("dim"), _flag(i, "reverse")),
    "reshape": lambda b, i, a: reshape(b.low, a[0], b.shape(i.attr("shape"))),
    "broadcast": _broadcast,
    "concat": lambda b, i, a: join(b.low, a, i.attr("dim")),
    "slice": _slice,
    "pad": _pad,
    "take": lambda b, i, a: rows(b.low, a[0], a[1]),
    "scatter_add": lambda b, i, a: scatter_rows(b.low, a[0], a[1], b.dim(i.attr("n"))),
    "one_hot": lambda b, i, a: one_hot(b.low, a[0], b.dim(i.attr("n"))),
    "spread": lambda b, i, a: spread(b.low, a[0], i.attr("axis")),
    "collect": lambda b, i, a: collect(b.low, a[0], i.attr("axis"), b.dim(i.attr("size"))),
    "axis_sum": _axis_sum,
    "batch_mean": _batch_mean,
    "stop_grad": lambda b, i, a: a[0],
    "fixed": lambda b, i, a: a[0],
    "when": _when,
    "solve": lambda b, i, a: solve(b.low, a[0], a[1]),
    "lane": _lane,
    "solve_triangular": lambda b, i, a: solve_triangular(b.low, a[0], a[1], _flag(i, "transposed")),
    "segprod": _segprod,
    "cumprod": lambda b, i, a: cumprod(b.low, a[0], i.attr("reverse"), i.attr("exclusive")),
    "decay_gram": lambda b, i, a: decay_gram(b.low, *a),
    "decay_gram_grad": lambda b, i, a: decay_gram_grad(b.low, *a),
    "linear_scan": lambda b, i, a: time.linear_scan(b.low, a[0], a[1], _flag(i, "reverse")),
    "matrix_scan": lambda b, i, a: time.matrix_scan(b.low, a[0], a[1], _flag(i, "reverse")),
    "two_sided_scan": lambda b, i, a: time.two_sided_scan(b.low, a[0], a[1], a[2], _flag(i, "reverse")),
    "unfold": lambda b, i, a: time.unfold(b.low, a[0], i.attr("n")),
    "band": lambda b, i, a: time.band(b.low, a[0], i.attr("n")),
    "unband": lambda b, i, a: time.unband(b.low, a[0], i.attr("n")),
}
LEAVES = frozenset("input param state anchor clock given boundary cotangent cotangent_of".split())
SUPPORTED = frozenset(TABLE) | POINTWISE | LEAVES
__all__ = ["REAL", "SUPPORTED", "Body", "cheap", "number_of", "settled"]


def unknown(body: Sequence[Instr]) -> Any:
    """The first instruction that has no row here, or None."""
    return next((i for i in body if i.op not in SUPPORTED), None)
