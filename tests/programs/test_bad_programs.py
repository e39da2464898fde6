"""Wrong programs and what users are told: the rendered text is pinned, one file per program."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.api import check_text
from nldsl.diagnostics.catalogue import all_codes, lookup
from nldsl.diagnostics.render import render
from tests.conftest import Golden

BAD = Path(__file__).parent / "bad"


def rendered(text: str, name: str) -> str:
    found = check_text(text, name)
    assert any(d.is_error for d in found), "the program has no mistake"
    return render(found)


@pytest.mark.parametrize("path", sorted(BAD.glob("*.nl")), ids=lambda p: p.stem)
def test_message(path: Path, golden: Golden) -> None:
    golden(rendered(path.read_text(encoding="utf-8"), path.name))


def runnable() -> list[str]:
    return [code for code in all_codes() if (entry := lookup(code)) is not None and entry.runnable]


@pytest.mark.parametrize("code", runnable())
def test_message_of_the_page(code: str, golden: Golden) -> None:
    """The bad example of each page of the catalogue, as a user sees it."""
    entry = lookup(code)
    assert entry is not None
    golden(render(check_text(entry.bad, f"{code}.nl")))


def test_there_are_enough() -> None:
    assert len(list(BAD.glob("*.nl"))) >= 60
