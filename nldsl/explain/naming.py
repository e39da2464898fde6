"""Names of lines: the user's names where there are some, letters that say what kind of value it is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

from nldsl.explain.terms import Chain, Contraction, Norm2, Product, Sum, Term


def short_names(paths: Iterable[str], first: Iterable[str] = ()) -> dict[str, str]:
    """Each path by its shortest ending that no other path has: ``layers.0.memory.S`` becomes ``S`` or ``memory.S``.

    The paths in ``first`` are told apart from one another only; the others keep clear of their names.
    """
    short: dict[str, str] = _shortest(list(dict.fromkeys(first)), set())
    return short | _shortest([p for p in dict.fromkeys(paths) if p not in short], set(short.values()))


def _shortest(known: list[str], taken: set[str]) -> dict[str, str]:
    short: dict[str, str] = {}
    for path in known:
        parts = path.split(".")
        for count in range(1, len(parts) + 1):
            ending = ".".join(parts[-count:])
            if ending[0].isdigit() and count < len(parts):
                continue
            clash = any(p != path and (p == ending or p.endswith("." + ending)) for p in known)
            if (not clash and ending not in taken) or count == len(parts):
                short[path] = ending
                break
    return short


class Names:
    """Hands out names that are not taken yet."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def __contains__(self, name: str) -> bool:
        return name in self._taken

    def take(self, others: Names) -> None:
        """Keep clear of the names that others have handed out."""
        self._taken |= others._taken

    def primed(self, state: str) -> str:
        """A name for a value of a state between its value before and after the tick."""
        name = state + "′"
        while name in self._taken:
            name += "′"
        self._taken.add(name)
        return name

    def hinted(self, hint: str) -> str:
        """The name from the program, numbered when it is used for several values."""
        return self._numbered(hint.rsplit(".", 1)[-1] or hint)

    def invented(self, term: Term) -> str:
        """A letter by convention: e for differences, A for matrices, z for products, c for scalars, h for the rest."""
        return self._numbered(_letter(term))

    def _numbered(self, base: str) -> str:
        name, number = base, 2
        while name in self._taken:
            name, number = f"{base}{'_' if base[-1].isdigit() else ''}{number}", number + 1
        self._taken.add(name)
        return name


def _letter(term: Term) -> str:
    if term.shape == ():
        return "c"
    if len(term.shape) > 1:
        return "A"
    if isinstance(term, Sum) and any(isinstance(t, Product) and t.coefficient < 0 for t in term.terms):
        return "e"
    core = term.core if isinstance(term, Product) else term
    return "z" if isinstance(core, Chain | Contraction | Norm2) else "h"
