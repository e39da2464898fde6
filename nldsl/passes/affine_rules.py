"""The affine domain as an abstract interpretation: what each operation makes of free, affine and other operands.

A product with a free value that adds dims is an outer product: its affine operand is given a name (a *node*), so that a
write stays a node times free factors however the program wrote it. What is not affine carries the place and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.passes.affine import (
    Affine,
    Factor,
    Letters,
    Sizes,
    Source,
    Term,
    aligned,
    broadcast_to,
    multiplied,
    refreshed,
    reshaped,
    scaled,
    stretches,
    substitute,
    summed,
    total,
)


@dataclass(frozen=True)
class Free:
    """Depends on no state of the recurrence within the tick."""

    value: int


@dataclass(frozen=True)
class Other:
    """Not affine: ``value`` is the first instruction that was not, ``why`` says it in words."""

    value: int
    why: str


@dataclass(frozen=True)
class Node:
    """A named affine value. ``value`` is the per-token value that it is."""

    affine: Affine
    value: int


Abstract = Free | Affine | Other


class Rules:
    """The transfer functions. ``body`` is the per-token body; free values that terms need are appended to it."""

    def __init__(
        self,
        body: Builder,
        known: frozenset[int],
        names: frozenset[int] = frozenset(),
        windowed: Mapping[int, frozenset[int]] = MappingProxyType({}),
        parts: bool = False,
        lengths: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.body = body
        self.usable = known  # values that may be used: those of the loop, and streams
        self.names = names
        self.lengths = lengths  # of mapped axes
        self.windowed = windowed  # the lengths of the windows that a value is computed from
        self.given = len(body.instrs)
        self.sizes = Sizes()
        self.nodes: list[Node] = []
        self.table: dict[str, Callable[[int, list[Abstract]], Abstract | None]] = {
            "neg": self.neg,
            "add": lambda v, args: total([self.affine(a) for a in args]),
            "sub": lambda v, args: total([self.affine(args[0]), scaled(self.affine(args[1]), -1.0)]),
            "mul": self.mul,
            "div": self.div,
            "where": self.where,
            "einsum": self.einsum,
            "sum": self.sum,
            "reshape": lambda v, args: reshaped(self.affine(args[0]), self.attr(v, "shape")),
            "broadcast": lambda v, args: broadcast_to(self.affine(args[0]), self.attr(v, "shape")),
        }

        if parts:
            self.table |= {"concat": self.concat, "slice": self.slice}
            self.table |= {"collect": self.collect, "spread": self.spread, "axis_sum": self.axis_sum}

    def apply(self, value: int, args: list[Abstract]) -> Abstract:
        """What the instruction ``value`` is, some of whose operands are not free."""
        for arg in args:
            if isinstance(arg, Other):
                return arg
        instr = self.body.instrs[value]
        rule = self.table.get(instr.op)
        if rule is None:
            return Other(value, f"{instr.op} is not linear")
        return rule(value, args) or Other(value, f"this {instr.op} mixes dims in a way that is not a contraction")

    def attr(self, value: int, key: str) -> Any:
        return self.body.instrs[value].attr(key)

    def shape(self, value: int) -> tuple[Dim, ...]:
        return self.body.type(value).shape

    def number(self, value: int) -> float | None:
        instr = self.body.instrs[value]
        return float(instr.attr("value")) if instr.op == "const" else None

    def source(self, kind: str, key: str | int, shape: tuple[Dim, ...]) -> Affine:
        letters = self.sizes.letters(shape)
        return Affine(shape, (Term(letters, (), Source(kind, key), letters),))

    def named(self, value: Affine, origin: int) -> Affine:
        """``value`` as one term without factors, a node if need be. ``origin`` is the per-token value that it is."""
        if len(value.terms) == 1:
            (term,) = value.terms
            if term.source is not None and term.source.kind == "node" and not term.contracted():
                return value
        for number, node in enumerate(self.nodes):
            if origin >= 0 and node.value == origin:
                return self.source("node", number, value.shape)
        self.nodes.append(Node(value, origin))
        return self.source("node", len(self.nodes) - 1, value.shape)

    def reads(self) -> frozenset[int]:
        """The values with a node that are reads of a state, not just states."""
        return frozenset(n.value for n in self.nodes if n.value >= 0 and any(t.contracted() for t in n.affine.terms))

    def renamed(self, value: int, known: Abstract) -> Abstract:
        """A value in ``names`` as its node."""
        return self.named(known, value) if value in self.names and isinstance(known, Affine) else known

    def affine(self, value: Abstract) -> Affine:
        """Any operand as a sum of terms; a free one is taken apart into outer products."""
        if isinstance(value, Affine):
            return Affine(value.shape, tuple(refreshed(t, self.sizes) for t in value.terms))
        assert isinstance(value, Free)
        return self.factored(value.value)

    # ---- free values as sums of outer products

    def factored(self, value: int, limit: int = 8) -> Affine:
        found = self._factored(value)
        if found is None or len(found.terms) > limit:
            return self.dense(value)
        return found

    def dense(self, value: int) -> Affine:
        shape = self.shape(value)
        letters = self.sizes.letters(shape)
        factors = (Factor(value, letters),) if shape or self.number(value) is None else ()
        number = self.number(value)
        return Affine(shape, (Term(letters, factors, scale=1.0 if number is None else number),))

    def _factored(self, value: int) -> Affine | None:
        shape, instr = self.shape(value), self.body.instrs[value]
        if any(a not in self.usable and a < self.given for a in instr.args):
            return None
        number = self.number(value)
        if number is not None:
            return Affine(shape, (Term((), scale=number),)) if number else Affine(shape, ())
        if sum(size != 1 for size in shape) < 2:
            return None
        if instr.op in ("neg", "add", "sub", "reshape", "broadcast"):
            return self.known(self.table[instr.op](value, [Free(a) for a in instr.args]))
        if instr.op == "mul":
            left, right = instr.args
            for a, b in ((left, right), (right, left)):
                factor = self.number(b)
                if factor is not None:
                    return scaled(self.factored(a), factor)
                if sum(s != 1 for s in self.shape(b)) < sum(s != 1 for s in shape):
                    return multiplied(self.factored(a), b, self.shape(b), self.sizes)
        if instr.op == "einsum":
            inputs, output = ops.split_spec(instr.attr("spec"))
            outer = all(x in output for x in "".join(inputs)) and len(set(output)) == len(output)
            if outer and len(inputs) == 1:
                return self.known(self.einsum(value, [self.factored(instr.args[0])]))
            if outer or (len(set(output)) == len(output) and self._over_windows(value, inputs, output)):
                return self.outer(value)
        return None

    def _over_windows(self, value: int, inputs: list[str], output: str) -> bool:
        """Whether a product sums over places of windows alone: kept as a product, it is one of rows in a segment."""
        args = self.body.instrs[value].args
        if len(inputs) < 2 or any(len(set(x)) != len(x) for x in inputs):
            return False
        for spec, arg in zip(inputs, args, strict=True):
            for x, size in zip(spec, self.shape(arg), strict=True):
                if x not in output and size not in self.windowed.get(arg, ()):
                    return False
        return True

    @staticmethod
    def known(value: Abstract | None) -> Affine | None:
        return value if isinstance(value, Affine) else None

    def outer(self, value: int) -> Affine:
        instr = self.body.instrs[value]
        inputs, output = ops.split_spec(instr.attr("spec"))
        letters = dict(zip(output, self.sizes.letters(self.shape(value)), strict=True))
        for spec, arg in zip(inputs, instr.args, strict=True):
            for x, size in zip(spec, self.shape(arg), strict=True):
                if x not in letters:
                    letters[x] = self.sizes.fresh(size)
        factors = tuple(Factor(a, tuple(letters[x] for x in spec)) for a, spec in zip(instr.args, inputs, strict=True))
        return Affine(self.shape(value), (Term(tuple(letters[x] for x in output), factors),))

    # ---- operations

    def neg(self, value: int, args: list[Abstract]) -> Abstract:
        return scaled(self.affine(args[0]), -1.0)

    def mul(self, value: int, args: list[Abstract]) -> Abstract:
        left, right = args
        if isinstance(left, Affine) and isinstance(right, Affine):
            return Other(value, "a product of two values that depend on the state")
        position = 0 if isinstance(left, Affine) else 1
        free = args[1 - position]
        assert isinstance(free, Free)
        return self.times(self.affine(args[position]), free.value, self.body.instrs[value].args[position])

    def times(self, value: Affine, free: int, origin: int) -> Affine:
        number = self.number(free)
        if number is not None:
            return scaled(value, number)
        if stretches(value, self.shape(free)):
            value = self.named(value, origin)
        return multiplied(value, free, self.shape(free), self.sizes)

    def div(self, value: int, args: list[Abstract]) -> Abstract:
        top, bottom = args
        if not isinstance(bottom, Free):
            return Other(value, "a division by a value that depends on the state")
        inverse = self.body.emit("div", self.body.const(1.0), bottom.value)
        return self.times(self.affine(top), inverse, self.body.instrs[value].args[0])

    def where(self, value: int, args: list[Abstract], choose: tuple[int, ...] = ()) -> Abstract:
        """``choose`` are the condition and the two sides, if they are not the operands of ``value``."""
        if not isinstance(args[0], Free):
            return Other(value, "a choice that depends on the state")
        one, zero = self.body.const(1.0), self.body.const(0.0)
        _, left, right = choose or self.body.instrs[value].args
        chosen = self.body.emit("where", args[0].value, one, zero)
        rest = self.body.emit("where", args[0].value, zero, one)
        return total([self.times(self.affine(args[1]), chosen, left), self.times(self.affine(args[2]), rest, right)])

    def sum(self, value: int, args: list[Abstract]) -> Abstract | None:
        return summed(self.affine(args[0]), self.attr(value, "dims"))

    def concat(self, value: int, args: list[Abstract]) -> Abstract | None:
        """A sum of operands, each put in its place by a matrix of zeros and ones; ``slice`` is the same back."""
        dim, size, at = self.attr(value, "dim"), self.shape(value)[self.attr(value, "dim")], 0
        parts: list[Affine] = []
        for arg, operand in zip(args, self.body.instrs[value].args, strict=True):
            own = self.shape(operand)[dim]
            if not isinstance(own, int) or not isinstance(size, int):
                return None
            if isinstance(arg, Free):
                part: Affine | None = self.dense(
                    self.body.emit("pad", arg.value, dim=dim, before=at, after=size - at - own)
                )
            else:
                part = self.moved(self.affine(arg), dim, at, size, own)
            if part is None:
                return None
            parts.append(part)
            at += own
        return total(parts)

    def slice(self, value: int, args: list[Abstract]) -> Abstract | None:
        dim, start, stop = (self.attr(value, key) for key in ("dim", "start", "stop"))
        if not isinstance(start, int) or not isinstance(stop, int):
            return None
        operand = self.affine(args[0])
        size = operand.shape[dim]
        if not isinstance(size, int):
            return None
        return self.moved(operand, dim, -start, stop - start, size)

    def collect(self, value: int, args: list[Abstract]) -> Abstract | None:
        """A mapped axis as the first dim: one letter for all factors that have the axis."""
        axis, size = self.attr(value, "axis"), self.attr(value, "size")
        return self.collected(self.affine(args[0]), axis, size)

    def collected(self, value: Affine, axis: str, size: Dim) -> Affine | None:
        terms = []
        for term in value.terms:
            letter = self.sizes.fresh(size)
            factors, found = [], False
            for factor in term.factors:
                if axis in self.body.type(factor.value).axes:
                    whole = self.body.emit("collect", factor.value, axis=axis, size=size)
                    factor, found = Factor(whole, (letter, *factor.letters)), True
                factors.append(factor)
            source, letters = term.source, term.letters
            if source is not None and source.kind == "node":
                assert isinstance(source.key, int)
                node = self.nodes[source.key]
                if self.mapped(node.affine, axis):
                    inner = self.collected(node.affine, axis, size)
                    if inner is None:
                        return None
                    self.nodes.append(Node(inner, -1))
                    source, letters, found = Source("node", len(self.nodes) - 1), (letter, *letters), True
            out = (letter if found else None, *term.out)
            terms.append(Term(out, tuple(factors), source, letters, term.scale))
        return Affine((size, *value.shape), tuple(terms))

    def mapped(self, value: Affine, axis: str) -> bool:
        """Whether a factor of the value, or of a node in it, has the axis."""
        for term in value.terms:
            if any(axis in self.body.type(f.value).axes for f in term.factors):
                return True
            if term.source is not None and term.source.kind == "node":
                assert isinstance(term.source.key, int)
                if self.mapped(self.nodes[term.source.key].affine, axis):
                    return True
        return False

    def spread(self, value: int, args: list[Abstract]) -> Abstract | None:
        """The first dim as a mapped axis, where it is a dim of factors alone."""
        axis, terms = self.attr(value, "axis"), []
        operand = self.affine(args[0])
        if self.mapped(operand, axis):
            return None
        for term in operand.terms:
            letter = term.out[0]
            if letter is None or letter in term.letters or letter in term.out[1:]:
                return None
            factors = []
            for factor in term.factors:
                if letter in factor.letters:
                    at = factor.letters.index(letter)
                    names = "abcdefghijklm"[: len(factor.letters)]
                    front = names[at] + names[:at] + names[at + 1 :]
                    moved = self.body.emit("einsum", factor.value, spec=f"{names}->{front}") if at else factor.value
                    rest = (*factor.letters[:at], *factor.letters[at + 1 :])
                    factor = Factor(self.body.emit("spread", moved, axis=axis), rest)
                factors.append(factor)
            terms.append(Term(term.out[1:], tuple(factors), term.source, term.letters, term.scale))
        return Affine(operand.shape[1:], tuple(terms))

    def axis_sum(self, value: int, args: list[Abstract]) -> Abstract | None:
        axis, operand = self.attr(value, "axis"), self.affine(args[0])
        if axis not in self.lengths:
            return None
        whole = self.collected(operand, axis, self.lengths[axis])
        return None if whole is None else summed(whole, (0,))

    def moved(self, value: Affine, dim: int, by: int, size: int, own: int) -> Affine | None:
        """Entry i of ``own`` along a dim as entry i + ``by`` of ``size``, which are more, or fewer if ``by`` < 0."""
        one = self.body.emit("to_real", self.body.emit("one_hot", self.body.emit("iota", n=own), n=own))
        if by >= 0:
            one = self.body.emit("pad", one, dim=1, before=by, after=size - own - by)
        else:
            one = self.body.emit("slice", one, dim=1, start=-by, stop=size - by)
        lead = "abcdefghijklm"[: len(value.shape)]
        output = lead[:dim] + "z" + lead[dim + 1 :]
        return self.contract(value, lead, [(lead[dim] + "z", one)], output)

    def einsum(self, value: int, args: list[Abstract]) -> Abstract | None:
        positions = [n for n, a in enumerate(args) if isinstance(a, Affine)]
        if len(positions) > 1:
            return Other(value, "a product of two values that depend on the state")
        inputs, output = ops.split_spec(self.attr(value, "spec"))
        (place,) = positions
        lead = inputs[place]
        frees = [
            (letters, a.value)
            for n, (letters, a) in enumerate(zip(inputs, args, strict=True))
            if n != place and isinstance(a, Free)
        ]
        operand, origin = self.affine(args[place]), self.body.instrs[value].args[place]
        added = [x for x in output if x not in lead]
        dropped = [x for x in lead if x not in output]
        if not added:
            return self.contract(operand, lead, frees, output)
        if not dropped:
            return self.contract(self.named(operand, origin), lead, frees, output)
        if any(set(letters) & set(dropped) and set(letters) & set(added) for letters, _ in frees):
            return self.contract(operand, lead, frees, output)  # several reads at once: a matrix of queries
        inner = [f for f in frees if not set(f[0]) & set(added)]
        outer = [f for f in frees if set(f[0]) & set(added)]
        kept = "".join(x for x in lead if x not in dropped)
        read = self.contract(operand, lead, inner, kept)
        if read is None:
            return None
        self.nodes.append(Node(read, -1))
        node = self.source("node", len(self.nodes) - 1, read.shape)
        return self.contract(node, kept, outer, output)

    def contract(self, operand: Affine, lead: str, frees: list[tuple[str, int]], output: str) -> Affine | None:
        """``einsum`` with one affine operand, whose dims are ``lead``."""
        size: dict[str, Dim] = dict(zip(lead, operand.shape, strict=True))
        for letters, free in frees:
            size.update(zip(letters, self.shape(free), strict=True))
        terms = []
        for given in operand.terms:
            term = given
            names: dict[str, int | None] = {}
            for x, letter in zip(lead, given.out, strict=True):
                known = names.get(x)
                if known is not None and letter is not None and known != letter:
                    term = substitute(term, {letter: known})
                elif known is None:
                    names[x] = letter
            for letters, _ in frees:
                for x in letters:
                    if names.get(x) is None and size[x] != 1:
                        names[x] = self.sizes.fresh(size[x])
            scale = term.scale
            for x in set(lead) - set(output):
                if names[x] is None and size[x] != 1:
                    constant = size[x]
                    if not isinstance(constant, int):
                        return None
                    scale *= constant
            factors = tuple(Factor(free, _letters(letters, names, self.shape(free))) for letters, free in frees)
            out = tuple(names.get(x) for x in output)
            terms.append(Term(out, (*term.factors, *factors), term.source, term.letters, scale))
        return Affine(tuple(size[x] for x in output), tuple(terms))


def _letters(letters: str, names: dict[str, int | None], shape: tuple[Dim, ...]) -> Letters:
    return tuple(None if size == 1 else names[x] for x, size in zip(letters, shape, strict=True))


def identity(term: Term, rank: int) -> bool:
    """Whether the term is its source, dim by dim, times factors on those dims."""
    return aligned(term, rank).out == term.letters and not term.expanded()
