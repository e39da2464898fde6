"""What emitted code is made of: expressions with their binding strength, lines, functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from nldsl.ir.types import Type

# How strongly the outermost operator of an expression binds; an operand that binds weaker needs parentheses.
COMPARE, OR, AND, ADD, MUL, UNARY, POWER, ATOM = range(8)
INDENT = "    "


@dataclass(frozen=True)
class Scaled:
    """``number * left``, or ``number * (left @ right)``; ``number`` is the text of a Python number, empty for one."""

    number: str
    left: str
    right: str = ""


@dataclass(frozen=True)
class Expr:
    """An expression for a value of type ``type`` (with ``time`` among its axes where it has one).

    ``form``: a ``literal`` is a Python number; a ``bool`` tensor stands for the 1.0 and 0.0 of a comparison.
    ``low``: under autocast the tensor may come in half precision. ``wide``: it is float32 where the module is in half
    precision. ``parts``: what the expression is a number times of:
    one tensor, or the two of a matrix product.
    """

    text: str
    type: Type
    strength: int = ATOM
    form: Literal["tensor", "bool", "literal"] = "tensor"
    low: bool = False
    wide: bool = False
    parts: Scaled | None = None

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


def add_call(code: Code, targets: list[str], function: str, values: list[str]) -> None:
    """``targets = function(values)``, over several lines where it is long."""
    left, right = ", ".join(targets), f"{function}({', '.join(values)})"
    if len(left) + len(right) < 100:
        code.add(f"{left} = {right}")
        return
    if len(left) > 80:
        code.add("(")
        for target in targets:
            code.add(f"{INDENT}{target},")
        left = ")"
    code.add(f"{left} = {function}(")
    for value in values:
        code.add(f"{INDENT}{value},")
    code.add(")")


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


def reflow(line: str, width: int = 120) -> list[str]:
    """A statement that is too long, broken in its longest list of arguments or items."""
    text = line.lstrip(" ")
    depth = (len(line) - len(text)) // len(INDENT)
    if len(line) <= width or text.startswith("#"):
        return [line]
    at = _comment(text)
    if at:  # above the statement, where a bracket cannot be cut by it
        return [INDENT * depth + text[at:], *reflow(INDENT * depth + text[:at].rstrip(), width)]
    names, equals, value = text.partition(" = ")
    if equals and len(names) > width // 2 and _top_commas(names):
        items = _parts(names, _top_commas(names))
        return [INDENT * depth + row for row in wrapped("(", items, f") = {value}", depth, width)]
    if text.startswith("return ") and _top_commas(text):
        items = _parts(text.removeprefix("return "), _top_commas(text.removeprefix("return ")))
        return [INDENT * depth + row for row in wrapped("return (", items, ")", depth, width)]
    start, commas, end = _longest(text)
    if not commas:
        return [line]
    cuts = [start, *commas, end]
    items = [text[a + 1 : b].strip() for a, b in pairwise(cuts)]
    lines = wrapped(text[: start + 1], items, text[end:], depth, width)
    return [part for row in lines for part in reflow(INDENT * depth + row, width)] if len(lines) > 1 else [line]


def _comment(text: str) -> int:
    """Where the comment behind a statement begins; 0 if there is none."""
    quoted = False
    for at, char in enumerate(text):
        quoted ^= char == '"'
        if char == "#" and not quoted:
            return at
    return 0


def _parts(text: str, commas: list[int]) -> list[str]:
    return [text[a:b].strip(", ") for a, b in pairwise([0, *commas, len(text)])]


def _top_commas(text: str) -> list[int]:
    """The commas that are in no bracket."""
    found, depth, quoted = [], 0, False
    for at, char in enumerate(text):
        quoted ^= char == '"'
        depth += not quoted and char in "([{"
        depth -= not quoted and char in ")]}"
        if char == "," and not depth and not quoted:
            found.append(at)
    return found


def _longest(text: str) -> tuple[int, list[int], int]:
    """The longest bracket of a call or list that is in no other one: where it opens, its commas, where it closes."""
    best: tuple[int, list[int], int] = (0, [], 0)
    opened: list[int] = []
    commas: list[int] = []
    quoted = ""
    for at, char in enumerate(text):
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "\"'":
            quoted = char
        elif char in "([{":
            opened.append(at)
            commas = [] if len(opened) == 1 else commas
        elif char in ")]}" and opened:
            start = opened.pop()
            before = text[start - 1] if start else " "
            items = (char == ")" and (before.isalnum() or before == "_")) or (char == "]" and before in " (,=")
            if not opened and items and at - start > best[2] - best[0]:
                best = start, commas, at
        elif char == "," and len(opened) == 1:
            commas.append(at)
    return best
