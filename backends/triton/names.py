"""Python names for what a program names."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Names:
    """Gives each name once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        own = "tick t N T B TICKS BT rows bounds low wide types constants out launch torch triton tl results grads ctx"
        self.taken = {*own.split(), *taken}

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
