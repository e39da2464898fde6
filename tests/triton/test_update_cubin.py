"""Machine code of updates for sm_80 and sm_90 without a GPU: nothing spills.

In a process of its own: here Triton is in its interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.triton.test_cubin import SHARED


def check(call: str, file: str, shape: tuple[int, ...], target: int, kind: str) -> dict[str, int]:
    """The bytes that each kernel spills, where it does."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.triton.compile_update", call, file, json.dumps(shape), str(target), kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    assert found
    for name, report in found.items():
        assert 0 < report["registers"] <= 255, name
        assert report["shared"] <= SHARED[target], name
    return {name: report["spilled"] for name, report in found.items() if report["spilled"]}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("kind", ["half", "tf32"])
@pytest.mark.parametrize(("call", "file"), [("AdamW()", "adam"), ("NAdam()", "adam"), ("Trusting()", "")])
def test_updates_of_entries(call: str, file: str, kind: str, target: int) -> None:
    assert check(call, file, (64, 64), target, kind) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", [80, 90])
@pytest.mark.parametrize("kind", ["half", "tf32", "tf32x3"])
def test_updates_of_matrices(kind: str, target: int) -> None:
    assert check("Muon(steps = 2)", "muon", (1024, 4096), target, kind) == {}
