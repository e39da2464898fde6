"""The generated catalogue belongs to the programs that are there: ``python -m tests.oracles.catalogue`` writes it."""

from __future__ import annotations

import pytest

from tests.oracles.catalogue import OUT, entries, measured
from tests.oracles.harness import GRADIENTS, VALUES
from tests.oracles.table import GROUPS


def test_every_program_has_a_page_with_its_text() -> None:
    for entry in entries():
        page = (OUT / entry.page).read_text(encoding="utf-8")
        assert entry.text in page, f"{entry.page} is of an older program: run python -m tests.oracles.catalogue --pages"


def test_no_page_is_left_over() -> None:
    pages = {entry.page for entry in entries()} | {"index.md"}
    assert {p.relative_to(OUT).as_posix() for p in OUT.rglob("*.md")} == pages


def test_every_comparison_is_in_the_table_and_passes() -> None:
    rows = measured()
    shown = {(r.name, r.oracle) for r in rows}
    assert {(c.shown, c.against) for cases in GROUPS.values() for c in cases} <= shown
    assert [r.name for r in rows if not r.passes] == []


@pytest.mark.parametrize("place", range(4))
def test_errors_are_within_the_bounds(place: int) -> None:
    bound = (VALUES, GRADIENTS)[place % 2]
    for r in measured():
        if place < len(r.numbers) and r.numbers[place] not in ("", "-"):
            assert float(r.numbers[place]) <= bound, r.name
