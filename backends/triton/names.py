"""Python names for what a program names."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What the functions around kernels call their own.
OWN = frozenset(
    "tick t N T B TICKS BT EVERY PACKED lanes rows segments sequences bounds since shared owner cuts low wide types "
    "narrow constants out launch torch triton tl functools itertools math results grads ctx inputs output grad shape "
    "dtype device".split()
)


class Names:
    """Gives each name once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = {*OWN, *taken}

    def new(self, hint: str) -> str:
        """A name that is like ``hint``."""
        base = re.sub(r"\W", "_", hint, flags=re.ASCII).strip("_") or "x"
        base = base if base[0].isalpha() else f"x{base}"
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name


def mentions(text: str, name: str) -> bool:
    """Whether a name is in a piece of code."""
    return re.search(rf"\b{re.escape(name)}\b", text) is not None
