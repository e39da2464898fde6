"""An optimizer whose tick is the same computation for every entry of a parameter (found by passes/entrywise.py)."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.ir.program import Instr


@dataclass(frozen=True)
class Entrywise:
    """One tick of an optimizer for one entry of a parameter; two are equal where they do the same.

    ``body`` has scalars only. ``entries`` are the values that differ from entry to entry, the others are numbers that
    all entries share. ``states`` exist once per entry and ``numbers`` once in all: name, initial value, new value.
    ``change`` is the value to add to the weight.
    """

    body: tuple[Instr, ...]
    entries: frozenset[int]
    states: tuple[tuple[str, float, int], ...]
    numbers: tuple[tuple[str, float, int], ...]
    change: int

    def reads_weight(self) -> bool:
        return any(i.op == "input" and i.attr("input") == "weight" for i in self.body)
