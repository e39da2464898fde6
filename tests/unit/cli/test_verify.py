"""`nldsl verify`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nldsl.cli.main import main

FILE = str(Path(__file__).parents[1] / "explain" / "memories.nl")


def test_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", FILE, "--entry", "GatedDelta", "--set", "dk=2", "--ticks", "4"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("memory GatedDelta\n  4 tokens, batch 3, signed inputs, dk = 2")
    assert out.endswith("all 11 checks hold\n")


def test_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", FILE, "--entry", "Broken"]) == 1
    assert "checks failed" in capsys.readouterr().out


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", FILE, "--entry", "GatedDelta", "--ticks", "3", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["ok"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "tensorflow"], "no backend 'tensorflow'"),
        (["--entry", "GatedDelta", "--all"], "exclude each other"),
        (["--set", "dk"], "--set wants NAME=VALUE"),
        (["--set", "dk=2", "--set", "dk=3"], "given twice"),
    ],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", FILE, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_wrong_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", FILE, "--entry", "GatedDeltas"]) == 1
    assert "did you mean `GatedDelta`?" in capsys.readouterr().err


def test_all_leaves_out_what_cannot_stand_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.nl"
    file.write_text(
        "memory One() {\n  state s: [] = 0\n  step(x: []) -> [] { s <- s + x; return s }\n}\n"
        "memory Two(loss: fn) {\n  state s: [] = 0\n  step(x: []) -> [] { s <- s + loss(x); return s }\n}\n"
    )
    assert main(["verify", str(file), "--all", "--ticks", "3"]) == 0
    seen = capsys.readouterr()
    assert seen.out.count("checks hold") == 1
    assert "Two is left out: its loss has no default" in seen.err
