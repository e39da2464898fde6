"""`nldsl fmt`."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from nldsl.cli.main import main

GOOD = "x = 1\n"
LOOSE = "x   =  1"


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.nl").write_text(GOOD, encoding="utf-8")
    Path("loose.nl").write_text(LOOSE, encoding="utf-8")
    Path("bad.nl").write_text("x = ", encoding="utf-8")


def test_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    Path("loose.nl").chmod(0o640)
    assert main(["fmt", "good.nl", "loose.nl"]) == 0
    assert Path("loose.nl").read_text(encoding="utf-8") == GOOD
    assert Path("loose.nl").stat().st_mode & 0o777 == 0o640
    assert capsys.readouterr() == ("", "loose.nl: formatted\n")
    assert sorted(p.name for p in Path().iterdir()) == ["bad.nl", "good.nl", "loose.nl"]


def test_through_a_link() -> None:
    Path("link.nl").symlink_to("loose.nl")
    assert main(["fmt", "link.nl"]) == 0
    assert Path("link.nl").is_symlink()
    assert Path("loose.nl").read_text(encoding="utf-8") == GOOD


def test_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "--check", "good.nl"]) == 0
    assert main(["fmt", "--check", "good.nl", "loose.nl"]) == 1
    assert Path("loose.nl").read_text(encoding="utf-8") == LOOSE
    assert capsys.readouterr() == ("", "loose.nl: not formatted\n")


def test_diff(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "--diff", "good.nl", "loose.nl"]) == 0
    assert main(["fmt", "--diff", "--check", "loose.nl"]) == 1
    out = capsys.readouterr().out
    assert "-x   =  1\n\\ No newline at end of file\n+x = 1\n" in out
    assert Path("loose.nl").read_text(encoding="utf-8") == LOOSE


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "bad.nl", "loose.nl"]) == 1
    assert Path("bad.nl").read_text(encoding="utf-8") == "x = "
    assert Path("loose.nl").read_text(encoding="utf-8") == GOOD
    assert "error[NL0101]" in capsys.readouterr().err


def test_stdin(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("x   = 1 # é".encode())))
    assert main(["fmt", "-"]) == 0
    assert capsysbinary.readouterr().out == "x = 1  # é\n".encode()


def test_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "none.nl"]) == 1
    assert "none.nl" in capsys.readouterr().err


def test_not_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    Path("latin.nl").write_bytes(b"# \xe9\n")
    assert main(["fmt", "latin.nl"]) == 1
    assert "NL0002" in capsys.readouterr().err
    assert Path("latin.nl").read_bytes() == b"# \xe9\n"
