"""Printing a term: where parentheses, dots and fraction bars go. How each is spelled is the notation's business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from fractions import Fraction
from itertools import groupby

from nldsl.explain.terms import (
    Call,
    Cases,
    Chain,
    Compare,
    Contraction,
    Diag,
    Hadamard,
    Norm2,
    Num,
    Number,
    Part,
    Power,
    Product,
    Sum,
    Sym,
    Term,
    Transpose,
)

_LARGEST_DENOMINATOR = 100_000
SUM, PRODUCT, CHAIN, POSTFIX, ATOM = range(5)


class Printer(ABC):
    """Terms to text; a subclass is one notation. ``show`` returns the text and how tightly it binds."""

    dot = ""  # between scalar factors
    ring = ""  # between elementwise factors
    space = ""  # between factors of a matrix product
    minus = ""
    transposed = ""  # the exponent of a transpose

    @abstractmethod
    def number(self, value: Number) -> str: ...

    @abstractmethod
    def symbol(self, sym: Sym) -> str: ...

    @abstractmethod
    def group(self, text: str) -> str: ...

    @abstractmethod
    def fraction(self, top: str, bottom: str, tight: int) -> tuple[str, int]: ...

    @abstractmethod
    def raised(self, base: str, exponent: str) -> str: ...

    @abstractmethod
    def root(self, text: str) -> str: ...

    @abstractmethod
    def norm(self, text: str) -> str: ...

    @abstractmethod
    def call(self, function: str, args: list[str]) -> str: ...

    @abstractmethod
    def compare(self, relation: str, left: str, right: str) -> str: ...

    @abstractmethod
    def cases(self, rows: list[tuple[str, str]]) -> str: ...

    @abstractmethod
    def part(self, of: str, index: str) -> str: ...

    @abstractmethod
    def contraction(self, spec: str, args: list[str]) -> str: ...

    def term(self, term: Term) -> str:
        """The text of a whole right-hand side."""
        return self.show(term)[0]

    def at_least(self, term: Term, level: int) -> str:
        """The text of a term inside something that binds at ``level``."""
        text, tight = self.show(term)
        return text if tight >= level else self.group(text)

    def show(self, term: Term) -> tuple[str, int]:
        """The text of a term and its level."""
        if isinstance(term, Num):
            return self.number(term.value), SUM if term.value < 0 else ATOM
        if isinstance(term, Sym):
            return self.symbol(term), ATOM
        if isinstance(term, Sum):
            return self.sum(term), SUM
        if isinstance(term, Product):
            return self.product(term)
        if isinstance(term, Chain):
            return self.space.join(self.repeated(f, len(list(n))) for f, n in groupby(term.factors)), CHAIN
        if isinstance(term, Hadamard):
            return self.quotient(1, term.factors, self.ring)
        if isinstance(term, Power):
            return self.power(term)
        if isinstance(term, Transpose):
            return self.raised(self.at_least(term.of, ATOM), self.transposed), POSTFIX
        if isinstance(term, Norm2):
            return self.raised(self.norm(self.term(term.of)), self.number(2)), POSTFIX
        if isinstance(term, Diag):
            return self.call("diag", [self.term(term.of)]), ATOM
        if isinstance(term, Call) and term.function == "inverse":
            return self.raised(self.at_least(term.args[0], ATOM), self.number(-1)), POSTFIX
        return self.compound(term), ATOM

    def repeated(self, factor: Term, count: int) -> str:
        """A factor of a matrix product, as a power if it stands there several times."""
        if count == 1:
            return self.at_least(factor, POSTFIX)
        return self.raised(self.at_least(factor, ATOM), self.number(count))

    def compound(self, term: Term) -> str:
        """The terms whose parts stand between brackets of their own."""
        if isinstance(term, Call):
            return self.call(term.function, [*(self.term(a) for a in term.args), *term.options])
        if isinstance(term, Compare):
            return self.compare(term.relation, self.term(term.left), self.term(term.right))
        if isinstance(term, Cases):
            return self.cases([(self.condition(c), self.term(value)) for c, value in term.rows])
        if isinstance(term, Part):
            index = ", ".join(self.term(t) for t in term.by) or term.index
            return self.part(self.at_least(term.of, ATOM), index)
        assert isinstance(term, Contraction), type(term)
        return self.contraction(term.spec, [self.at_least(a, ATOM) for a in term.args])

    def condition(self, term: Term) -> str:
        """When a row of cases holds."""
        return self.term(term)

    def sum(self, term: Sum) -> str:
        """Terms with their signs between them."""
        return "".join(self.summands(term))

    def summands(self, term: Sum) -> list[str]:
        """The pieces of a sum, each with its sign in front: the places where a long line may be broken."""
        pieces: list[str] = []
        for inner in term.terms:
            text = self.at_least(inner, PRODUCT) if not _negative(inner) else self.term(inner)
            if not pieces:
                pieces.append(text)
            elif text.startswith(self.minus):
                pieces.append(f" {self.minus} " + text[len(self.minus) :].lstrip())
            else:
                pieces.append(" + " + text)
        return pieces

    def product(self, term: Product) -> tuple[str, int]:
        """Number, scalars, core; reciprocal scalars go under one fraction bar."""
        factors = term.scalars + (() if term.core is None else (term.core,))
        if isinstance(term.core, Hadamard) and not term.scalars:
            return self.quotient(term.coefficient, term.core.factors, self.ring)
        return self.quotient(term.coefficient, factors, self.dot)

    def quotient(self, coefficient: Number, factors: tuple[Term, ...], joint: str) -> tuple[str, int]:
        """A product of factors, those with negative exponents below a bar."""
        above = [f for f in factors if not _reciprocal(f)]
        below = [_inverted(f) for f in factors if _reciprocal(f)]
        sign = self.minus if coefficient < 0 else ""
        number = abs(coefficient)
        above_one, below_one = _fraction(number, bool(below))
        if below_one != 1:
            below.insert(0, Num((), below_one))
            number = above_one
        texts = [self.at_least(f, CHAIN if i == len(above) - 1 else POSTFIX) for i, f in enumerate(above)]
        if joint == self.ring:
            texts = [self.at_least(f, CHAIN) for f in above]
        top = joint.join(texts)
        if number != 1 or not texts:
            top = self.number(number) + (self.dot + top if texts else "")
        if not below:
            return sign + top, PRODUCT if len(texts) > 1 or number != 1 or sign else CHAIN
        single = len(below) == 1
        bottom = self.term(below[0]) if single else joint.join(self.at_least(f, POSTFIX) for f in below)
        tight = self.show(below[0])[1] if single else PRODUCT
        text, level = self.fraction(top, bottom, tight)
        return sign + text, PRODUCT if sign else level

    def power(self, term: Power) -> tuple[str, int]:
        """Roots, reciprocals and powers."""
        if not isinstance(term.exponent, Num):
            return self.raised(self.at_least(term.base, ATOM), self.term(term.exponent)), POSTFIX
        if term.exponent.value < 0:
            return self.quotient(1, (term,), self.dot)
        if term.exponent.value == 0.5:
            if isinstance(term.base, Norm2):
                return self.norm(self.term(term.base.of)), ATOM
            return self.root(self.term(term.base)), ATOM
        return self.raised(self.at_least(term.base, ATOM), self.number(term.exponent.value)), POSTFIX


def _fraction(number: Number, barred: bool) -> tuple[Number, int]:
    """A number that is shorter as a fraction, ``0.0833333333333 = 1 / 12``, or one that joins a fraction bar."""
    if isinstance(number, int):
        return number, 1
    found = Fraction(number).limit_denominator(_LARGEST_DENOMINATOR)
    exact = abs(float(found) - number) <= 1e-15 * abs(number) and found.numerator <= 9 and found.denominator > 1
    worth = barred if found.numerator == 1 else False
    return (found.numerator, found.denominator) if exact and (worth or len(repr(number)) > 7) else (number, 1)


def _negative(term: Term) -> bool:
    return (isinstance(term, Product) and term.coefficient < 0) or (isinstance(term, Num) and term.value < 0)


def _reciprocal(term: Term) -> bool:
    return isinstance(term, Power) and isinstance(term.exponent, Num) and term.exponent.value < 0


def _inverted(term: Term) -> Term:
    assert isinstance(term, Power) and isinstance(term.exponent, Num)
    exponent = -term.exponent.value
    return term.base if exponent == 1 else replace(term, exponent=Num((), exponent))
