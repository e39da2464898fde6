"""The one close name worth naming in a hint."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from nldsl.diagnostics.suggest import suggest


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The nearest of the candidates, None if none is near."""
    found = suggest(name, list(candidates))
    return found[0] if found else None


_DECLARED = re.compile(r"^(?:memory|block|model|fn|objective|retention)\s+(\w+)", re.MULTILINE)


def standard_module(name: str) -> str:
    """The file of the standard library that declares a name, as it is imported; "" if none does."""
    return _standard_names().get(name, "")


@cache
def _standard_names() -> dict[str, str]:
    import nldsl.stdlib

    found: dict[str, str] = {}
    for folder in map(Path, nldsl.stdlib.__path__):
        for path in sorted(folder.rglob("*.nl")):
            module = path.relative_to(folder).with_suffix("").as_posix()
            for declared in _DECLARED.findall(path.read_text(encoding="utf-8")):
                found.setdefault(declared, module)
    return found
