"""Every example in the standard library holds, and every file of it checks without a finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.api import check_file
from nldsl.testing.examples import run_examples

STDLIB = Path(__file__).parents[2] / "stdlib"
FILES = sorted(p.relative_to(STDLIB).as_posix() for p in STDLIB.rglob("*.nl"))


@pytest.mark.parametrize("name", FILES)
def test_file_checks(name: str) -> None:
    assert [str(d.message) for d in check_file(STDLIB / name)] == []


@pytest.mark.parametrize("name", FILES)
def test_examples_hold(name: str) -> None:
    for result in run_examples(STDLIB / name):
        assert result.expectations, f"the example {result.title!r} expects nothing"
        assert not result.failures, "\n".join(map(str, result.failures))
