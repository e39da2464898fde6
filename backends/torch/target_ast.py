"""What emitted code is made of: expressions with their binding strength, lines, functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nldsl.ir.types import Type

# How strongly the outermost operator of an expression binds; an operand that binds weaker needs parentheses.
COMPARE, OR, AND, ADD, MUL, UNARY, POWER, ATOM = range(8)
INDENT = "    "


@dataclass(frozen=True)
class Expr:
    """An expression for a value of type ``type`` (with ``time`` among its axes where it has one).

    ``form``: a ``literal`` is a Python number; a ``bool`` tensor stands for the 1.0 and 0.0 of a comparison.
    ``low``: under autocast the tensor may come in half precision.
    """

    text: str
    type: Type
    strength: int = ATOM
    form: Literal["tensor", "bool", "literal"] = "tensor"
    low: bool = False

    def at(self, strength: int) -> str:
        """The text as an operand of something that binds this strongly."""
        return self.text if self.strength >= strength else f"({self.text})"

    @property
    def is_literal(self) -> bool:
        return self.form == "literal"

    @property
    def is_int(self) -> bool:
        return self.type.kind == "int" and self.form == "tensor"


@dataclass
class Code:
    """Lines with indentation."""

    lines: list[str] = field(default_factory=list)
    depth: int = 0

    def add(self, line: str) -> None:
        self.lines.append(INDENT * self.depth + line if line else "")

    def extend(self, other: Code) -> None:
        """Put lines of a block here, one level deeper than they were."""
        for line in other.lines:
            self.add(INDENT + line if line else "")


def call(function: str, *arguments: str) -> str:
    """A call."""
    return f"{function}({', '.join(arguments)})"


def tuple_of(items: list[str]) -> str:
    """A tuple, also of one item."""
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def wrapped(head: str, items: list[str], tail: str, depth: int, width: int = 116) -> list[str]:
    """``head`` + comma-separated items + ``tail``, over several lines where one is too long."""
    line = head + ", ".join(items) + tail
    if len(line) + depth * len(INDENT) <= width:
        return [line]
    lines, current = [head], INDENT
    for item in items:
        if len(current) > len(INDENT) and len(current) + len(item) + 2 + depth * len(INDENT) > width:
            lines.append(current.rstrip())
            current = INDENT
        current += item + ", "
    return [*lines, current.rstrip(), tail]
