"""Loops with the same clocks, one after the other, as one loop: their segments are the same.

    Scan(A), Scan(B)  -->  Scan(A + B)    where B needs of A what the same tick gives

Worth it for loops that anchors cut into short segments: there, most of the time goes into the number of operations, and
memories of one form can then be computed together (``pack.py``).
"""

from __future__ import annotations

from nldsl.ir.program import Program
from nldsl.ir.schedule import Delay, Parallel, Phase, Scan, Schedule
from nldsl.ir.types import Clock
from nldsl.passes.recurrence import end_clocks


def joined(schedule: Schedule, phases: tuple[Phase, ...]) -> list[tuple[Scan, ...] | Phase]:
    """The phases, runs of loops that can be one as tuples."""
    program = schedule.program
    found: list[tuple[Scan, ...] | Phase] = []
    for phase in phases:
        if not isinstance(phase, Scan):
            found.append(phase)
            continue
        last = found[-1] if found else None
        clocks = end_clocks(program, phase)
        if isinstance(last, tuple) and clocks and _same(clocks, end_clocks(program, last[0])):
            found[-1] = (*last, phase)
        else:
            found.append((phase,))
    return found


def _same(left: tuple[Clock, ...], right: tuple[Clock, ...]) -> bool:
    return set(left) == set(right)


def one_loop(schedule: Schedule, scans: tuple[Scan, ...]) -> Scan:
    """Several loops as one; what only they need of each other is no longer a stream."""
    states = tuple(s for scan in scans for s in scan.states)
    values = tuple(sorted({v for scan in scans for v in scan.values}))
    used = _used(schedule, scans)
    return Scan(states, values, tuple(v for scan in scans for v in scan.exports if v in used))


def _used(schedule: Schedule, scans: tuple[Scan, ...]) -> set[int]:
    """The values that phases other than these need, or the caller."""
    program: Program = schedule.program
    found = {v for _, v in (*program.outputs, *program.losses, *program.probes)}
    for phase in schedule.all_phases():
        if isinstance(phase, Delay):
            found.add(phase.value)
        elif isinstance(phase, Parallel) or (isinstance(phase, Scan) and phase not in scans):
            own = set(phase.values)
            found |= {a for v in phase.values for a in program.body[v].args if a not in own}
            if isinstance(phase, Scan):
                found |= {v for name, v in program.updates if name in phase.states and v not in own}
    return found
