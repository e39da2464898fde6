"""Optimizers whose tick needs the entries of a parameter one by one (found by passes/entrywise.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nldsl.ir.program import Instr
from nldsl.ir.types import Clock

REDUCTIONS = frozenset({"sum", "max"})  # over all entries of one tensor
SHARED, OWN, ENTRY = 0, 1, 2  # one number in all, one for each tensor, one for each entry


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

    def needed_numbers(self) -> tuple[int, ...]:
        """The shared values that entries are computed with; constants stand where they are used."""
        used = {a for v in self.entries for a in self.body[v].args}
        used |= {value for _, _, value in self.states} | {self.change}
        return tuple(sorted(v for v in used if v not in self.entries and self.body[v].op != "const"))

    def needed_clocks(self) -> tuple[Clock, ...]:
        """The clocks on which entries change."""
        found = (self.body[v].attr("clock") for v in sorted(self.entries) if self.body[v].op == "when")
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Tensorwise:
    """One tick of an optimizer that besides entries has sums (``sum``, ``max``) over all entries of a tensor.

    ``body`` has scalars only; what each is follows from its operands (``kinds``). The op ``given(slot)`` is a number
    that each tensor brings (a constant that depends on its size). ``states`` exist once per entry, ``numbers`` once per
    tensor where the rule has sums, else once in all: name, initial value, new value.
    """

    body: tuple[Instr, ...]
    states: tuple[tuple[str, float, int], ...]
    numbers: tuple[tuple[str, float, int], ...]
    change: int

    @property
    def has_sums(self) -> bool:
        return any(instr.op in REDUCTIONS for instr in self.body)

    def kinds(self) -> tuple[int, ...]:
        """SHARED, OWN or ENTRY for every value."""
        entries = {name for name, _, _ in self.states}
        single = OWN if self.has_sums else SHARED
        found: list[int] = []
        for instr in self.body:
            if instr.op == "input":
                kind = ENTRY
            elif instr.op == "state":
                kind = ENTRY if instr.attr("state") in entries else single
            elif instr.op in REDUCTIONS or instr.op == "given":
                kind = OWN
            else:
                kind = max((found[a] for a in instr.args), default=SHARED)
            found.append(kind)
        return tuple(found)

    def depths(self) -> tuple[int, ...]:
        """Of every value, how many sums over tensors must be finished before it is known."""
        found: list[int] = []
        for instr in self.body:
            before = max((found[a] for a in instr.args), default=0)
            found.append(before + (instr.op in REDUCTIONS))
        return tuple(found)

    def shared(self) -> Entrywise:
        """The part that is one number in all, as the numbers of a rule."""
        entries = frozenset(value for value, kind in enumerate(self.kinds()) if kind != SHARED)
        return Entrywise(self.body, entries, self.states, () if self.has_sums else self.numbers, self.change)

    def roots(self) -> tuple[int, ...]:
        return (*(value for _, _, value in self.states), *(value for _, _, value in self.numbers), self.change)

    def skeleton(self) -> Tensorwise:
        """The same with all constants left out: rules of equal skeleton are one rule with given numbers."""
        body = (replace(i, attrs=(), name="") if i.op == "const" else replace(i, name="") for i in self.body)
        return replace(self, body=tuple(body))


def merged(rules: Sequence[Tensorwise]) -> tuple[Tensorwise, tuple[tuple[float, ...], ...]]:
    """One rule for several of the same skeleton, and the numbers that each of them brings."""
    first = rules[0]
    body = list(first.body)
    varying: list[int] = []
    for value, instr in enumerate(body):
        if instr.op == "const" and any(r.body[value].attr("value") != instr.attr("value") for r in rules):
            body[value] = replace(instr, op="given", attrs=(("slot", len(varying)),))
            varying.append(value)
    rows = tuple(tuple(float(r.body[v].attr("value")) for v in varying) for r in rules)
    return replace(first, body=tuple(body)), rows
