"""Drawing in a process of its own: formats, time limits, and what a user is told when it cannot be done."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from nldsl.diagnostics import DiagnosticError
from nldsl.semantics.level_graph import build_level_graph
from nldsl.viz import render as module
from nldsl.viz.dot import dot, svg
from nldsl.viz.render import render
from tests.unit.viz.programs import hope

pytest.importorskip("pygraphviz")
DOT = dot(build_level_graph(hope(1)))


def fake_dot(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `dot` of our own on the PATH, and no pygraphviz."""
    command = folder / "dot"
    command.write_text(f"#!/bin/sh\n{body}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(module, "installed", lambda name: False)


def told(error: pytest.ExceptionInfo[DiagnosticError]) -> str:
    (found,) = error.value.diagnostics
    return " | ".join([found.code, found.message, *found.notes, *found.hints])


def test_svg() -> None:
    drawn = render(DOT, "svg")
    assert b"<svg" in drawn
    assert drawn == render(DOT, "svg")


def test_png() -> None:
    assert render(DOT, "png").startswith(b"\x89PNG")


def test_svg_is_the_arrangement() -> None:
    """Graphviz keeps the places it is given: a box is where the layout put it."""
    drawn = svg(build_level_graph(hope(1)))
    assert drawn.count('class="node box memory') == 6
    assert "<title>The levels of HopeLM</title>" in drawn


def test_nothing_to_draw_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda name: False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DiagnosticError) as caught:
        render(DOT, "svg")
    assert told(caught) == (
        "NL0790 | drawing SVG needs Graphviz, which is not installed | install it: pip install "
        '"nldsl-compiler[viz]" | or put the command `dot` of Graphviz on the PATH'
    )


def test_dot_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, 'test "$1" = -Knop2 && test "$2" = -Tsvg && echo "<svg/>"', monkeypatch)
    assert render(DOT, "svg") == b"<svg/>\n"


def test_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, "exec sleep 60", monkeypatch)
    started = time.monotonic()
    with pytest.raises(DiagnosticError) as caught:
        render(DOT, "svg", seconds=0.5)
    assert time.monotonic() - started < 10
    assert told(caught).startswith("NL0792 | drawing took longer than 0.5 seconds")
    assert "--collapse" in told(caught)


def test_a_failure_shows_what_graphviz_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_dot(tmp_path, 'echo "syntax error in line 1" >&2; exit 1', monkeypatch)
    with pytest.raises(DiagnosticError) as caught:
        render("digraph {", "svg")
    assert told(caught).startswith("NL0792 | Graphviz could not draw the levels | syntax error in line 1")


def test_a_crash_of_the_child_is_no_crash_of_ours() -> None:
    with pytest.raises(DiagnosticError) as caught:
        render("this is not DOT {", "svg")
    assert caught.value.diagnostics[0].code == "NL0792"
