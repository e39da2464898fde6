"""The benchmark commands run, and what is compared computes the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import cpu, optimizers


def run(command: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    module = cpu if command.startswith("cpu") else optimizers
    monkeypatch.setattr(sys, "argv", [*command.split(), "--threads", "1", "--json", str(path)])
    assert module.main() == 0
    rows: list[dict[str, object]] = json.loads(path.read_text())["rows"]
    return rows


@pytest.mark.parametrize("program", ["linear", "gla", "deltanet"])
def test_forms_by_hand_are_the_same_function(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = f"cpu --shape 1,2,128,16 --only {program} --peers hand --no-compile --rounds 1 --seconds 1 --clock cpu"
    rows = run(options, tmp_path / "out.json", monkeypatch)
    assert {r["mode"] for r in rows} == {"fwd", "fwd+bwd"}
    errors = [r["error"] for r in rows if r["mode"] == "fwd"]
    assert errors
    assert all(isinstance(e, float) and e < 1e-5 for e in errors)


def test_optimizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run("optimizers --quick --only adam --repetitions 1", tmp_path / "out.json", monkeypatch)
    assert [r["peer"] for r in rows] == ["torch fused", "torch foreach"]


def test_a_peer_that_is_missing_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LACT_SRC", raising=False)
    run("cpu --shape 1,1,64,8 --only lact --rounds 1 --seconds 1", tmp_path / "out.json", monkeypatch)
    assert "skipped: clone https://github.com/" in capsys.readouterr().out
