"""Colour and encoding of what is said."""

from __future__ import annotations

import io
import sys

import pytest

from nldsl.cli.output import fail, note, print_diagnostics, progress, wants_color
from nldsl.diagnostics import Diagnostic
from nldsl.source import NO_SPAN


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_color_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wants_color(Terminal())
    assert not wants_color(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color(Terminal())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert wants_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color(Terminal())


def test_findings_go_to_stderr_with_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Diagnostic("NL0301", "shapes differ", NO_SPAN)
    print_diagnostics([])
    print_diagnostics([finding])
    assert capsys.readouterr() == ("", "error[NL0301]: shapes differ\n")
    print_diagnostics([finding, finding])
    assert capsys.readouterr().err.endswith("\n\n2 errors\n")


def test_terminal_gets_color(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    print_diagnostics([Diagnostic("NL0301", "shapes differ", NO_SPAN)])
    assert "\x1b[" in terminal.getvalue()


def test_ascii_log(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    note("θ")
    fail("日本\x1b")
    assert raw.getvalue() == b"\\u03b8\nerror: \\u65e5\\u672c\\x1b\n"


def test_progress_is_quiet_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("working", total=3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_progress_shows_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("working", total=3) as advance:
        advance(3)
    assert "working" in terminal.getvalue()
