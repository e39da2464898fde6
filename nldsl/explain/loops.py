"""How a program runs over the tokens: its loops, and for each loop how the states depend on their past, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.explain.naming import short_names
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program
from nldsl.ir.schedule import Delay, Parallel, Phase, Scan, Schedule
from nldsl.passes.choose_chunk import LoopNote
from nldsl.passes.recurrence import Recurrence as Analysed
from nldsl.passes.recurrence_class import classify
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


@dataclass(frozen=True)
class Planned:
    """The loop structure that backends get, and what was found out about each loop."""

    schedule: Schedule
    notes: tuple[LoopNote, ...]

    def note(self, states: tuple[str, ...]) -> LoopNote:
        return next(n for n in self.notes if n.states == states)


def plan_of(program: Program) -> Planned | None:
    """How a program runs; None while sizes are not known."""
    from nldsl.passes.choose_chunk import ChunkOptions, chunk
    from nldsl.passes.schedule import schedule

    sizes = [*(d for i in program.body for d in i.type.shape), *(a.size for a in program.axes if a.size is not None)]
    if not all(isinstance(d, int) for d in sizes):
        return None
    return Planned(*chunk(schedule(program), ChunkOptions()))


@dataclass(frozen=True)
class Loop:
    """A phase of the schedule in words, with the recurrence of its states if it has some."""

    words: str
    recurrence: Recurrence | None = None


def loops_of(found: Planned) -> list[Loop]:
    """The phases in the order in which they run; delays that follow one another are one."""
    program = found.schedule.program
    loops: list[Loop] = []
    for phase in found.schedule.all_phases():
        late = " (for the losses)" if phase in found.schedule.loss_phases else ""
        words = _phase(program, phase)
        scan = getattr(phase, "scan", phase)
        recurrence = _class_of(found.schedule, scan, found.note(scan.states)) if isinstance(scan, Scan) else None
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
    if isinstance(phase, ChunkLoop):
        return f"up to {phase.size} tokens at once: {_shown(phase.states)}"
    if isinstance(phase, Scan):
        count = sum(program.body[v].op not in _LEAVES for v in phase.values)
        return f"token by token: {_shown(phase.states)} ({_instructions(count)} a token)"
    return type(phase).__name__


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


def _class_of(schedule: Schedule, scan: Scan, note: LoopNote) -> Recurrence:
    """The class that the chunking pass found, and why in words."""
    from nldsl.passes.choose_chunk import streams
    from nldsl.passes.recurrence import Refusal, analyse

    program = schedule.program
    if note.why:
        return Recurrence(scan.states, note.kind, note.why, note.span, note.lift)
    found = analyse(program, scan, streams(schedule))
    if isinstance(found, Refusal):
        return Recurrence(scan.states, note.kind, found.why, program.body[found.value].span, found.lift)
    clocks = ", ".join(sorted({str(c) for c in found.clocks}))
    windows = _windows(found)
    if not found.live and found.registers and not found.constant:
        return Recurrence(scan.states, note.kind, windows)
    if not found.live:
        return Recurrence(scan.states, note.kind, f"changes only at its clock ({clocks})")
    if note.mixed:
        return Recurrence(scan.states, note.kind, _mixed(note.mixed, windows))
    why = _decay(found)
    low_rank = [w for terms in found.writes.values() for w in terms if w.source is not None and w.source.kind == "node"]
    anchored = found.anchored()
    if low_rank:
        why += "; what is written depends on what is read of the state (a product of low rank)"
    elif not anchored and not found.constant:
        why += "; what is written does not depend on the state"
    if anchored:
        every = ", ".join(map(str, sorted({period for _, period in anchored})))
        why += (
            f"; what is taken at the start of every {every} ticks is the same for all of those, and the rest is linear"
        )
    if found.constant:
        held = " and ".join(short_names(found.constant).values()) if len(found.constant) < 4 else "the other states"
        why += f"; {held} change only at a clock ({clocks}), and are held between its ticks"
    return Recurrence(scan.states, note.kind, f"{why}; {windows}" if windows else why)


def _mixed(mixed: Sequence[str], windows: str) -> str:
    """What a scan of matrices means for a loop."""
    short = short_names(mixed)
    names = " and ".join(short[s] for s in mixed) if len(mixed) < 4 else f"{len(mixed)} states"
    why = f"each tick multiplies {names} by full matrices, whose products over all ticks are made by a scan"
    return f"{why}; {windows}" if windows else why


def _windows(found: Analysed) -> str:
    """What the shift registers of a loop mean for it."""
    if not found.registers:
        return ""
    lengths = sorted({r.size + 1 for r in found.registers.values()})
    each = " and ".join(map(str, lengths))
    return f"each tick sees the last {each} values of a stream, which is no recurrence: products of rows of the stream"


_DECAYS = {
    "none": "the state is kept as it is",
    "scalar": "each tick multiplies the state by a number",
    "channels": "each tick multiplies every channel by a number of its own",
    "key side": "each tick multiplies every key channel by a number of its own",
    "value side": "each tick multiplies every value channel by a number of its own",
    "elementwise": "each tick multiplies every entry by a number of its own",
}


def _decay(found: Analysed) -> str:
    """The strongest decay among the states, in words, and which state feeds which."""
    words, short = _DECAYS[classify(found).decay], short_names(found.live)
    crossed = sorted((a, b) for a, b in found.coefficients if a != b)
    if not crossed:
        return words
    if len(crossed) > 3:
        return f"{words}; {len(found.live)} states are one recurrence, for each tick adds some of them to others"
    pairs = ", ".join(f"{short[a]} to {short[b]}" for a, b in crossed)
    return f"{words}; the states are one recurrence, for each tick adds {pairs}"
