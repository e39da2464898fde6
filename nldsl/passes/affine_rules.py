"""The affine domain as an abstract interpretation: what each operation makes of free, affine and other operands.

A product with a free value that adds dims is an outer product: its affine operand is given a name (a *node*), so that a
write stays a node times free factors however the program wrote it. What is not affine carries the place and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import ascii_letters
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
from nldsl.passes.affine_select import Select


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
    ) -> None:
        self.body = body
        self.usable = known  # values that may be used: those of the loop, and streams
        self.names = names
        self.windowed = windowed  # the lengths of the windows that a value is computed from
        self.given = len(body.instrs)
        self.sizes = Sizes()
        self.nodes: list[Node] = []
        self.select = Select(body, lambda number: self.nodes[number].affine, self.fresh)
        self.read_entries: dict[tuple[int, int], list[Affine]] = {}
        self.table: dict[str, Callable[[int, list[Abstract]], Abstract | None]] = {
            "neg": self.neg,
            "add": lambda v, args: total([self.affine(a) for a in args]),
            "sub": lambda v, args: total([self.affine(args[0]), scaled(self.affine(args[1]), -1.0)]),
            "mul": self.mul,
            "div": self.div,
            "where": self.where,
            "einsum": self.einsum,
            "take": self.take,
            "solve": self.solve,
            "sum": self.sum,
            "reshape": lambda v, args: reshaped(self.affine(args[0]), self.attr(v, "shape")),
            "broadcast": lambda v, args: broadcast_to(self.affine(args[0]), self.attr(v, "shape")),
        }

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

    def fresh(self, value: Affine) -> Term:
        """A new node as a term."""
        self.nodes.append(Node(value, -1))
        return self.source("node", len(self.nodes) - 1, value.shape).terms[0]

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
                if self._thinner(b, shape):
                    return multiplied(self.factored(a), b, self.shape(b), self.sizes)
        if instr.op == "div":
            top, bottom = instr.args
            factor = self.number(bottom)
            if factor:
                return scaled(self.factored(top), 1.0 / factor)
            if factor is None and self._thinner(bottom, shape):
                return multiplied(self.factored(top), self.inverse(bottom), self.shape(bottom), self.sizes)
        if instr.op == "einsum":
            inputs, output = ops.split_spec(instr.attr("spec"))
            outer = all(x in output for x in "".join(inputs)) and len(set(output)) == len(output)
            if outer and len(inputs) == 1:
                return self.known(self.einsum(value, [self.factored(instr.args[0])]))
            if outer or (len(set(output)) == len(output) and self._over_windows(value, inputs, output)):
                return self.outer(value)
        return None

    def _thinner(self, value: int, shape: tuple[Dim, ...]) -> bool:
        """Whether a factor has fewer dims than the product."""
        return sum(s != 1 for s in self.shape(value)) < sum(s != 1 for s in shape)

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
        return self.times(self.affine(top), self.inverse(bottom.value), self.body.instrs[value].args[0])

    def inverse(self, value: int) -> int:
        """One divided by a free value."""
        return self.body.emit("div", self.body.const(1.0), value)

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
        return self.summed(self.affine(args[0]), self.attr(value, "dims"))

    def summed(self, value: Affine, dims: tuple[int, ...]) -> Affine | None:
        """The sum over dims; over a small one of products of reads as a sum of terms, each with a read of its own."""
        for dim in sorted(dims, reverse=True):
            if any(self._adds(t, dim, value) for t in value.terms):
                entries = self.select.entries(value, dim)
                if entries is not None:
                    rest = tuple(d - (d > dim) for d in dims if d != dim)
                    return self.summed(total(entries), rest) if rest else total(entries)
        return summed(value, dims)

    @staticmethod
    def _adds(term: Term, dim: int, value: Affine) -> bool:
        """Whether a term is a node of which a dim is one, times factors that add a dim which is longer."""
        letter, size = term.out[dim], value.shape[dim]
        if term.source is None or term.source.kind != "node" or letter is None or letter not in term.letters:
            return False
        lengths = [s for x, s in zip(term.out, value.shape, strict=True) if x is not None and x not in term.letters]
        return any(isinstance(s, int) and isinstance(size, int) and s > size for s in lengths)

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
        return self.product(operand, lead, frees, output, origin)

    def take(self, value: int, args: list[Abstract]) -> Abstract | None:
        """Rows of an affine table are its product with a 1 in the place of each."""
        table, picks = args
        if not isinstance(picks, Free):
            return Other(value, "an index that depends on the state")
        rows = self.body.emit("one_hot", picks.value, n=self.affine(table).shape[0])
        count, rank = len(self.shape(picks.value)), len(self.affine(table).shape)
        places, x, rest = ascii_letters[:count], ascii_letters[count], ascii_letters[count + 1 : count + rank]
        origin = self.body.instrs[value].args[0]
        return self.product(self.affine(table), x + rest, [(places + x, rows)], places + rest, origin)

    def solve(self, value: int, args: list[Abstract]) -> Abstract:
        if isinstance(args[0], Free):
            return Other(value, "the solution of a system is linear, but only as a product with the inverse matrix")
        return Other(value, "a system whose matrix depends on the state")

    def product(
        self, operand: Affine, lead: str, frees: list[tuple[str, int]], output: str, origin: int
    ) -> Affine | None:
        """A product of free values with an affine one, whose dims are ``lead``; ``origin``: the value that it is."""
        added = [x for x in output if x not in lead]
        dropped = [x for x in lead if x not in output]
        if not added:
            return self.contract(operand, lead, frees, output)
        if not dropped:
            return self.contract(self.named(operand, origin), lead, frees, output)
        if any(set(letters) & set(dropped) and set(letters) & set(added) for letters, _ in frees):
            apart = self.one_by_one(operand, lead, dropped, frees, output, origin)
            if apart is not None:
                return apart
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

    def one_by_one(
        self, operand: Affine, lead: str, dropped: list[str], frees: list[tuple[str, int]], output: str, origin: int
    ) -> Affine | None:
        """A product that sums over several reads and adds a longer dim, as a sum of outer products of one read each."""
        if len(dropped) != 1 or lead.count(dropped[0]) != 1:
            return None
        x = dropped[0]
        dim = lead.index(x)
        size, rest = operand.shape[dim], lead[:dim] + lead[dim + 1 :]
        lengths = [n for letters, v in frees for y, n in zip(letters, self.shape(v), strict=True) if y not in lead]
        if not isinstance(size, int) or all(isinstance(n, int) and n <= size for n in lengths):
            return None
        if (origin, dim) not in self.read_entries:
            entries = self.select.entries(operand, dim)
            if entries is None:
                return None
            self.read_entries[origin, dim] = [self.named(e, -1) for e in entries]
        parts = []
        for at, entry in enumerate(self.read_entries[origin, dim]):
            rows = []
            for letters, free in frees:
                if letters.count(x) > 1:
                    return None
                place = letters.find(x)
                row = free if place < 0 else self.select.row(free, place, at)
                rows.append((letters.replace(x, ""), row))
            part = self.contract(
                Affine(entry.shape, tuple(refreshed(t, self.sizes) for t in entry.terms)), rest, rows, output
            )
            if part is None:
                return None
            parts.append(part)
        return total(parts)

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
