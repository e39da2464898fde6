"""Words of printed IR, and the values that occur in it: sizes, numbers, names, types."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from nldsl.dims import Dim, Poly, divide, symbol
from nldsl.ir.types import Clock, Type

MAX_DEPTH = 32
_OPAQUE = ("//", "%", "/")
_WORD = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<special>\#-?(?:inf|nan))|(?P<float>\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+))
    |(?P<int>\d+)|(?P<value>%\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:[.@][A-Za-z0-9_]+)*)
    |(?P<mark>//|[-()\[\]{}=,:@+*^/%]))""",
    re.VERBOSE,
)


class ParseError(Exception):
    """Text that is not printed IR; says in which line."""


@dataclass(frozen=True)
class Word:
    kind: str
    text: str
    start: int
    end: int


class Line:
    """The words of one line, read from left to right."""

    def __init__(self, text: str, number: int) -> None:
        self.text = text
        self.row = number
        self.place = 0
        self.words: list[Word] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _WORD.match(text, at)
            if match is None:
                raise ParseError(f"line {number}: no word at {text[at : at + 20]!r}")
            kind = str(match.lastgroup)
            self.words.append(Word(kind, match[kind], match.start(kind), match.end(kind)))
            at = match.end()

    def fail(self, wanted: str) -> ParseError:
        found = self.words[self.place].text if self.place < len(self.words) else "the end of the line"
        return ParseError(f"line {self.row}: expected {wanted}, found {found}")

    def peek(self, ahead: int = 0) -> Word | None:
        return self.words[self.place + ahead] if self.place + ahead < len(self.words) else None

    def at(self, text: str) -> bool:
        word = self.peek()
        return word is not None and word.kind in ("mark", "name") and word.text == text

    def take(self, text: str) -> bool:
        found = self.at(text)
        self.place += found
        return found

    def need(self, text: str) -> None:
        if not self.take(text):
            raise self.fail(f"`{text}`")

    def word(self, kind: str) -> str:
        word = self.peek()
        if word is None or word.kind != kind:
            raise self.fail(kind)
        self.place += 1
        return word.text

    def end(self) -> None:
        if self.place < len(self.words):
            raise self.fail("the end of the line")

    # ------------------------------------------------------------ values

    def name(self) -> str:
        word = self.peek()
        if word is not None and word.kind == "string":
            self.place += 1
            return _unquoted(word.text)
        return self.word("name")

    def integer(self) -> int:
        return int(self.word("int"))

    def ref(self) -> int:
        return int(self.word("value")[1:])

    def clock(self) -> Clock:
        self.need("every")
        return Clock(self.integer(), self.take("start"))

    def type(self) -> Type:
        kind = "int" if self.take("int") else "real"
        self.need("[")
        shape: list[Dim] = []
        while not self.take("]"):
            shape.append(self.dim())
            if not self.at("]"):
                self.need(",")
        axes: list[str] = []
        if self.take("{"):
            while not self.take("}"):
                axes.append(self.name())
                if not self.at("}"):
                    self.need(",")
        return Type(tuple(shape), tuple(axes), kind)

    def value(self, depth: int = 0) -> Any:
        """The value of an attribute."""
        word = self.peek()
        if word is None:
            raise self.fail("a value")
        if word.kind == "string":
            return self.name()
        if word.kind == "special":
            self.place += 1
            return float(word.text[1:])
        if self.take("true"):
            return True
        if self.take("false"):
            return False
        if self.at("every"):
            return self.clock()
        if self.take("["):
            return self.items(depth + 1)
        negative = self.take("-")
        following = self.peek()
        if following is not None and following.kind == "float":
            self.place += 1
            return -float(following.text) if negative else float(following.text)
        self.place -= negative
        return self.dim()

    def items(self, depth: int) -> tuple[Any, ...]:
        if depth > MAX_DEPTH:
            raise ParseError(f"line {self.row}: lists nest deeper than {MAX_DEPTH}")
        items: list[Any] = []
        while not self.take("]"):
            items.append(self.value(depth))
            if not self.at("]"):
                self.need(",")
        return tuple(items)

    def dim(self) -> Dim:
        """A size: a sum of products of names, numbers and powers, each over such a product."""
        total: Dim = 0
        sign = -1 if self.take("-") else 1
        while True:
            term = sign * self.product()
            if self.take("/"):
                term = _over(term, self.divisor())
            total = total + term
            if self.take("+"):
                sign = 1
            elif self.take("-"):
                sign = -1
            else:
                return total

    def product(self) -> Dim:
        result = self.power()
        while self.take("*"):
            result = result * self.power()
        return result

    def divisor(self) -> Dim:
        if not self.at("(") or self.at_opaque():
            return self.power()
        self.need("(")
        result = self.product()
        self.need(")")
        return result

    def power(self) -> Dim:
        word = self.peek()
        if word is not None and word.kind == "int":
            return self.integer()
        base = symbol(self.opaque() if self.at("(") else self.word("name"))
        if not self.take("^"):
            return base
        result: Dim = 1
        exponent = self.integer()
        if exponent > MAX_DEPTH:
            raise ParseError(f"line {self.row}: power {exponent}")
        for _ in range(exponent):
            result = result * base
        return result

    def opaque(self) -> str:
        """The name of a size that stands for an operation, like ``(a)//(b)`` or ``(a)%(b)``: its text as printed."""
        start = self.words[self.place].start
        self.parenthesized()
        if not any(self.take(mark) for mark in _OPAQUE):
            raise self.fail("an operation on sizes")
        return self.text[start : self.parenthesized()]

    def at_opaque(self) -> bool:
        place = self.place
        self.parenthesized()
        found = any(self.take(mark) for mark in _OPAQUE) and self.at("(")
        self.place = place
        return found

    def parenthesized(self) -> int:
        """Skip a balanced pair; where its text ends."""
        self.need("(")
        depth = 1
        while depth:
            word = self.peek()
            if word is None:
                raise self.fail("`)`")
            depth += (word.text == "(") - (word.text == ")")
            self.place += 1
        return self.words[self.place - 1].end


def _over(term: Dim, by: Dim) -> Dim:
    if isinstance(term, int) and isinstance(by, int) and by:
        whole = Fraction(term, by)
        return whole.numerator if whole.denominator == 1 else Poly((((), whole),))
    quotient = divide(term, by)
    if quotient is None:
        raise ParseError(f"no size: {term} / {by}")
    return quotient


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except json.JSONDecodeError as error:
        raise ParseError(f"not a string: {text}") from error
