"""What kernels leave in memory for later ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.backends.triton.job import Key
from nldsl.dims import Dim


@dataclass(frozen=True)
class Slot:
    """A workspace: a tile for each segment and lane. ``zero``: where its padding is 0. ``narrow``: in the type of
    matrix products. ``parts``: so many tiles to be added up, the first of the sizes."""

    name: str
    sizes: tuple[Dim, ...]
    zero: frozenset[int] = frozenset()
    narrow: bool = False
    parts: int = 0


@dataclass
class Workspaces:
    """What kernels leave for later ones, by value of the body or by carried key; ``begun`` is what the forward run left
    of its carried values for the way back. ``narrow``: which of them may be in the type of matrix products."""

    values: dict[int, Slot] = field(default_factory=dict)
    kept: dict[Key, Slot] = field(default_factory=dict)
    begun: dict[Key, Slot] = field(default_factory=dict)
    sums: dict[str, Slot] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    narrow: frozenset[int | Key] = frozenset()

    def every(self) -> list[Slot]:
        """All workspaces."""
        found = (*self.values.values(), *self.kept.values(), *self.begun.values(), *self.sums.values())
        return list(dict.fromkeys(found))

    def new(
        self, hint: str, sizes: tuple[Dim, ...], zero: frozenset[int], narrow: bool = False, parts: int = 0
    ) -> Slot:
        base = "".join(c if c.isalnum() else "_" for c in hint) or "x"
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}_{count}"
        self.names.add(name)
        return Slot(name, sizes, zero, narrow, parts)
