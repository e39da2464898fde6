"""How training tells a user about a mistake: a diagnostic without a place in a program."""

from __future__ import annotations

from collections.abc import Iterable

from nldsl.diagnostics import Diagnostic, DiagnosticError
from nldsl.source import NO_SPAN

__all__ = ["listed", "problem"]


def problem(code: str, message: str, *, notes: Iterable[str] = (), hints: Iterable[str] = ()) -> DiagnosticError:
    """Make the error to raise."""
    return DiagnosticError(Diagnostic(code, message, NO_SPAN, notes=tuple(notes), hints=tuple(hints)))


def listed(items: Iterable[str], limit: int = 20) -> tuple[str, ...]:
    """Return the first `limit` items, and how many were left out."""
    found = tuple(items)
    if len(found) <= limit:
        return found
    return (*found[:limit], f"... and {len(found) - limit} more")
