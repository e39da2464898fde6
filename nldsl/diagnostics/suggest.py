"""Guess what a misspelt name was meant to be."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "suggest"]

# A name longer than this is compared by its beginning: the comparison is quadratic, and the text may be hostile.
_LONGEST = 80
# Likewise for the number of names compared.
_MOST = 2000


def suggest(name: str, candidates: Iterable[str], count: int = 3) -> list[str]:
    """Return the names most like `name`, best first; none if nothing is near."""
    from difflib import get_close_matches

    known = sorted({c[:_LONGEST] for c in candidates} - {name})[:_MOST]
    folded = [c for c in known if c.casefold() == name.casefold()]
    close = get_close_matches(name[:_LONGEST], known, n=count, cutoff=0.6)
    return list(dict.fromkeys([*folded, *close]))[:count]


def did_you_mean(name: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """Return the hint for a misspelt name: a tuple that is ready for `hints`, empty if nothing is near."""
    found = suggest(name, candidates)
    if not found:
        return ()
    quoted = [f"`{c}`" for c in found]
    listed = quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
    return (f"did you mean {listed}?",)
