"""The experiments run: one seed and few steps of each, nothing written. Their pages are in docs/experiments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ("formal_languages", "recall", "continual", "optimizers")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_runs(name: str) -> None:
    command = [sys.executable, "-m", f"examples.{name}", "--quick"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_has_a_page_with_its_numbers(name: str) -> None:
    folder = ROOT / "docs" / "experiments"
    page = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert f"({name}.svg)" in page
    assert f"({name}.md)" in (folder / "index.md").read_text(encoding="utf-8")
    for row in json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["found"]:
        assert f"| {row} |" in page
