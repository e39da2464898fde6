"""Mistakes of the compiler itself, told apart from mistakes in a program."""

from __future__ import annotations

from collections.abc import Mapping

from nldsl.source import NO_SPAN, Span

from .diagnostic import Diagnostic

__all__ = ["InternalError", "internal_diagnostic"]


class InternalError(Exception):
    """A broken invariant. `artifacts` are texts that help to find the cause, such as the IR before the failed pass."""

    def __init__(self, message: str, span: Span = NO_SPAN, artifacts: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.span = span
        self.artifacts = dict(artifacts or {})


def internal_diagnostic(error: BaseException) -> Diagnostic:
    """Say what went wrong inside, as one finding; any exception that nobody expected counts."""
    span = error.span if isinstance(error, InternalError) else NO_SPAN
    what = str(error) or "no message"
    if not isinstance(error, InternalError):
        what = f"{type(error).__name__}: {what}"
    return Diagnostic(
        "NL0900",
        f"internal error: {what}",
        span,
        label="while working on this" if not span.is_none else "",
        notes=("this is a bug in the compiler, not in your program",),
    )
