"""`nldsl explain CODE`."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.cli.main import main
from tests.conftest import Golden


def test_code(capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    assert main(["explain", "nl0790"]) == 0
    golden(capsys.readouterr().out)


def test_no_such_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "NL0780"]) == 1
    assert "there is no code NL0780; did you mean `NL0" in capsys.readouterr().err


def test_peak_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "memory M(d: dim = 4) {\n state s: [d] = 0\n step(x: [d]) -> [d] {\n s <- 0.5 * s + x\n return s\n }\n}\n"
    (tmp_path / "m.nl").write_text(text)
    assert main(["explain", str(tmp_path / "m.nl"), "--memory"]) == 0
    shown = capsys.readouterr().out
    assert "* ticks) bytes" in shown
    assert "MiB for 8 x 2,048 tokens" in shown
