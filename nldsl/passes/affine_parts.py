"""Operations on parts of values in the affine domain: concat, slice, and mapped axes as dims.

They are linear too, but as maps of whole states (matrices of zeros and ones): only where nothing else helps.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from nldsl.dims import Dim
from nldsl.ir.build import Builder
from nldsl.passes.affine import Affine, Factor, Source, Term, total
from nldsl.passes.affine_rules import Abstract, Free, Node, Rules


class PartRules(Rules):
    """The rules of ``Rules``, and those for parts. ``lengths``: of mapped axes."""

    def __init__(
        self,
        body: Builder,
        known: frozenset[int],
        names: frozenset[int] = frozenset(),
        windowed: Mapping[int, frozenset[int]] = MappingProxyType({}),
        lengths: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        super().__init__(body, known, names, windowed)
        self.lengths = lengths
        self.table |= {"concat": self.concat, "slice": self.slice}
        self.table |= {"collect": self.collect, "spread": self.spread, "axis_sum": self.axis_sum}

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
        return None if whole is None else self.summed(whole, (0,))

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
