"""`nldsl check`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nldsl.cli.main import main
from nldsl.cli.new import starter


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("good.nl").write_text(starter(Path("good.nl")), encoding="utf-8")
    return "good.nl"


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("bad.nl").write_text(starter(Path("bad.nl")).replace("S @ q", "S @ q @ p"), encoding="utf-8")
    return "bad.nl"


def test_good(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", good]) == 0
    assert capsys.readouterr() == ("good.nl: no mistakes found\n", "")
    assert main(["check", "--quiet", good]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["check", "--json", good]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_bad(good: str, bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", good, bad]) == 1
    captured = capsys.readouterr()
    assert captured.out == "good.nl: no mistakes found\n"
    assert "--> bad.nl:" in captured.err
    assert "`p`" in captured.err


def test_json(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", bad]) == 1
    captured = capsys.readouterr()
    findings = json.loads(captured.out)
    assert findings[0]["span"]["file"] == "bad.nl"
    assert captured.err == ""


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "none.nl"]) == 1
    assert "none.nl" in capsys.readouterr().err


def test_check_does_not_import_torch(good: str) -> None:
    code = f"""
import sys
from nldsl.cli.main import main
assert main(["check", {good!r}]) == 0
print([m for m in ("torch", "rich") if m in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
