"""How commands talk: results on stdout, everything about them on stderr, colour and progress only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from nldsl.diagnostics.diagnostic import Diagnostic
from nldsl.diagnostics.render import render, summary, visible

__all__ = ["fail", "note", "print_diagnostics", "progress", "wants_color"]


def wants_color(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours; NO_COLOR and FORCE_COLOR decide if they are set."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def print_diagnostics(diagnostics: Iterable[Diagnostic], dropped: int = 0) -> None:
    """Show findings on stderr, with a count at the end if there are several."""
    found = list(diagnostics)
    if not found:
        return
    text = render(found, color=wants_color(sys.stderr))
    if len(found) > 1 or dropped:
        text += f"\n{summary(found, dropped)}\n"
    _write(sys.stderr, text)


def fail(message: str) -> None:
    """Say on stderr why the command stops, where no place in a program is to blame."""
    _write(sys.stderr, f"error: {visible(message)}\n")


def note(message: str) -> None:
    """Say on stderr what a person who watches may want to know."""
    _write(sys.stderr, f"{visible(message)}\n")


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar while the body runs; the body calls what it gets with the number of steps done since the last call.

    Nothing is shown when stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps: bar.advance(task, steps)


def _write(stream: TextIO, text: str) -> None:
    """Write text that the stream's encoding may lack characters for (a log in ASCII)."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, errors="backslashreplace").decode(encoding))
    stream.flush()
