"""`nldsl emit`."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.cli.main import main
from nldsl.explain.stages import STAGES
from nldsl.ir.parse import parse_program
from nldsl.ir.print import print_program

FILE = str(Path(__file__).parents[1] / "explain" / "memories.nl")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("entry", ["GatedDelta", "Deep", "Small"])
def test_every_stage(stage: str, entry: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", FILE, "--entry", entry, "--stage", stage]) == 0
    assert capsys.readouterr().out.endswith("\n")


@pytest.mark.parametrize("stage", ["program", "derived", "simplified"])
def test_ir_reads_back(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", FILE, "--entry", "Deep", "--stage", stage]) == 0
    text = capsys.readouterr().out
    assert print_program(parse_program(text)) == text


def test_grad_goes_where_derivatives_are_worked_out(capsys: pytest.CaptureFixture[str]) -> None:
    main(["emit", FILE, "--entry", "GatedDelta", "--stage", "ir"])
    assert " = grad(" in capsys.readouterr().out
    main(["emit", FILE, "--entry", "GatedDelta", "--stage", "derived"])
    assert " = grad(" not in capsys.readouterr().out


def test_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.py"
    assert main(["emit", FILE, "--entry", "Small", "--stage", "torch", "-o", str(target)]) == 0
    assert "def forward(" in target.read_text()
    assert capsys.readouterr().out == ""


def test_no_such_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", FILE, "--stage", "simplifed"]) == 2
    assert "did you mean `simplified`?" in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emit", FILE, "--stage", "list"]) == 0
    assert capsys.readouterr().out.split() == list(STAGES)
