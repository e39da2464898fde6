"""Machine code for sm_80 and sm_90 without a GPU, and what the compiler says about registers, spills, shared memory.

In a process of its own: here Triton is in its interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "compile_program.py"
SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes that one program may have
HOT = [
    ("gated_linear.nl", "Mamba2"),
    ("gated_linear.nl", "GatedLinearAttention"),
    ("delta.nl", "DeltaNet"),
    ("delta.nl", "GatedDelta"),
    ("delta.nl", "KimiDelta"),
    ("low_rank.nl", "RWKV7"),
]
HOPPER = {("KimiDelta", 32): [16]}  # bytes a thread of each kernel that spills; other programs and widths have none
# What is pinned of deep memories: file, program, dims, kernels that spill, bytes a thread of the worst of them.
DEEP = [
    ("titans.nl", "Titans", {"dk": 64, "dv": 64}, 0, 0),
    ("titans.nl", "Titans", {"dk": 128, "dv": 128}, 2, 56),
    ("ttt.nl", "TTTMlp", {"d": 64}, 0, 0),
]
# In float32: target, program, width of those that spill, with the bytes of each kernel; the others spill nothing.
SINGLE = {(90, "DeltaNet", 128): [360], (90, "RWKV7", 128): [228]}


def reports(
    path: str, entry: str, target: int, part: str, dtype: str = "bf16", **dims: int
) -> dict[str, dict[str, int]]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), path, entry, str(target), part, json.dumps(dims), dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    assert found
    return found


def check(path: str, entry: str, target: int, part: str, dtype: str = "bf16", /, **dims: int) -> dict[str, int]:
    """The bytes that each kernel spills, where it does."""
    found = reports(path, entry, target, part, dtype, **dims)
    for name, report in found.items():
        assert 0 < report["registers"] <= 255, name
        assert report["shared"] <= SHARED[target], name
    return {name: report["spilled"] for name, report in found.items() if report["spilled"]}


def test_a_decaying_memory_for_hopper() -> None:
    assert check("stdlib/memories/gated_linear.nl", "Mamba2", 90, "fwd_step", dk=64, dv=64) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("width", [32, 64, 96, 128, 256])
@pytest.mark.parametrize(("file", "entry"), HOT, ids=[entry for _, entry in HOT])
def test_nothing_spills_on_hopper(file: str, entry: str, width: int) -> None:
    """All kernels of a program, forward and backward."""
    spilled = check(f"stdlib/memories/{file}", entry, 90, "", dk=width, dv=width)
    assert [*spilled.values()] == HOPPER.get((entry, width), []), spilled


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("target", "width"), [(90, 64), (90, 128), (80, 64)])
@pytest.mark.parametrize(("file", "entry"), HOT, ids=[entry for _, entry in HOT])
def test_what_spills_in_single_precision(file: str, entry: str, target: int, width: int) -> None:
    """Products in three passes, segments of half or a quarter as many ticks."""
    spilled = check(f"stdlib/memories/{file}", entry, target, "", "fp32", dk=width, dv=width)
    assert [*spilled.values()] == SINGLE.get((target, entry, width), []), spilled


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("file", "entry"), HOT, ids=[entry for _, entry in HOT])
def test_the_other_half_type_spills_nothing_either(file: str, entry: str) -> None:
    assert check(f"stdlib/memories/{file}", entry, 90, "", "fp16", dk=64, dv=64) == {}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("file", "entry", "dims", "count", "most"), DEEP, ids=[f"{row[1]}-{next(iter(row[2].values()))}" for row in DEEP]
)
def test_what_deep_memories_spill(file: str, entry: str, dims: dict[str, int], count: int, most: int) -> None:
    """Hidden layers of 256 and 512 units; what is pinned is what was found."""
    spilled = check(f"stdlib/memories/{file}", entry, 90, "", **dims)
    assert (len(spilled), max(spilled.values(), default=0)) == (count, most), spilled


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize(("file", "entry"), HOT, ids=[entry for _, entry in HOT])
def test_nothing_spills_on_ampere(file: str, entry: str, width: int) -> None:
    """There matrix products take their operands from registers."""
    assert check(f"stdlib/memories/{file}", entry, 80, "", dk=width, dv=width) == {}
