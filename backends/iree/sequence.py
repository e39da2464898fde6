"""All ticks of a call, forward: the phases of a schedule, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nldsl.backends.iree.body import Body, cheap
from nldsl.backends.iree.loop import Forward, Slots, Stack, States, Stream, clock_value, elem_of, segmented
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import BOOL, INT, Held, Node, Size
from nldsl.backends.iree.runs import Run, runs_of
from nldsl.backends.iree.ticks import as_loop
from nldsl.ir.backward import BackwardLoop, Key
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.program import Program
from nldsl.ir.schedule import Delay, Parallel, Phase, Scan, Schedule
from nldsl.ir.types import TIME, Clock, Type


@dataclass
class Trace:
    """What the way back needs of a loop that has run: each run with its form, and the states at its segments."""

    loop: ChunkLoop
    runs: list[tuple[ChunkLoop, BackwardLoop | None, Run, str, dict[Key, Held]]]


@dataclass
class Sequence:
    """``params``, ``inputs`` (streams), ``states`` (and anchors) are tensors; ``tick``: ticks before the call;
    ``backward`` gives the derived way back of a loop, where it is wanted."""

    low: Lower
    schedule: Schedule
    params: dict[str, Node]
    inputs: dict[str, Node]
    states: States
    initials: dict[str, Node]
    tick: str
    total: Size
    losses: bool = False
    forms: dict[int, tuple[ChunkLoop, ChunkLoop]] = field(default_factory=dict)
    backwards: dict[int, BackwardLoop] | None = None
    env: dict[int, Node] = field(default_factory=dict)
    traces: dict[int, Trace] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        return self.schedule.program

    def phases(self) -> list[Phase]:
        return [*self.schedule.phases, *(self.schedule.loss_phases if self.losses else ())]

    def results(self) -> list[int]:
        program = self.program
        found = [v for _, v in program.outputs if v not in self.schedule.late]
        return found + ([v for _, v in program.losses] if self.losses else [])

    def run(self, also: Iterable[int] = ()) -> None:
        """Everything; then ``env`` has the results, and ``states`` those after the last tick. ``also``: values that
        are wanted besides."""
        program, changed = self.program, changing(self.schedule)
        roots = [*self.results(), *(v for _, v in program.updates), *also]
        self.needed = reachable(program.body, roots)
        for phase in self.phases():
            if isinstance(phase, ChunkLoop):
                self.needed |= {i.attr("value") for i in phase.body if i.op == "given"}
        self.needed |= reachable(program.body, list(self.needed))
        self.kept = {*self.results(), *also, *(v for _, v in program.updates)}
        for phase in self.phases():
            self.kept |= taken(program, phase)
        for v in sorted(self.needed):
            instr = program.body[v]
            if instr.op == "param":
                self.env[v] = self.params[instr.attr("param")]
            elif instr.op == "const":
                self.env[v] = self.low.literal(instr.attr("value"))
            elif instr.op == "input" and instr.attr("input") in self.inputs:
                self.env[v] = self.inputs[instr.attr("input")]
            elif instr.op == "state" and instr.attr("state") not in changed:
                self.env[v] = self.states[instr.attr("state"), 0]
        self.forms = self.forms or loop_forms(self.schedule)
        for number, phase in enumerate(self.phases()):
            self.phase(number, phase)

    def phase(self, number: int, phase: Phase) -> None:
        if isinstance(phase, Parallel):
            self.parallel(phase)
        elif isinstance(phase, Delay):
            self.delay(phase)
        elif isinstance(phase, (Scan, ChunkLoop)):
            self.loop(number, phase)
        else:
            raise NotImplementedError(type(phase).__name__)

    # ------------------------------------------------------------ all ticks at once

    def ticks(self) -> Node:
        """The number of each tick, from 1."""
        first = self.low.text.int_op("addi", self.tick, self.low.text.const(1, INT))
        return self.low.point("add", self.low.counter(TIME), self.low.scalar(first, INT))

    def fires(self, clock: Clock) -> Node:
        if clock.period == 1:
            return self.low.scalar(self.low.text.const(1, BOOL), BOOL)
        left = self.low.point("mod", self.ticks(), self.low.literal(clock.period))
        return self.low.point("eq", left, self.low.literal(1 if clock.start else 0))

    def parallel(self, phase: Parallel) -> None:
        body = self.program.body
        values = [v for v in phase.values if v in self.needed and v not in self.env]
        for v in values:
            if body[v].op == "clock":
                self.env[v] = clock_value(self.low, body[v], self.ticks())
        work = Body(self.low, body, self.fires, 1, self.env)
        work.run(values, self.kept)

    def delay(self, phase: Delay) -> None:
        type = self.program.state(phase.state).type
        stream = self.whole(self.env[phase.value], type)
        state = self.states[phase.state, 0]
        text, place = self.low.text, stream.axes.index(TIME)
        if place in stream.where:
            at = stream.where.index(place)
            before = text.empty(stream.sizes, stream.elem)
            rest = text.index_op("subi", self.total, 1)
            old = (self.low.full(state).ssa, self.low.full(state).sizes)
            before = text.put(old, (before, stream.sizes), stream.elem, at, 0, None)
            early = text.cut(stream.ssa, stream.sizes, stream.elem, at, 0, rest)
            sizes = [rest if n == at else s for n, s in enumerate(stream.sizes)]
            before = text.put((early, sizes), (before, stream.sizes), stream.elem, at, 1, rest)
            last = text.cut(stream.ssa, stream.sizes, stream.elem, at, rest, None)
            ended = Held(state.axes, state.shape, state.elem, last, state.sizes, state.where)
            delayed: Node = Held(stream.axes, stream.shape, stream.elem, before, stream.sizes, stream.where)
        else:  # one tick
            delayed = self.low.stretched(state, stream.axes, stream.shape)
            ended = Held(state.axes, state.shape, state.elem, stream.ssa, state.sizes, state.where)
        for v, instr in enumerate(self.program.body):
            if instr.op == "state" and instr.attr("state") == phase.state:
                self.env[v] = delayed
        self.states[phase.state, 0] = ended

    def whole(self, node: Node, type: Type) -> Held:
        """A value as a stream of this type, in full."""
        axes = tuple(a for a in self.low.order if a in {*type.axes, TIME})
        shape = tuple(int(str(s)) for s in type.shape)
        node = node if node.elem == elem_of(type) else self.low.point("to_real", node)
        return self.low.full(self.low.stretched(node, axes, shape))

    # ------------------------------------------------------------ loops

    def loop(self, number: int, phase: Scan | ChunkLoop) -> None:
        program, low = self.program, self.low
        scan = phase.scan if isinstance(phase, ChunkLoop) else phase
        main, by_tick = self.forms[number]
        runs = runs_of(low.text, main, self.tick, self.total)
        exports = {v: Stream(low, program.body[v].type) for v in scan.exports}
        own = {key: self.states[key] for key in self.states if key[0] in scan.states}
        for form in (main, by_tick):
            self.settle(form)
        trace = Trace(main, [])
        for run in runs:
            form = by_tick if run.length == 1 else main
            tick = self.tick
            if run.offset != 0:
                tick = low.text.int_op("addi", self.tick, low.text.integer(run.offset))
            one = self.run_of(form, run, tick, own)
            starts: dict[Key, Held]
            if len(runs) == 1:
                one.leaves = self.leaves(form, one.low, run)
                done = one.lower()
                own, starts = done.states, done.starts
                for v, stream in exports.items():
                    stream.put(one.low, done.outputs[v], run, True)
            else:
                own, starts = self.unless_empty(one, own, exports)
            trace.runs.append((form, one.back, run, tick, starts))
        self.states.update(own)
        self.traces[number] = trace
        for v, stream in exports.items():
            self.env[v] = stream.node()

    def run_of(self, form: ChunkLoop, run: Run, tick: str, own: States) -> Forward:
        back = self.backwards[id(form)] if self.backwards is not None else None
        return Forward(self.low, self.program, form, run, tick, own, {}, self.initials, back)

    def unless_empty(self, one: Forward, own: States, exports: dict[int, Stream]) -> tuple[States, dict[Key, Held]]:
        """A run that may have no segment: no tensor without entries is ever computed with."""
        text = self.low.text
        slots = Slots(text)
        for state in own.values():
            slots.add(state)
        for stream in exports.values():
            stream.begin()
            slots.add(stream.node())
        saved = {key: Stack(one.low, one.types()[key], one.run.length) for key in one.boundaries}
        for stack in saved.values():
            slots.add(stack.node(stack.ssa))
        with text.only_if(one.run.present, slots.otherwise()) as (results, end):
            one.leaves = self.leaves(one.loop, one.low, one.run)
            done = one.lower()
            for v, stream in exports.items():
                stream.put(one.low, done.outputs[v], one.run, False)
            ended = [self.low.full(done.states[key]).ssa for key in own]
            end([*ended, *(s.ssa for s in exports.values()), *(done.starts[key].ssa for key in saved)])
        after = iter(slots.after(results))
        states = {key: next(after) for key in own}
        for stream in exports.values():
            stream.ssa = next(after).ssa
        return states, {key: next(after) for key in saved}

    def settle(self, form: ChunkLoop) -> None:
        """Make tensors of what a loop takes, before branches begin."""
        for instr in form.body:
            if instr.op == "given":
                node = self.env[instr.attr("value")]
                if not cheap(node) or TIME in node.axes:
                    self.env[instr.attr("value")] = self.low.force(node)

    def leaves(self, form: ChunkLoop, low: Lower, run: Run) -> dict[tuple[str, object], Node]:
        """What a loop takes from outside, of one run."""
        found: dict[tuple[str, object], Node] = {}
        for instr in form.body:
            if instr.op == "given":
                node = self.env[instr.attr("value")]
                found["given", instr.attr("value")] = segmented(self.low, low, node, run)
            elif instr.op == "param":
                found["param", instr.attr("param")] = self.params[instr.attr("param")]
            elif instr.op == "state" and (instr.attr("state"), 0) in self.states:
                found["state", instr.attr("state")] = self.states[instr.attr("state"), 0]
        return found


def loop_forms(schedule: Schedule) -> dict[int, tuple[ChunkLoop, ChunkLoop]]:
    """Each loop by the number of its phase: by segments and by ticks; the same where it has no form by segments."""
    found = {}
    for number, phase in enumerate(schedule.all_phases()):
        if isinstance(phase, ChunkLoop):
            found[number] = phase, as_loop(schedule.program, phase.scan)
        elif isinstance(phase, Scan):
            by_tick = as_loop(schedule.program, phase)
            found[number] = by_tick, by_tick
    return found


def changing(schedule: Schedule) -> set[str]:
    """The states that some phase changes."""
    found: set[str] = set()
    for phase in schedule.phases:
        found.update(getattr(phase, "states", ()))
        if isinstance(phase, Delay):
            found.add(phase.state)
    return found


def taken(program: Program, phase: Phase) -> set[int]:
    """The values that a phase takes from others."""
    if isinstance(phase, Delay):
        return {phase.value}
    if isinstance(phase, ChunkLoop):
        scan = taken(program, phase.scan)
        return {i.attr("value") for i in phase.body if i.op == "given"} | scan
    if isinstance(phase, Parallel):
        own = set(phase.values)
        return {a for v in own for a in program.body[v].args} - own
    assert isinstance(phase, Scan)
    own = set(phase.values)
    needed = {v for name, v in program.updates if name in phase.states}
    return (needed | {a for v in own for a in program.body[v].args}) - own
