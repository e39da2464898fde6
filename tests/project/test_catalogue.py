"""Every diagnostic code is documented, used, and shown by a program that runs here."""

from __future__ import annotations

import re

import pytest

from nldsl.diagnostics.catalogue import GROUPS, Entry, all_codes, lookup
from tests.project.sources import ROOT, modules

CODE = re.compile(r"[\"'](NL\d{4})[\"']")
CODES = all_codes()


def entry(code: str) -> Entry:
    found = lookup(code)
    assert found is not None
    return found


def used_codes() -> dict[str, str]:
    """Code -> a module that uses it."""
    return {code: name for name, path in modules().items() for code in CODE.findall(path.read_text(encoding="utf-8"))}


def test_every_code_used_is_documented() -> None:
    missing = {code: where for code, where in used_codes().items() if code not in CODES}
    assert not missing


def test_every_documented_code_is_used() -> None:
    assert not set(CODES) - set(used_codes())


@pytest.mark.parametrize("code", CODES)
def test_page_is_well_formed(code: str) -> None:
    page = entry(code)
    assert code[:4] in GROUPS
    assert not page.title.endswith(".")
    assert page.bad.strip() != page.fixed.strip()


def test_titles_are_distinct() -> None:
    titles = [entry(code).title for code in CODES]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("code", [code for code in CODES if entry(code).runnable])
def test_examples_do_what_they_say(code: str) -> None:
    from nldsl.api import check_text

    page = entry(code)
    bad = check_text(page.bad)
    assert code in [d.code for d in bad], f"the bad example of {code} gives {[(d.code, d.message) for d in bad]}"
    fixed = [(d.code, d.message) for d in check_text(page.fixed) if d.is_error or d.code == code]
    assert not fixed, f"the fixed example of {code} gives {fixed}"


@pytest.mark.parametrize("code", [code for code in CODES if not entry(code).runnable])
def test_codes_without_a_program_are_tested_elsewhere(code: str) -> None:
    tests = [p for p in (ROOT / "tests").rglob("*") if p.suffix in (".py", ".txt", ".toml", ".json") and p.is_file()]
    assert any(code in path.read_text(encoding="utf-8", errors="replace") for path in tests)
