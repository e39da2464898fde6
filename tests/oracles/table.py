"""Writes ``docs/models/index.md``: how far each program of the standard library is from its oracle.

Run ``python -m tests.oracles.table``; names as arguments restrict what is measured and print it instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.oracles import test_deep, test_linear, test_memories, test_nested, test_optimizers
from tests.oracles.harness import BACKENDS, Case, measure

OUT = Path(__file__).parents[2] / "docs" / "models" / "index.md"
GROUPS = {
    "Matrix memories": test_linear.CASES,
    "Test-time training, Titans, attention, regression": test_memories.CASES,
    "MIRAS, ATLAS, TNT, LaCT, implicit steps": test_deep.CASES,
    "Nested Learning": test_nested.CASES,
    "Optimizers inside a memory": test_optimizers.CASES,
}
HEAD = """# Programs and their oracles

Written by `python -m tests.oracles.table`. Each program runs in float64 on random inputs and is compared with
an independent implementation: the largest difference of an output, and of the gradient of a random weighting of the
outputs with respect to any input or parameter, each relative to the largest entry of the oracle's (at least 1).
"Reference" is the reference interpreter, "torch" the compiled module differentiated by autograd. A dash: the oracle
cannot be differentiated.
The tests ask for 1e-10 and 1e-8 (1e-12 for `torch.optim`).
"""


@dataclass(frozen=True)
class Row:
    name: str
    file: str
    oracle: str
    numbers: tuple[str, ...]

    def __str__(self) -> str:
        return "| " + " | ".join((self.name, self.file, self.oracle, *self.numbers)) + " |"


def row(case: Case) -> Row:
    numbers: list[str] = []
    for backend in BACKENDS:
        if backend not in case.backends:
            numbers += ["", ""]
            continue
        try:
            errors = measure(case, backend)
        except Exception as problem:  # noqa: BLE001  (a row says so)
            numbers += [type(problem).__name__, ""]
            continue
        numbers += [f"{errors.values:.0e}", "-" if errors.gradients is None else f"{errors.gradients:.0e}"]
    return Row(case.shown, case.program, case.against, tuple(numbers))


def outside() -> Iterator[str]:
    yield "\n## Optimizers outside, 100 training steps\n"
    yield "| program | oracle | largest difference of a weight |"
    yield "|---|---|---|"
    for file, name, given, make in test_optimizers.OUTSIDE:
        oracle = make(torch.zeros(4, 3))
        module = type(oracle).__module__.partition(".")[0]
        error = test_optimizers.outside_error(file, name, given, make)
        yield f"| {name} | {module} {type(oracle).__name__} | {error:.0e} |"


def page() -> Iterator[str]:
    yield HEAD
    for title, cases in GROUPS.items():
        yield f"\n## {title}\n"
        yield "| program | file | oracle | reference: values | gradients | torch: values | gradients |"
        yield "|---|---|---|---|---|---|---|"
        for case in cases:
            yield str(row(case))
    yield from outside()


def main(names: list[str]) -> None:
    if names:
        for case in (c for cases in GROUPS.values() for c in cases if any(n in c.shown for n in names)):
            print(row(case))
        return
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("\n".join(page()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
