"""SVG and PNG from DOT, by Graphviz in a process of its own that may be stopped.

The wheel of pygraphviz brings Graphviz along; a `dot` on the PATH does too. The picture is arranged before it comes
here, so that there is nothing to search for, but what runs is foreign code on text that a program has chosen.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.extras import installed, pip_line
from nldsl.source import NO_SPAN

__all__ = ["FORMATS", "render"]

FORMATS = ("svg", "png")
_TIME = 30.0
_LARGEST = 64 * 2**20


def render(dot: str, format: str, seconds: float = _TIME) -> bytes:
    """Draw; raises DiagnosticError where there is no Graphviz, it fails, or it takes longer than `seconds`."""
    assert format in FORMATS, format
    failures = []
    for command in _commands(format):
        try:
            done = subprocess.run(command, input=dot.encode(), capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise _error(
                f"drawing took longer than {seconds:g} seconds",
                hints=("`--collapse LEVEL` draws one box for a level", "`-o out.txt` and `-o out.json` draw nothing"),
            ) from None
        if done.returncode == 0 and done.stdout and len(done.stdout) <= _LARGEST:
            return done.stdout
        failures.append(done.stderr.decode(errors="replace").strip()[-500:] or f"exit status {done.returncode}")
    if failures:
        raise _error(
            "Graphviz could not draw the levels", notes=tuple(failures), hints=("`-o out.dot` writes its input",)
        )
    raise _error(
        f"drawing {format.upper()} needs Graphviz, which is not installed",
        code="NL0790",
        hints=(f"install it: {pip_line('viz')}", "or put the command `dot` of Graphviz on the PATH"),
    )


def _commands(format: str) -> list[list[str]]:
    """The ways to draw here, the preferred one first."""
    commands = []
    if installed("pygraphviz"):
        commands.append([sys.executable, "-m", "nldsl.viz.draw", format])
    dot = shutil.which("dot")
    if dot:
        commands.append([dot, "-Knop2", f"-T{format}", *(["-Gdpi=144"] if format == "png" else [])])
    return commands


def _error(
    message: str, code: str = "NL0792", notes: tuple[str, ...] = (), hints: tuple[str, ...] = ()
) -> DiagnosticError:
    return DiagnosticError(Diagnostic(code, message, NO_SPAN, notes=notes, hints=hints))
