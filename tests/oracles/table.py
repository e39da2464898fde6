"""How far each program of the standard library is from its oracle: the rows of the catalogue (``catalogue.py``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tests.oracles import (
    test_deep,
    test_levels,
    test_linear,
    test_memories,
    test_miras,
    test_nested,
    test_optimizers,
    test_published,
    test_wiring,
)
from tests.oracles.harness import BACKENDS, Case, measure

GROUPS = {
    "Matrix memories": test_linear.CASES,
    "Test-time training, Titans, attention, regression": [*test_memories.CASES, *test_published.CASES],
    "MIRAS, ATLAS, TNT, LaCT, implicit steps": [*test_deep.CASES, *test_miras.CASES],
    "Nested Learning: wirings, transfers, levels, inner loops": [
        *test_nested.CASES,
        *test_wiring.CASES,
        *test_levels.CASES,
    ],
    "Optimizers inside a memory": test_optimizers.CASES,
}
OUTSIDE = "Optimizers outside, 100 training steps"
LEVELS = "Levels of training steps, 12 steps"


@dataclass(frozen=True)
class Row:
    """``units``: the declarations of ``file`` that the row is about. Errors as text, a dash where there is none."""

    group: str
    name: str
    file: str
    units: tuple[str, ...]
    oracle: str
    numbers: tuple[str, ...]

    @property
    def passes(self) -> bool:
        """Whether every number is a number: an error of a run is its name."""
        return all(re.fullmatch(r"\d(\.\d+)?e[-+]\d+|-|", n) for n in self.numbers)


def units_of(case: Case) -> tuple[str, ...]:
    """What the program of a case is made of: its entry, or what it imports from its first file."""
    if not case.text:
        return (case.entry,)
    found = re.search(r'from ".+?" import (.+)', case.text)
    assert found is not None
    return tuple(name.strip() for name in found[1].split(","))


def row(group: str, case: Case) -> Row:
    """Measured with every backend. A run that fails gives the name of its error, and the row does not pass."""
    numbers: list[str] = []
    for backend in BACKENDS:
        if backend not in case.backends:
            numbers += ["-", "-"]
            continue
        try:
            errors = measure(case, backend)
        except Exception as problem:  # noqa: BLE001  (the row says so)
            numbers += [type(problem).__name__, ""]
            continue
        numbers += [f"{errors.values:.0e}", "-" if errors.gradients is None else f"{errors.gradients:.0e}"]
    return Row(group, case.shown, case.program, units_of(case), case.against, tuple(numbers))


def outside() -> Iterator[Row]:
    """Optimizers as training uses them, and levels of steps."""
    for file, name, given, make in test_optimizers.OUTSIDE:
        oracle = make(torch.zeros(4, 3))
        module = type(oracle).__module__.partition(".")[0]
        error = test_optimizers.outside_error(file, name, given, make)
        path = f"optimizers/{file}"
        yield Row(OUTSIDE, name, path, (name,), f"{module} {type(oracle).__name__}", (f"{error:.0e}",))
    for name, forward, block in test_levels.VARIANTS:
        error = test_levels.trained_error(name, forward, block)
        yield Row(LEVELS, name, "blocks/cms", (name,), "torch.optim, gradients added up", (f"{error:.0e}",))


def rows() -> Iterator[Row]:
    """All of them, measured now."""
    for title, cases in GROUPS.items():
        for case in cases:
            yield row(title, case)
    yield from outside()
