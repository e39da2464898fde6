"""The one close name worth naming in a hint."""

from __future__ import annotations

from collections.abc import Iterable

from nldsl.diagnostics.suggest import suggest


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The nearest of the candidates, None if none is near."""
    found = suggest(name, list(candidates))
    return found[0] if found else None
