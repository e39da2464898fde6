"""What examples may expect."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.api import check_text
from nldsl.testing.examples import run_examples


@pytest.mark.parametrize(
    ("expected", "holds"),
    [
        ('"a" == "a"', True),
        ('"a" == "b"', False),
        ('"a" != "b"', True),
        ("true == (1 < 2)", True),
        ("false == (1 < 2)", False),
        ("[1, 2] == [1, 2]", True),
        ("[1, 2] == [1, 3]", False),
        ("1 + 1e-12 == 1", True),
    ],
)
def test_expect(expected: str, holds: bool, tmp_path: Path) -> None:
    file = tmp_path / "program.nl"
    file.write_text(f'example "one" {{\n  expect {expected}\n}}\n')
    (result,) = run_examples(file)
    assert (not result.failures) == holds


@pytest.mark.parametrize("line", ["x == [1, 2]", "- x", "[3] == x"])
def test_a_value_that_nothing_uses_is_a_mistake(line: str) -> None:
    text = f'example "one" {{\n  x = [1, 2]\n  {line}\n  expect x == [1, 2]\n}}\n'
    assert [d.code for d in check_text(text)] == ["NL0220"]
