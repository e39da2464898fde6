"""Loops over ticks and steps as machine code for sm_80 and sm_90: what the compiler says of registers and spills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "compile_ticks.py"
TICKS = str(Path(__file__).parent / "ticks.nl")
MEMORIES = "stdlib/memories/"
STEPS: list[tuple[str, str, dict[str, int]]] = [
    (MEMORIES + "linear_attention.nl", "LinearAttention", {"dk": 64, "dv": 64}),
    (MEMORIES + "delta.nl", "GatedDelta", {"dk": 128, "dv": 128}),
    (MEMORIES + "low_rank.nl", "RWKV7", {"dk": 64, "dv": 64}),
    (MEMORIES + "ttt.nl", "TTTLinear", {"d": 64}),
]


def spilled(path: str, entry: str, target: int, form: str, dims: dict[str, int]) -> dict[str, int]:
    """The bytes that each kernel spills, where it does."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), path, entry, str(target), form, json.dumps(dims)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert len(found) >= (2 if form == "loop" else 1)
    assert all(0 < report["registers"] <= 255 for report in found.values())
    return {name: report["spilled"] for name, report in found.items() if report["spilled"]}


def test_a_step_for_hopper() -> None:
    assert spilled(MEMORIES + "delta.nl", "GatedDelta", 90, "step", {"dk": 64, "dv": 64}) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize(("path", "entry", "dims"), STEPS)
def test_steps_spill_nothing(path: str, entry: str, dims: dict[str, int], target: int) -> None:
    assert spilled(path, entry, target, "step", dims) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("entry", ["Lstm", "Squashed"])
def test_loops_of_64_units_spill_nothing(entry: str, target: int) -> None:
    """Forward and backward; the columns of the squashed state are divided on the way there."""
    assert spilled(TICKS, entry, target, "loop", {"d": 64}) == {}
