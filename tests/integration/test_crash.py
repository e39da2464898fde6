"""`kill -9` at any moment loses nothing but the steps since the last checkpoint, and the result has the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from nldsl.train.checkpoint import Checkpoint, Spec, complete_checkpoints, load
from nldsl.train.logs import read_log
from nldsl.train.tree import split


def assert_same_bits(left: Checkpoint, right: Checkpoint) -> None:
    """Compare everything but wall-clock times."""
    for field in fields(Checkpoint):
        if field.name == "trainer":
            continue
        a_value, a_tensors = split(getattr(left, field.name) if field.name != "spec" else left.spec.sha256)
        b_value, b_tensors = split(getattr(right, field.name) if field.name != "spec" else right.spec.sha256)
        assert a_value == b_value, field.name
        for name, tensor in a_tensors.items():
            assert tensor.numpy().tobytes() == b_tensors[name].numpy().tobytes(), f"{field.name}: {name}"
    for name in ("step", "tokens", "skipped", "first_bits", "last_bits", "observed"):
        assert left.trainer["progress"][name] == right.trainer["progress"][name], name


@pytest.mark.parametrize(
    ("kills", "more"),
    [
        (44, []),
        pytest.param(200, [], marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
        pytest.param(12, ["compiled"], marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_kills(tmp_path: Path, repository: Path, kills: int, more: list[str]) -> None:
    command = [sys.executable, "-m", "tests.integration.crash_runs", str(tmp_path), str(kills), "1", *more]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["killed"] >= kills
    unbroken = load(Path(said["unbroken"]))
    assert unbroken.step == 40
    log = [r for r in read_log(Path(said["unbroken"]) / "log.jsonl") if r["kind"] == "step"]
    for run in map(Path, said["runs"]):
        assert_same_bits(load(run), unbroken)
        assert [p.name for p in complete_checkpoints(run)] == ["step-000038", "step-000040"]
        assert sorted(p.name for p in run.iterdir()) == ["log.jsonl", "step-000038", "step-000040"]
        steps = [r for r in read_log(run / "log.jsonl") if r["kind"] == "step"]
        assert [r["levels"] for r in steps] == [r["levels"] for r in log]
        assert [(r["step"], r["loss"]) for r in steps] == [(r["step"], r["loss"]) for r in log]


def test_the_comparison_can_fail() -> None:
    spec = Checkpoint(1, Spec(""), {"w": torch.zeros(2)}, trainer={"progress": {}})
    other = Checkpoint(1, spec.spec, {"w": -torch.zeros(2)}, trainer={"progress": {}})
    with pytest.raises(AssertionError, match="params: w"):
        assert_same_bits(spec, other)
