"""Some of the inputs of `tests/fuzz/run.py`, in every run of the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.guard import Forbidden, watched
from tests.fuzz.inputs import make
from tests.fuzz.judge import TooSlow, check, limited, read
from tests.fuzz.run import attempt, warm

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs interval timers")


@pytest.mark.parametrize("block", range(8))
def test_reading(block: int) -> None:
    outcomes = [read(make(seed)) for seed in range(block * 300, block * 300 + 300)]
    assert outcomes


def test_checking() -> None:
    warm()
    failures = [trace for seed in range(200) if (trace := attempt(seed, 20)[1])]
    assert not failures, failures[0]


@pytest.mark.parametrize(
    "value",
    ["(" * 250 + "x" + ")" * 250, "-" * 1000 + "x", "x" + " + x" * 1000, "f(" * 250 + "x" + ")" * 250],
    ids=["parentheses", "signs", "sum", "calls"],
)
def test_checking_deep_programs(value: str) -> None:
    check(f"fn f(x: []) -> [] = x\nfn g(x: []) -> [] = {value}\nmemory M {{\nread(x: []) -> [] = {value}\n}}")


def test_the_guard_guards(tmp_path: Path) -> None:
    forbidden: list[Callable[[], object]] = [
        lambda: compile("1", "x", "eval"),
        lambda: (tmp_path / "x").write_text("x"),
        lambda: Path("/etc/hostname").read_text(encoding="utf-8"),
        lambda: subprocess.run(["true"], check=False),
        lambda: Path("x").unlink(missing_ok=True),
    ]
    for act in forbidden:
        with pytest.raises(Forbidden), watched():
            act()


def test_the_limit_limits() -> None:
    with pytest.raises(TooSlow), limited(0.05):
        while True:
            pass
