"""What each diagnostic code means: a page per code, `codes/NL0123.md`, read when it is asked for.

A page is a title line `# ...`, an explanation in Markdown, and two fenced blocks. The words after the fence say what
they are: `nl bad` and `nl fixed` are whole programs, and the tests check that the first is reported under this code and
the second is not. A finding that no single program provokes (a missing file, a missing extra) shows `text bad` and
`text fixed` instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GROUPS", "Entry", "all_codes", "lookup", "parse_entry"]

GROUPS = {
    "NL00": "files, encodings, limits, imports",
    "NL01": "syntax",
    "NL02": "names and declarations",
    "NL03": "shapes and types",
    "NL04": "clocks, levels, anchors, resets",
    "NL05": "grad and differentiation edges",
    "NL06": "roles: objective, retention, optimizer",
    "NL07": "backends and run time",
    "NL08": "training, data, checkpoints",
    "NL09": "internal errors",
}

_CODE = re.compile(r"NL\d{4}")
_FENCE = re.compile(r"^```(?P<kind>nl|text) (?P<role>bad|fixed)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """One page of the catalogue."""

    code: str
    title: str
    explanation: str
    bad: str
    fixed: str
    runnable: bool

    @property
    def group(self) -> str:
        """What the codes of this hundred are about."""
        return GROUPS[self.code[:4]]


def all_codes() -> tuple[str, ...]:
    """Return every documented code, in order."""
    names = (page.name.removesuffix(".md") for page in _folder().iterdir() if page.name.endswith(".md"))
    return tuple(sorted(name for name in names if _CODE.fullmatch(name)))


def lookup(code: str) -> Entry | None:
    """Return the page of a code (in any case), or None if there is none."""
    code = code.upper()
    if not _CODE.fullmatch(code):
        return None
    page = _folder() / f"{code}.md"
    return parse_entry(code, page.read_text(encoding="utf-8")) if page.is_file() else None


def parse_entry(code: str, text: str) -> Entry:
    """Read a page; a page that lacks a part is a mistake in the compiler and raises ValueError."""
    head, _, rest = text.partition("\n")
    if not head.startswith("# "):
        raise ValueError(f"{code}: the first line must be `# title`")
    blocks = list(_FENCE.finditer(rest))
    roles = [block["role"] for block in blocks]
    kinds = {block["kind"] for block in blocks}
    if roles != ["bad", "fixed"] or len(kinds) != 1:
        raise ValueError(f"{code}: needs one block `bad` and then one block `fixed`, both `nl` or both `text`")
    explanation = rest[: blocks[0].start()].strip()
    if not explanation:
        raise ValueError(f"{code}: the explanation is missing")
    bad, fixed = (block["body"] for block in blocks)
    return Entry(code, head[2:].strip(), explanation, bad, fixed, kinds == {"nl"})


def _folder() -> Path:
    return Path(__file__).with_name("codes")
