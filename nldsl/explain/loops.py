"""How a program runs over the tokens: its loops, and for each loop how the states depend on their past, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.explain.naming import short_names
from nldsl.ir.program import Program
from nldsl.ir.schedule import Delay, Parallel, Phase, Scan, Schedule
from nldsl.source import NO_SPAN, Span

_MOVED = "moved by one token:"
_LEAVES = frozenset("input param state anchor const".split())


@dataclass(frozen=True)
class Recurrence:
    """``kind``: a class of the algebra. ``why``: the reason in words; ``span``: what forced a worse class."""

    states: tuple[str, ...]
    kind: str
    why: str
    span: Span = NO_SPAN
    hint: str = ""


def schedule_of(program: Program) -> Schedule | None:
    """The loop structure; None while sizes are not known."""
    from nldsl.passes.schedule import schedule

    sizes = [*(d for i in program.body for d in i.type.shape), *(a.size for a in program.axes if a.size is not None)]
    return schedule(program) if all(isinstance(d, int) for d in sizes) else None


@dataclass(frozen=True)
class Loop:
    """A phase of the schedule in words, with the recurrence of its states if it has some."""

    words: str
    recurrence: Recurrence | None = None


def loops_of(found: Schedule) -> list[Loop]:
    """The phases in the order in which they run; delays that follow one another are one."""
    program = found.program
    loops: list[Loop] = []
    for phase in found.all_phases():
        late = " (for the losses)" if phase in found.loss_phases else ""
        words = _phase(program, phase)
        scan = getattr(phase, "scan", phase)
        recurrence = _class_of(program, scan) if isinstance(scan, Scan) else None
        if isinstance(phase, Delay) and loops and loops[-1].words.startswith(_MOVED):
            loops[-1] = Loop(f"{loops[-1].words}, {phase.state.rpartition('.')[2]}")
        elif words:
            loops.append(Loop(words + late, recurrence))
    return loops


def _phase(program: Program, phase: Phase) -> str:
    if isinstance(phase, Parallel):
        count = sum(program.body[v].op not in _LEAVES for v in phase.values)
        return f"for all tokens at once: {_instructions(count)}" if count else ""
    if isinstance(phase, Delay):
        return f"{_MOVED} {phase.state}"
    scan = getattr(phase, "scan", phase)
    if not isinstance(scan, Scan):
        return type(phase).__name__
    count = sum(program.body[v].op not in _LEAVES for v in scan.values)
    order = "token by token" if scan is phase else "chunk by chunk"
    return f"{order}: {_shown(scan.states)} ({_instructions(count)} a token)"


def _instructions(count: int) -> str:
    return f"{count} instruction" + ("" if count == 1 else "s")


def _shown(states: Sequence[str], most: int = 6) -> str:
    """The states, their common path once: ``layers.0.m: mk.w1, mk.w2 and 2 more``."""
    paths = [s.split(".")[:-1] for s in states]
    common = 0
    while all(len(p) > common and p[common] == paths[0][common] for p in paths):
        common += 1
    ends = [".".join(s.split(".")[common:]) for s in states]
    head = ".".join(paths[0][:common]) + ": " if common else ""
    more = f" and {len(ends) - most} more" if len(ends) > most else ""
    return head + ", ".join(ends[:most]) + more


def _class_of(program: Program, scan: Scan) -> Recurrence:
    from nldsl.passes.recurrence import Refusal, analyse

    found = analyse(program, scan)
    if isinstance(found, Refusal):
        instr = program.body[found.value]
        return Recurrence(scan.states, "nonlinear", found.why, instr.span, found.lift)
    clocks = ", ".join(sorted({str(c) for c in found.clocks}))
    if not found.live:
        return Recurrence(scan.states, "piecewise constant", f"changes only at its clock ({clocks})")
    decay = _decay(program, found.coefficients, found.live)
    low_rank = [w for terms in found.writes.values() for w in terms if w.source is not None and w.source.kind == "node"]
    anchored = found.anchored()
    kind, why = decay
    if low_rank:
        kind = {"sum": "low rank", "coupled": "coupled, low rank"}.get(kind, f"{kind} + low rank")
        why += "; what is written depends on what is read of the state (a product of low rank)"
    elif not anchored:
        why += "; what is written does not depend on the state"
    if anchored:
        periods = sorted({period for _, period in anchored})
        kind = f"anchored, {kind}"
        every = ", ".join(map(str, periods))
        why += f"; gradients are taken at the start of every {every} ticks, so between those the rest is linear"
    return Recurrence(scan.states, kind, why)


def _decay(program: Program, coefficients: object, live: tuple[str, ...]) -> tuple[str, str]:
    """The strongest decay among the states, and words for it."""
    assert isinstance(coefficients, dict)
    short = short_names(live)
    crossed = sorted((a, b) for a, b in coefficients if a != b)
    rank = {"sum": 0, "scalar decay": 1, "diagonal decay": 2}
    kind, side = "sum", ""
    for (source, target), terms in coefficients.items():
        if source != target:
            continue
        for term in terms:
            letters = {x for f in term.factors for x in f.letters if x is not None}
            own = "diagonal decay" if letters else "scalar decay" if term.factors or term.scale != 1 else "sum"
            if rank[own] > rank[kind]:
                kind = own
            if letters and len(program.state(target).type.shape) == 2:
                sides = {"value" if term.letters.index(x) == 0 else "key" for x in letters if x in term.letters}
                side = " and ".join(sorted(sides))
    words = {
        "sum": "the state is kept as it is",
        "scalar decay": "each tick multiplies the state by a number",
        "diagonal decay": f"each tick multiplies every {side + ' ' if side else ''}channel by a number of its own",
    }[kind]
    if kind == "diagonal decay" and side:
        kind += f" ({side} side)"
    if crossed:
        pairs = ", ".join(f"{short[a]} into {short[b]}" for a, b in crossed)
        words += f"; the states are one recurrence, for each tick adds {pairs}"
    return kind, words
