"""`--require-backend`: a fallback is an error; without it the fallback is said once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.cli.main import main

# A state that begins anew from another state: such a loop has no backward pass of its own. An output that is an input.
GAP = """memory Restarted(d: dim = 4) {
  state T: [d, d] = 0
  state S: [d, d] = T reset every 4 token
  step(k: [d], v: [d]) {
    S <- tanh(0.9 * S + outer(v, k))
    T <- tanh(T + S)
    return {S @ k, k}
  }
}
"""
SMALL = Path(__file__).parents[2] / "integration" / "small.nl"


@pytest.fixture
def gap(tmp_path: Path) -> str:
    path = tmp_path / "gap.nl"
    path.write_text(GAP)
    return str(path)


@pytest.mark.filterwarnings("default")
def test_a_fallback_is_said_once(gap: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", gap, "--backend", "mlir", "--ticks", "3"]) == 0
    said = capsys.readouterr().err
    assert said.count("remark: the loop of T, S has no native form: ") == 1
    assert said.count("remark: `step` has no native form: ") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["verify", "GAP", "--backend", "mlir", "--ticks", "3"],
        ["train", "GAP", "--backend", "mlir", "--data", "GAP", "--steps", "1", "--out", "OUT"],
    ],
)
def test_it_is_an_error_where_the_backend_is_required(
    gap: str, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [w.replace("GAP", gap).replace("OUT", str(tmp_path / "out")) for w in command]
    assert main([*words, "--require-backend"]) == 1
    said = capsys.readouterr().err
    assert "error[NL0795]: the loop of T, S has no native form" in said
    assert "state T: [d, d] = 0" in said


def test_nothing_is_said_of_a_backend_that_has_all_forms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "module.py")
    assert main(["compile", str(SMALL), "-o", out, "--require-backend"]) == 0
    assert "remark" not in capsys.readouterr().err
