"""Mistakes of the compiler, shown as such."""

from __future__ import annotations

from nldsl.diagnostics.internal import InternalError, internal_diagnostic
from nldsl.source import NO_SPAN, SourceFile


def test_with_a_place() -> None:
    span = SourceFile("a.nl", "x").span(0, 1)
    finding = internal_diagnostic(InternalError("no rule for `x`", span, {"ir": "..."}))
    assert (finding.code, finding.message, finding.span) == ("NL0900", "internal error: no rule for `x`", span)
    assert "bug in the compiler" in finding.notes[0]


def test_any_exception() -> None:
    finding = internal_diagnostic(KeyError())
    assert finding.message == "internal error: KeyError: no message"
    assert finding.span is NO_SPAN
