"""A loop over ticks as a loop over segments of one tick.

    Scan(states, values, exports)  -->  ChunkLoop(body of one tick, size 1)

Nothing is gained where a loop is Python code; a backend whose loops over segments are native functions thereby has
loops over ticks too, with their derived way back (``backward.py``). ``whole_tick`` is the same for a whole program: one
tick of everything, which is what decoding needs.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.ir.build import Builder
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.demand import reachable, roots
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Scan, Schedule, anchors
from nldsl.ir.types import TIME, Type
from nldsl.passes.backward import backward
from nldsl.passes.chunk import without_unused

CLOCK = Type((), (TIME,), "int")


def with_ticks(schedule: Schedule) -> Schedule:
    """The schedule with the other form of each of its loops over ticks, and of one tick of the program."""
    program = schedule.program
    scans = [p for p in schedule.all_phases() if isinstance(p, Scan)]
    loops = [tick_loop(program, scan) for scan in scans]
    found = [backward(loop, program) for loop in loops]
    backwards = (*schedule.backwards, *(b for b in found if b is not None))
    return replace(schedule, ticked=tuple(loops), backwards=backwards)


def tick_loop(program: Program, scan: Scan) -> ChunkLoop:
    """The loop over segments of one tick that does what ``scan`` does."""
    return _Tick(program, scan).loop()


def whole_tick(program: Program, late: frozenset[int]) -> ChunkLoop:
    """One tick of a program: all of its states, and its results but those that are ``late``."""
    values = tuple(sorted(reachable(program.body, [v for v in roots(program) if v not in late])))
    results = [v for _, v in (*program.outputs, *program.losses, *program.probes) if v not in late]
    needed = {a for v in late for a in program.body[v].args if a not in late}
    inner = tuple(v for v in values if program.body[v].op not in ("input", "param", "const"))
    exports = tuple(v for v in dict.fromkeys([*results, *sorted(needed)]) if v in inner)
    return tick_loop(program, Scan(tuple(s.name for s in program.states), inner, exports))


class _Tick:
    def __init__(self, program: Program, scan: Scan) -> None:
        self.program = program
        self.scan = scan
        self.builder = Builder([a.name for a in program.axes])
        self.own = frozenset(scan.states)
        self.inside = frozenset(scan.values)
        self.varying = _varying(program)
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


def _varying(program: Program) -> frozenset[int]:
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
