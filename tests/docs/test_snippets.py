"""The programs and the Python of README and docs: programs are checked, Python runs in order, page by page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nldsl.api import check_text

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("tutorial/*.md")),
    *sorted((ROOT / "docs").glob("howto/*.md")),
]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str, str]]:
    return [(m[1], m[2].strip(), m[3]) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_programs(page: Path) -> None:
    for language, info, text in blocks(page):
        if language != "nl":
            continue
        found = [d.code for d in check_text(text) if d.is_error]
        assert found == (info.split()[1:] if info.startswith("error") else []), text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python block that compiles ``name.nl`` means the program before it on the page."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    program = ""
    for language, info, text in blocks(page):
        if language == "nl" and not info:
            program = text
        if language == "python":
            for file in re.findall(r'compile\("(\w+\.nl)"', text):
                (tmp_path / file).write_text(first_before(page, text, program, file), encoding="utf-8")
            exec(compile(text, str(page), "exec"), names)


def first_before(page: Path, text: str, program: str, file: str) -> str:
    assert program, f"{page.name}: no program stands before the use of {file}"
    return program
