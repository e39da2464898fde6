"""The one type for everything the compiler tells a user about a program."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nldsl.source import Span

__all__ = ["Diagnostic", "DiagnosticBag", "DiagnosticError", "Related", "Severity"]

Related = tuple[Span, str]


class Severity(enum.Enum):
    """How bad it is. Only an error stops the compiler."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Diagnostic:
    """One finding about a program.

    `message` is the headline, in the user's words. `label` stands under the caret. `related` points at other places
    with a text each. `notes` are facts that explain the cause, `hints` are things to do.
    """

    code: str
    message: str
    span: Span
    label: str = ""
    related: tuple[Related, ...] = ()
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR

    @property
    def is_error(self) -> bool:
        """Whether this finding stops the compiler."""
        return self.severity is Severity.ERROR

    def to_json(self) -> dict[str, Any]:
        """Return a value of JSON types only; lines and columns count from 1, offsets from 0, ends are exclusive."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "message": self.message,
            "span": _span_to_json(self.span),
            "label": self.label,
            "related": [{"span": _span_to_json(span), "message": text} for span, text in self.related],
            "notes": list(self.notes),
            "hints": list(self.hints),
        }


def _span_to_json(span: Span) -> dict[str, Any] | None:
    if span.is_none:
        return None
    line, column = span.file.position(span.start)
    end_line, end_column = span.file.position(span.end)
    return {
        "file": span.file.path,
        "start": span.start,
        "end": span.end,
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
    }


class DiagnosticError(Exception):
    """Raised when a stage cannot go on; carries what the user is to be told."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        found = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        super().__init__(found)
        self.diagnostics: tuple[Diagnostic, ...] = found

    def __str__(self) -> str:
        return "\n".join(f"{d.span}: {d.severity.value}[{d.code}]: {d.message}" for d in self.diagnostics)


class DiagnosticBag:
    """Collects findings in the order they are made, each once, and at most `limit` of them.

    One mistake seen by two rules at one place is told once: what counts as the same is code, span and message.
    """

    def __init__(self, limit: int = 50) -> None:
        self.limit = limit
        self.dropped = 0
        self._found: dict[tuple[str, Span, str], Diagnostic] = {}
        self._errors = 0

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep a finding unless it is known already or the bag is full; the first error always gets in."""
        key = (diagnostic.code, diagnostic.span, diagnostic.message)
        if key in self._found:
            return
        if len(self._found) >= self.limit and (self._errors or not diagnostic.is_error):
            self.dropped += 1
            return
        self._found[key] = diagnostic
        self._errors += diagnostic.is_error

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add several findings."""
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def error(
        self,
        code: str,
        span: Span,
        message: str,
        *,
        label: str = "",
        related: tuple[Related, ...] = (),
        notes: tuple[str, ...] = (),
        hints: tuple[str, ...] = (),
    ) -> None:
        """Add an error."""
        self.add(Diagnostic(code, message, span, label, related, notes, hints))

    def warning(
        self,
        code: str,
        span: Span,
        message: str,
        *,
        label: str = "",
        related: tuple[Related, ...] = (),
        notes: tuple[str, ...] = (),
        hints: tuple[str, ...] = (),
    ) -> None:
        """Add a warning."""
        self.add(Diagnostic(code, message, span, label, related, notes, hints, Severity.WARNING))

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What was found, ordered by file and place; equal places keep the order of finding."""
        return tuple(sorted(self._found.values(), key=lambda d: (d.span.file.path, d.span.start, d.span.end)))

    @property
    def has_errors(self) -> bool:
        """Whether anything found stops the compiler."""
        return self._errors > 0

    @property
    def is_full(self) -> bool:
        """Whether further findings would be dropped; long searches for errors may stop here."""
        return len(self._found) >= self.limit

    def raise_if_errors(self) -> None:
        """Stop the stage if it found an error, with everything it found."""
        if self.has_errors:
            raise DiagnosticError(self.diagnostics)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self.diagnostics)

    def __len__(self) -> int:
        return len(self._found)
