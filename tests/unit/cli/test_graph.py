from __future__ import annotations

import json
from pathlib import Path

import pytest

from nldsl.cli.main import main

PROGRAM = """
memory Delta(d: dim) {
  state S: [d, d] = 0
  step(k: [d], v: [d]) -> [d] every token {
    y = S @ k
    S <- S - 0.5 * grad(sum((S @ k - v) ^ 2), S)
    return y
  }
}

model Small(d: dim = 4, layers: int = 2) {
  level slow = every 8 step
  input x: [d]
  repeat layers {
    memory m: Delta(d)
    param w: [d, d]
    x = x + m.step(w @ x, x)
  }
  minimize sum(x * x) at slow
  return x
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.nl"
    path.write_text(PROGRAM)
    return path


def test_text_to_the_terminal(file: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["graph", str(file)]) == 0
    shown = capfdbinary.readouterr().out.decode()
    assert shown.startswith("Small · 2 levels · 2 memories")
    assert "∇ own loss" in shown


@pytest.mark.parametrize(
    ("ending", "start"),
    [
        ("svg", b"<svg"),
        ("png", b"\x89PNG"),
        ("html", b"<!DOCTYPE html>"),
        ("dot", b"digraph levels {"),
        ("mmd", b"flow"),
    ],
)
def test_the_ending_chooses_the_format(file: Path, ending: str, start: bytes) -> None:
    pytest.importorskip("pygraphviz")
    output = file.with_suffix(f".{ending}")
    assert main(["graph", str(file), "-o", str(output)]) == 0
    assert output.read_bytes().startswith(start)


def test_json_and_settings(file: Path) -> None:
    output = file.with_suffix(".json")
    assert main(["graph", str(file), "--set", "layers=3", "-o", str(output)]) == 0
    value = json.loads(output.read_text())
    assert len([n for n in value["nodes"] if n["kind"] == "memory"]) == 3
    assert main(["graph", str(file), "--format", "model-explorer", "-o", str(output)]) == 0
    assert "graphs" in json.loads(output.read_text())


def test_an_entry(file: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["graph", str(file), "--entry", "Delta"]) == 0
    found = capfdbinary.readouterr()
    assert found.out.decode().startswith("Delta · 1 level · 1 memory")
    assert b"sizes chosen for the picture: d = " in found.err


def test_levels_collapse(file: Path) -> None:
    output = file.with_suffix(".dot")
    assert main(["graph", str(file), "--collapse", "slow", "-o", str(output)]) == 0
    assert "2 blocks" in output.read_text()


@pytest.mark.parametrize(
    "arguments", [["-o", "x.pdf"], ["--set", "layers"], ["--collapse", "fast"], ["--format", "gif"], ["--depth"]]
)
def test_wrong_usage(file: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", str(file), *arguments]) == 2
    assert capsys.readouterr().err


def test_a_wrong_program(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("model M { x = y }")
    assert main(["graph", str(file)]) == 1
    assert "NL0201" in capsys.readouterr().err


def test_a_missing_file(tmp_path: Path) -> None:
    assert main(["graph", str(tmp_path / "none.nl")]) == 1
