"""What is said when the text does not follow the grammar."""

from __future__ import annotations

from ..diagnostics import DiagnosticBag
from ..source import SourceFile, Span
from .lr import Failure, accepted
from .tables import END, Tables

__all__ = ["bad_type", "report"]


def report(tables: Tables, source: SourceFile, bag: DiagnosticBag, failure: Failure) -> None:
    """Report one error of syntax."""
    token = failure.tokens[failure.at]
    expected = sorted(accepted(tables, failure.states))
    span = source.span(token.start, token.end)
    bag.error("NL0101", span, f"unexpected `{token.text or END}`; expected {', '.join(expected)}")


def bad_type(bag: DiagnosticBag, span: Span, name: str) -> None:
    """Report a type whose brackets follow another word than `int` or `list`."""
    bag.error("NL0121", span, f"`{name}[...]` is not a type")
