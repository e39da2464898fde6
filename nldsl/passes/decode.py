"""The schedule of single ticks: each loop with the work around it that every lane does for itself.

    Parallel(.., norm, sigmoid), Scan(S), Parallel(norm, ..)  -->  Parallel(..), Scan(S with all of these), Parallel(..)

A backend that makes one kernel of each loop thereby reads what dense products give, and writes what they take.
Guarantees: the same values; one that a loop and something else need is computed in both. What mixes lanes (heads, the
batch), reads a parameter, or lacks an axis that all states of the loop have stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from nldsl.ir.demand import reachable
from nldsl.ir.ops import POINTWISE
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Delay, Parallel, Phase, Scan, Schedule
from nldsl.passes.precision import wide_values
from nldsl.passes.schedule import schedule
from nldsl.passes.ticks import tick_loop

OWN_LANE = POINTWISE | frozenset("einsum sum max reshape broadcast slice concat pad stop_grad when".split())
LARGEST = 1 << 12  # entries of a value that a loop takes over


def decode_schedule(program: Program) -> Schedule:
    """The schedule of a program's outputs and states, loops with their neighbours; ``tick_form`` gives a loop as one
    over segments of one tick, without a way back."""
    program = replace(program, losses=(), probes=())
    planned = schedule(program)
    phases = list(planned.phases)
    places = [place for place, phase in enumerate(phases) if isinstance(phase, Scan)]
    for place in places:
        phases[place], taken = _with_neighbours(program, phases, place)
        phases = [replace(p, values=_others(p.values, taken)) if isinstance(p, Parallel) else p for p in phases]
    for place in places:  # now it is known what each loop reads of those before it
        loop = phases[place]
        assert isinstance(loop, Scan)
        used = _used_after(program, phases, place)
        phases[place] = replace(loop, exports=tuple(v for v in loop.exports if v in used))
    phases = _without_unused(program, phases)
    kept = tuple(p for p in phases if not isinstance(p, Parallel) or p.values)
    form = lambda scan: (tick_loop(program, scan), None)  # noqa: E731
    return replace(planned, phases=kept, tick_form=form, wide=wide_values(program))


def _others(values: tuple[int, ...], taken: set[int]) -> tuple[int, ...]:
    return tuple(v for v in values if v not in taken)


def _with_neighbours(program: Program, phases: list[Phase], place: int) -> tuple[Scan, set[int]]:
    """A loop with what it does besides, all of that exported; and what follows it and is its own now."""
    body, scan = program.body, phases[place]
    assert isinstance(scan, Scan)
    shared = set.intersection(*({*program.state(s).type.axes} for s in scan.states))
    before = {v for p in phases[:place] if isinstance(p, Parallel) for v in p.values}
    inside = set(scan.values)
    stack = [a for v in scan.values for a in body[v].args] + [v for s, v in program.updates if s in scan.states]
    while stack:
        value = stack.pop()
        if value in before and value not in inside and _fits(body, value, shared):
            inside.add(value)
            stack.extend(body[value].args)
    own, at_hand = set(inside), before | _leaves(program, phases[:place])
    for value in sorted(v for p in phases[place + 1 :] if isinstance(p, Parallel) for v in p.values):
        args = body[value].args
        from_here = any(a in own or _is_state(body[a], scan) for a in args) and _depends(body, value, scan)
        if from_here and _fits(body, value, shared) and all(_at_hand(body, a, own, at_hand, scan) for a in args):
            own.add(value)
    values = tuple(sorted(own | {a for v in own for a in body[v].args if body[a].op in ("const", "iota")}))
    results = tuple(v for v in values if v in own - inside)
    return Scan(scan.states, values, tuple(dict.fromkeys((*scan.exports, *results)))), own - inside


def _fits(body: tuple[Instr, ...], value: int, shared: set[str]) -> bool:
    """Whether each lane of a loop can compute a value for itself."""
    instr = body[value]
    if instr.op not in OWN_LANE or instr.type.kind != "real" or not shared <= set(instr.type.axes):
        return False
    entries = 1
    for size in instr.type.shape:
        entries *= size if isinstance(size, int) else LARGEST + 1
    return entries <= LARGEST and not any(body[a].op == "param" for a in instr.args)


def _depends(body: tuple[Instr, ...], value: int, scan: Scan) -> bool:
    return any(_is_state(body[v], scan) for v in reachable(body, [value]))


def _is_state(instr: Instr, scan: Scan) -> bool:
    return instr.op in ("state", "anchor") and instr.attr("state") in scan.states


def _leaves(program: Program, phases: Iterable[Phase]) -> set[int]:
    """What is there before a loop without being computed for all ticks: leaves, delayed values, what earlier loops
    export."""
    phases, updates = list(phases), dict(program.updates)
    known = {p.state for p in phases if isinstance(p, Delay)}
    known |= {s.name for s in program.states if s.name not in updates}
    found = {v for p in phases if isinstance(p, Scan) for v in p.exports}
    for value, instr in enumerate(program.body):
        leaf = instr.op in ("input", "param", "const", "iota", "clock")
        if leaf or (instr.op == "state" and instr.attr("state") in known):
            found.add(value)
    return found


def _at_hand(body: tuple[Instr, ...], value: int, own: set[int], before: set[int], scan: Scan) -> bool:
    return value in own or value in before or _is_state(body[value], scan)


def _used_after(program: Program, phases: list[Phase], place: int) -> set[int]:
    """What other phases, or the caller, need of the values of a loop."""
    used = {v for _, v in (*program.outputs, *program.losses, *program.probes)}
    updates = dict(program.updates)
    for number, phase in enumerate(phases):
        if isinstance(phase, Delay):
            used.add(phase.value)
        elif number != place and isinstance(phase, (Parallel, Scan)):
            inner = set(phase.values)
            used |= {a for v in inner for a in program.body[v].args} - inner
            if isinstance(phase, Scan):
                used |= {updates[s] for s in phase.states if s in updates} - inner
    return used


def _without_unused(program: Program, phases: list[Phase]) -> list[Phase]:
    """Parallel work that only loops needed, which do it themselves now, is left out."""
    updates = dict(program.updates)
    exported = {v for p in phases if isinstance(p, Scan) for v in p.exports}
    needed = {v for _, v in (*program.outputs, *program.losses, *program.probes)}
    found: list[Phase] = []
    for phase in reversed(phases):
        if isinstance(phase, Delay):
            needed.add(phase.value)
        elif isinstance(phase, Scan):
            inner = set(phase.values)
            needed |= {a for v in phase.values for a in program.body[v].args} - inner
            needed |= {updates[s] for s in phase.states if s in updates} - inner
        elif isinstance(phase, Parallel):
            values = []
            for value in reversed(phase.values):
                if value in needed and value not in exported:
                    values.append(value)
                    needed.update(program.body[value].args)
            phase = replace(phase, values=tuple(reversed(values)))
        found.append(phase)
    return found[::-1]
