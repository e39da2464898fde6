"""What must hold for every input, however hostile."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from nldsl.diagnostics import DiagnosticBag, DiagnosticError
from nldsl.diagnostics.render import render
from nldsl.frontend.format import format_source
from nldsl.frontend.parse import parse
from nldsl.frontend.text import decode
from nldsl.limits import Limits
from nldsl.source import SourceFile

__all__ = ["TooSlow", "check", "limited", "read"]


class TooSlow(BaseException):
    """An input took longer than its limit."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Stop what takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(seconds)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(data: bytes) -> str | None:
    """Parse and format: there is a tree or an error with a place, and formatting keeps the tree."""
    limits = Limits()
    bag = DiagnosticBag()
    source = decode(data, "fuzz.nl", bag, limits)
    tree = parse(source, bag, limits) if source is not None else None
    assert (tree is None) == bag.has_errors
    for found in bag:
        assert found.code[:4] in ("NL00", "NL01")
        assert 0 <= found.span.start <= found.span.end <= len(found.span.file.text)
    render(bag).encode()
    if tree is None or source is None:
        return source.text if source is not None else None
    formatted = format_source(source.text)
    again = parse(SourceFile("fuzz.nl", formatted), DiagnosticBag(), limits)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # trees are compared recursively, deep ones too
    try:
        assert again == tree, "formatting changed the tree"
    finally:
        sys.setrecursionlimit(limit)
    assert format_source(formatted) == formatted, "formatting twice differs"
    return source.text


def check(text: str) -> bool:
    """Check: findings have places and can be shown. Return whether the program is right."""
    from nldsl.api import check_text

    try:
        found = check_text(text, "fuzz.nl")
    except DiagnosticError as error:
        found = list(error.diagnostics)
    for finding in found:
        assert finding.code != "NL0900"
    render(found).encode()
    return not found
