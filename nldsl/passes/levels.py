"""Which states of a loop are known before which, within a segment.

Anchors do not count here: they are constant in a segment. States that feed one another have the same level; a value
has the highest level of the states it depends on. For a state of a higher level it is a stream like any other, however
it is made: the momentum of gradients at an anchor can go through a Newton-Schulz iteration on its way into the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.ir.graphs import components
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Scan

FREE = -1


@dataclass(frozen=True)
class Levels:
    """``values``: the level of each value of the loop, ``FREE`` without a state; ``states``: of each live state."""

    values: dict[int, int]
    states: dict[str, int]


def interior(instr: Instr) -> int | None:
    """The operand that a ``when`` of an end clock is inside a segment."""
    if instr.op == "when" and not instr.attr("clock").start:
        return instr.args[1]
    return None


def operands(instr: Instr) -> tuple[int, ...]:
    """What a value depends on inside a segment."""
    inner = interior(instr)
    return instr.args if inner is None else (inner,)


def levels(program: Program, scan: Scan, live: tuple[str, ...]) -> Levels:
    """Levels from 0 up; a state's level is larger than those of the states it depends on but does not feed."""
    reads: dict[int, frozenset[str]] = {}
    for value in scan.values:
        instr = program.body[value]
        found: frozenset[str] = frozenset()
        if instr.op == "state" and instr.attr("state") in live:
            found = frozenset((instr.attr("state"),))
        for arg in operands(instr):
            found |= reads.get(arg, frozenset())
        reads[value] = found
    updates = dict(program.updates)
    edges = {s: sorted(reads.get(updates[s], frozenset())) for s in live}
    states = {s: n for n, group in enumerate(components(edges)) for s in group}
    return Levels({v: max((states[s] for s in r), default=FREE) for v, r in reads.items()}, states)
