"""What is said about characters, numbers, strings and brackets that do not fit."""

from __future__ import annotations

import math
import re

from ..diagnostics import DiagnosticBag
from ..source import SourceFile
from .text import is_hidden

__all__ = [
    "brace_below",
    "check_number",
    "deep",
    "extra_bracket",
    "long_name",
    "report",
    "too_many_tokens",
    "unclosed",
    "wrong_bracket",
]

# Characters that look like, or are meant as, something of the language.
LOOKALIKES = {
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u00d7": "*",
    "\u00b7": "*",
    "\u22c5": "*",
    "\u2217": "*",
    "\u00f7": "/",
    "\u2190": "<-",
    "\u2192": "->",
    "\u2264": "<=",
    "\u2265": ">=",
    "\u2260": "!=",
    "\u2026": "...",
    "\u201c": '"',
    "\u201d": '"',
    "\u2018": "'",
    "\u2019": "'",
    "\u2032": "'",
    "\u22a4": "'",
    "\u1d40": "'",
    "\u00b2": "^2",
    "\u00b3": "^3",
    "\u2297": "outer(a, b)",
    "\u2207": "grad(loss, x)",
    "\u2211": "sum(x)",
    "\u221a": "sqrt(x)",
    "\u2016": "norm(x)",
    "\u00a0": "a plain space",
}

# Characters that other languages use.
FOREIGN = {
    "!": ("`!` is not an operator", "write `not`"),
    "&": ("`&` is not an operator", "write `and`"),
    "|": ("`|` is not an operator", "write `or`; for a norm `norm(x)`"),
    "~": ("`~` is not an operator", "write `not`"),
    "$": ("`$` has no meaning in the language", ""),
    "?": ("`?` is not an operator", "write `if c then a else b`"),
    "\\": ("a line is not continued by `\\`", "end the line with an operator, or put the expression in parentheses"),
    "`": ("`` ` `` has no meaning in the language", ""),
}

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho".split()


def _named(character: str) -> str:
    import unicodedata

    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X}" + (f" {name}" if name else "")


def report(source: SourceFile, bag: DiagnosticBag, kind: str, text: str, start: int, end: int) -> None:
    """Report a piece of text that is no token."""
    span = source.span(start, end)
    if kind == "POINT":
        bag.error(
            "NL0107", span, "a number begins with a digit", hints=(f"write `0{text}`",) if text[1:].isdigit() else ()
        )
    elif kind == "DIGITS":
        _bad_number(bag, source, text, start, end)
    elif kind == "ESCAPE":
        _bad_escape(source, bag, text, start)
    elif kind == "QUOTE":
        _open_string(source, bag, text, start)
    elif text in FOREIGN:
        message, hint = FOREIGN[text]
        bag.error("NL0102", span, message, hints=(hint,) if hint else ())
    elif not is_hidden(text):  # `check_text` told of those that are
        _odd_character(source, bag, text, start)


def _bad_number(bag: DiagnosticBag, source: SourceFile, text: str, start: int, end: int) -> None:
    digits = re.match(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text)
    assert digits is not None
    number = digits.group()
    hints: tuple[str, ...] = ()
    if "_" in text and text.replace("_", "").isdigit():
        hints = (f"write `{text.replace('_', '')}`",)
    elif re.fullmatch(r"[0-9]+\.", text):
        hints = (f"write `{text}0`, or `{number}`",)
    elif re.fullmatch(r"0[xXbBoO][0-9A-Fa-f]+", text):
        hints = (f"write it in decimal: `{int(text, 0)}`",) if len(text) < 20 and _is_based(text) else ()
    elif re.fullmatch(r"[0-9.]+[eE]", text):
        hints = ("digits must follow the `e`",)
    elif text[len(number) :].isidentifier():
        hints = (f"put a space between `{number}` and `{text[len(number) :]}`, or `*` for their product",)
    bag.error("NL0107", source.span(start, end), f"`{_short(text)}` is not a number", hints=hints)


def _is_based(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        return False
    return True


def _bad_escape(source: SourceFile, bag: DiagnosticBag, text: str, start: int) -> None:
    escape = re.match(r'"(?:[^"\\]|\\["\\n])*(\\.)', text)
    assert escape is not None
    at = start + escape.start(1)
    bag.error(
        "NL0106",
        source.span(at, at + 2),
        f"`{escape.group(1)}` is not an escape",
        notes=('a text knows `\\"`, `\\\\` and `\\n`',),
        hints=("write `\\\\` for a backslash",),
    )


def _open_string(source: SourceFile, bag: DiagnosticBag, text: str, start: int) -> None:
    bag.error(
        "NL0105",
        source.span(start, start + len(text.rstrip())),
        "the text does not end on its line",
        hints=('put a `"` behind it', "for a line break in the text write `\\n`"),
    )


def _odd_character(source: SourceFile, bag: DiagnosticBag, character: str, start: int) -> None:
    import unicodedata

    hints: tuple[str, ...] = ()
    name = unicodedata.name(character, "")
    word = name.rpartition(" ")[2].lower()
    if character in LOOKALIKES:
        meant = LOOKALIKES[character]
        hints = (f"write {meant}" if meant.startswith("a ") else f"write `{meant}`",)
    elif character.isalpha():
        hints = (
            f"names are made of the letters A to Z, digits and `_`: write `{word}`"
            if name.startswith("GREEK ") and word.isidentifier()
            else "names are made of the letters A to Z, digits and `_`",
        )
    shown = f"`{character}`" if character.isprintable() and not character.isspace() else "this character"
    bag.error(
        "NL0102",
        source.span(start, start + 1),
        f"{shown} ({_named(character)}) has no meaning in a program",
        hints=hints,
    )


def long_name(source: SourceFile, bag: DiagnosticBag, start: int, end: int, limit: int) -> None:
    """Report a name of more characters than the limit."""
    bag.error("NL0109", source.span(start, end), f"a name has at most {limit} characters, this one has {end - start}")


def deep(source: SourceFile, bag: DiagnosticBag, start: int, end: int, limit: int) -> None:
    """Report the bracket that goes over the limit."""
    bag.error(
        "NL0006",
        source.span(start, end),
        f"brackets are nested more than {limit} deep",
        hints=("give the inner parts names",),
    )


def too_many_tokens(source: SourceFile, bag: DiagnosticBag, start: int, limit: int) -> None:
    """Report a text of more tokens than the limit."""
    bag.error(
        "NL0005",
        source.span(start, start + 1),
        f"the file has more than {limit} words and signs",
        hints=("divide it into files that import one another",),
    )


def check_number(source: SourceFile, bag: DiagnosticBag, text: str, start: int, end: int, largest: int) -> None:
    """Report a number that a program cannot hold."""
    span = source.span(start, end)
    if text.isdigit():
        digits = text.lstrip("0") or "0"
        if len(digits) > 40 or int(digits) > largest:
            bag.error("NL0108", span, "the integer is too large", notes=(f"the largest is {largest}",))
        return
    value = float(text)
    if math.isinf(value):
        bag.error("NL0108", span, "the number is too large", notes=("the largest is about 1.8e308",))
    elif value == 0.0 and re.match(r"[0.]*[1-9]", text):
        bag.error("NL0108", span, "the number is too small: it would be 0", notes=("the smallest is about 5e-324",))


def brace_below(source: SourceFile, bag: DiagnosticBag, start: int, head: int) -> None:
    """Report the brace of a block that stands in the line below its head, which ends at `head`."""
    bag.error(
        "NL0113",
        source.span(start, start + 1),
        "the `{` of a block belongs in the line of its head",
        related=((source.span(head, head), "put it here"),),
    )


def unclosed(source: SourceFile, bag: DiagnosticBag, text: str, opened: int, start: int, end: int) -> None:
    """Report a bracket that is still open at `start`, where it cannot be."""
    at_end = start >= len(source.text)
    closing = {"(": ")", "[": "]", "{": "}"}[text]
    bag.error(
        "NL0111",
        source.span(opened, opened + 1),
        f"the `{text}` is never closed",
        label="opened here",
        related=() if at_end else ((source.span(start, end), f"a `{closing}` is missing before this"),),
    )


def extra_bracket(source: SourceFile, bag: DiagnosticBag, text: str, start: int) -> None:
    """Report a closing bracket without an opening one."""
    bag.error("NL0112", source.span(start, start + 1), f"the `{text}` closes nothing")


def wrong_bracket(source: SourceFile, bag: DiagnosticBag, text: str, start: int, opened: int) -> None:
    """Report a closing bracket of the wrong kind."""
    opening = source.text[opened]
    closing = {"(": ")", "[": "]", "{": "}"}[opening]
    bag.error(
        "NL0112",
        source.span(start, start + 1),
        f"`{text}` cannot close the `{opening}`",
        related=((source.span(opened, opened + 1), f"this `{opening}` needs a `{closing}`"),),
    )


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
