"""`nldsl compile`: files that run by themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nldsl import api
from nldsl.cli.main import main

FILE = Path(__file__).parents[1] / "explain" / "memories.nl"

ALONE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch, small
from safetensors.torch import load_file
params = load_file(sys.argv[1] + "/small.safetensors")
inputs = {"tokens": torch.tensor([[3, 1, 4, 1, 5]]), "next_tokens": torch.tensor([[1, 4, 1, 5, 9]])}
state = small.init_state(params, 1, torch.float32, torch.device("cpu"))
outputs, losses, _, state = small.forward(params, inputs, state)
assert not [name for name in sys.modules if name.split(".")[0] == "nldsl"]
print(json.dumps([next(iter(outputs.values())).tolist(), next(iter(losses.values())).tolist(), state["@tick"]]))
"""


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    assert main(["compile", str(FILE), "--entry", "Small", "-o", str(tmp_path / "small.py"), "--seed", "7"]) == 0
    return tmp_path


def test_runs_without_the_compiler(compiled: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(compiled)], capture_output=True, text=True, check=True
    )
    outputs, losses, tick = json.loads(done.stdout)
    module = api.compile(FILE, "Small", seed=7)
    expected = module(torch.tensor([[3, 1, 4, 1, 5]]))
    torch.testing.assert_close(torch.tensor(outputs), expected, rtol=1e-5, atol=1e-6)
    assert len(losses[0]) == tick == 5


def test_says_what_it_is(compiled: Path) -> None:
    said = json.loads((compiled / "small.json").read_text())
    assert said["program"] == "Small"
    assert said["parameters_file"] == "small.safetensors"
    assert set(said["parameters"]) == set(load_file(compiled / "small.safetensors")) == {"table", "wr", "wk"}
    assert str(FILE.parent) not in (compiled / "small.json").read_text()


def test_twice_the_same(compiled: Path) -> None:
    first = {p.name: p.read_bytes() for p in compiled.iterdir()}
    assert main(["compile", str(FILE), "--entry", "Small", "-o", str(compiled / "small.py"), "--seed", "7"]) == 0
    assert {p.name: p.read_bytes() for p in compiled.iterdir()} == first


def test_nothing_is_written_for_a_wrong_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(FILE), "--entry", "Smal", "-o", str(tmp_path / "x.py")]) == 1
    assert "did you mean `Small`?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.txt"], "ends in .py"),
        (["-o", "x.py", "--backend", "nope"], "no backend 'nope'"),
        ([], "Missing option"),
    ],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(FILE), "--entry", "Small", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_code_that_needs_nldsl_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")
    target = tmp_path / "small.py"
    assert main(["compile", str(FILE), "-o", str(target), "--backend", "mlir"]) == 2
    assert "needs nldsl to run; compile for torch instead" in capsys.readouterr().err
    assert not target.exists()
