"""A loop over ticks as a loop over segments of one tick.

    Scan(states, values, exports)  -->  ChunkLoop(body of one tick, size 1)

Nothing is gained where a loop is Python code; a backend whose loops over segments are native functions thereby has
loops over ticks too, with their derived way back (``backward.py``). ``whole_tick`` is the same for a whole program: one
tick of everything, which is what decoding needs.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.ir.backward import BackwardLoop
from nldsl.ir.build import Builder
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Scan, Schedule, anchors, completing, looking, needs_next
from nldsl.ir.types import TIME, Type
from nldsl.passes.backward import backward
from nldsl.passes.chunk import without_unused

CLOCK = Type((), (TIME,), "int")


def with_ticks(schedule: Schedule) -> Schedule:
    """The schedule with the way to this form of its loops, and one tick of the program."""
    program = schedule.program

    def form(scan: Scan) -> tuple[ChunkLoop, BackwardLoop | None]:
        loop = tick_loop(program, scan)
        return loop, backward(loop, program, shared=True)

    waiting = None
    if needs_next(schedule):
        complete, look = (whole_tick(part(program)) for part in (completing, looking))
        waiting = (complete, look) if complete is not None and look is not None else None
    return replace(schedule, tick_form=form, tick=whole_tick(program), waiting=waiting)


def tick_loop(program: Program, scan: Scan) -> ChunkLoop:
    """The loop over segments of one tick that does what ``scan`` does."""
    return _Tick(program, scan).loop()


def whole_tick(program: Program) -> ChunkLoop | None:
    """One tick of a program: its new states and its outputs. None for a program without states, or without anything
    that is computed."""
    wanted = [v for _, v in (*program.updates, *program.outputs)]
    values = sorted(reachable(program.body, wanted))
    inner = tuple(v for v in values if program.body[v].op not in ("input", "param", "const"))
    exports = tuple(v for v in dict.fromkeys(v for _, v in program.outputs) if v in inner)
    if not program.states or not (exports if program.outputs else inner):
        return None
    return tick_loop(program, Scan(tuple(s.name for s in program.states), inner, exports))


class _Tick:
    def __init__(self, program: Program, scan: Scan) -> None:
        self.program = program
        self.scan = scan
        self.builder = Builder([a.name for a in program.axes])
        self.own = frozenset(scan.states)
        self.inside = frozenset(scan.values)
        self.varying = varying(program)
        self.made: dict[int, int] = {}

    def loop(self) -> ChunkLoop:
        program, scan = self.program, self.scan
        updates = dict(program.updates)
        for value in sorted({*scan.values, *scan.exports, *(updates[s] for s in scan.states if s in updates)}):
            self._make(value)
        carry = tuple((name, self.made[updates[name]]) for name in scan.states if name in updates)
        outputs = tuple((v, self.made[v]) for v in scan.exports)
        held = tuple(key for key in anchors(program) if key[0] in self.own)
        body = tuple(self.builder.instrs)
        return without_unused(ChunkLoop(scan, body, carry, outputs, (), held, 1, kind="tick by tick", hoist=False))

    def _make(self, value: int) -> int:
        if value not in self.made:
            self.builder.guard = None
            self.made[value] = self._made(value, self.program.body[value])
        return self.made[value]

    def _made(self, value: int, instr: Instr) -> int:
        builder, op, attrs = self.builder, instr.op, dict(instr.attrs)
        if op in ("param", "const", "iota"):
            return builder.leaf(op, instr.type, instr.name, instr.span, **attrs)
        if op in ("state", "anchor") and (instr.attr("state") in self.own or value not in self.varying):
            return builder.leaf(op, instr.type, instr.name, instr.span, **attrs)
        if op == "clock":
            return self._now(builder.leaf("clock", CLOCK, instr.name, instr.span, **attrs))
        if value not in self.inside or op == "input":
            if value not in self.varying:
                return builder.leaf("given", instr.type, instr.name, instr.span, value=value)
            type = replace(instr.type, axes=builder.order((*instr.type.axes, TIME)))
            return self._now(builder.leaf("given", type, instr.name, instr.span, value=value))
        args = [self._make(a) for a in instr.args]
        builder.guard = instr.guard
        found = builder.emit(op, *args, name=instr.name, span=instr.span, **attrs)
        builder.guard = None
        return found

    def _now(self, stream: int) -> int:
        """The only tick of a stream."""
        return self.builder.emit("lane", stream, axis=TIME, index=0, size=1)


def varying(program: Program) -> frozenset[int]:
    """Values that may differ from tick to tick."""
    updates = dict(program.updates)
    found: set[int] = set()
    for value, instr in enumerate(program.body):
        if instr.op in ("input", "clock", "when"):
            found.add(value)
        elif instr.op in ("state", "anchor"):
            name = instr.attr("state")
            update = program.body[updates[name]] if name in updates else None
            same = update is None or (update.op == "state" and update.attr("state") == name)
            if not same or program.state(name).reset.kind == "clock":
                found.add(value)
        elif any(a in found for a in instr.args):
            found.add(value)
    return frozenset(found)
