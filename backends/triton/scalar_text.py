"""Pointwise operations of a program as lines of a kernel, written as a person would: what is used once stands where it
is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nldsl.backends.triton.names import Names
from nldsl.backends.triton.pointwise import BINARY, LOGICAL, UNARY
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.ir.ops import COMPARISONS
from nldsl.ir.program import Instr

COMPARE, SUM, PRODUCT, ATOM = range(4)
LEVELS = {"add": SUM, "sub": SUM, "mul": PRODUCT, "div": PRODUCT, "neg": PRODUCT}
TWICE = frozenset({"sign", "pow"})  # their text has an operand more than once
LONGEST = 80


@dataclass(frozen=True)
class Term:
    """An expression: its text, how tightly it binds, ``real``, ``int`` or ``bool``; ``number`` if it is a literal."""

    text: str
    level: int = ATOM
    kind: str = "real"
    number: float | None = None

    def at(self, level: int) -> str:
        return self.text if self.level >= level else f"({self.text})"


def literal(value: float) -> Term:
    """A number as Triton reads it."""
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        return Term(f'float("{value}")', ATOM, "real", value)
    return Term(repr(value), ATOM if value >= 0 else PRODUCT, "real", value)


@dataclass
class Lines:
    """Lines of a function that computes values. ``real`` is the type of numbers, as code."""

    names: Names
    real: str = "REAL"
    lines: list[str] = field(default_factory=list)

    def named(self, term: Term, hint: str) -> Term:
        """The value as a variable."""
        if term.text.isidentifier() or term.number is not None:
            return term
        name = self.names.new(hint or "x")
        self.lines.append(f"{name} = {term.text}")
        return Term(name, ATOM, term.kind)

    def value(self, instr: Instr, args: Iterable[Term], fires: str = "") -> Term:
        """A pointwise operation; ``fires`` is the flag of the clock of a ``when``."""
        terms = list(args)
        if instr.op == "when":
            new, old = (self._real(t) for t in terms)
            return Term(f"tl.where({fires} != 0.0, {self._typed(new)}, {self._typed(old)})")
        return self.operation(instr.op, terms, instr.name)

    def operation(self, op: str, terms: list[Term], hint: str = "") -> Term:
        if op == "where":
            condition = terms[0].text if terms[0].kind == "bool" else f"{terms[0].at(SUM)} != 0"
            left, right = (self._typed(self._real(t)) for t in terms[1:])
            return Term(f"tl.where({condition}, {left}, {right})")
        if op in LOGICAL:
            flags = [t.at(ATOM) if t.kind == "bool" else f"({t.at(SUM)} != 0)" for t in terms]
            if op == "logical_not":
                return Term(f"{flags[0]} == 0", COMPARE, "bool")
            return Term(BINARY[op].format(*flags), COMPARE, "bool")
        terms = [self._real(t) for t in terms]
        if op in TWICE:
            terms = [self.named(t, "base") for t in terms]
        if op == "pow":
            return self._power(*terms)
        if op == "to_real":
            return terms[0]
        if op in COMPARISONS:
            return Term(BINARY[op].format(*(t.at(SUM) for t in terms)), COMPARE, "bool")
        if op in LEVELS:
            level = LEVELS[op]
            inner = [t.at(level) if n == 0 and op != "neg" else t.at(level + 1) for n, t in enumerate(terms)]
            return Term((BINARY | UNARY)[op].format(*inner), level)
        if op in UNARY:
            text = UNARY[op].format(*(t.at(ATOM) if op == "sigmoid" else self._typed(t) for t in terms))
            if op == "sign":  # its literals would make it single precision
                text = f"{text}.to({self.real})"
            return Term(text, PRODUCT if op == "sigmoid" else ATOM)
        if op in BINARY:
            return Term(BINARY[op].format(*(self._typed(t) for t in terms)))
        raise UnsupportedError(f"`{op}` has no form in a kernel")

    def _real(self, term: Term) -> Term:
        return term if term.kind == "real" else Term(f"({term.text}).to({self.real})")

    def _typed(self, term: Term) -> str:
        """An operand of a function, which takes a literal for a number in single precision."""
        return term.text if term.number is None else f"tl.full((), {term.text}, {self.real})"

    def _power(self, base: Term, exponent: Term) -> Term:
        number = exponent.number
        if number == 0.5:
            return Term(f"tl.sqrt({self._typed(base)})")
        if number == -0.5:
            return Term(f"tl.rsqrt({self._typed(base)})")
        if number is not None and number in (1.0, 2.0, 3.0, 4.0):
            return Term(" * ".join([base.at(ATOM)] * int(number)), PRODUCT)
        return Term(f"power({self._typed(base)}, {self._typed(exponent)})")


def worth_a_name(term: Term, uses: int, named: bool) -> bool:
    """Whether a value gets a line of its own: it is used more than once, is long, or has a name in the program."""
    return uses > 1 or len(term.text) > LONGEST or (named and term.level < ATOM)
