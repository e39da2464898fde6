"""Loops over segments: ``scf.for`` with the states carried; what needs no state is done for all segments at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nldsl.backends.iree.body import Body, cheap, number_of
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import BOOL, INT, REAL, Held, Node, Size
from nldsl.backends.iree.packs import apart, gathered
from nldsl.backends.iree.picks import LazyPicks
from nldsl.backends.iree.runs import Run
from nldsl.backends.iree.text import Carried as Carry
from nldsl.backends.iree.text import Text
from nldsl.ir.backward import BackwardLoop, Key
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Instr, Program
from nldsl.ir.stages import FINISH, PREPARE, SEGMENT, STEP, stages
from nldsl.ir.types import BATCH, TIME, Clock, Type

States = dict[Key, Held]  # by (state, period); period 0 is the state itself


def elem_of(type: Type) -> str:
    return INT if type.kind == "int" else REAL


def carry(tensor: Held) -> Carry:
    """A tensor as something that a loop carries."""
    return tensor.ssa, tensor.sizes, tensor.elem


def loop_order(program: Program, loop: ChunkLoop) -> tuple[str, ...]:
    """Segments first, so that each lies in one piece; ticks last, next to the logical dims."""
    rest = [a for a in program.axis_names() if a != BATCH]
    return (SEGMENT, BATCH, *rest, *(a.name for a in loop.lanes if a.name not in rest), TIME)


def inner(outer: Lower, program: Program, loop: ChunkLoop, run: Run) -> Lower:
    """How expressions are lowered in a run."""
    sizes = dict(outer.sizes)
    sizes.update({a.name: number_of(a.size, run.length) for a in loop.lanes if a.size is not None})
    sizes.update({SEGMENT: run.count, TIME: run.length})
    return Lower(outer.text, sizes, loop_order(program, loop))


# ---------------------------------------------------------------- streams


def segmented(outer: Lower, low: Lower, stream: Node, run: Run) -> Node:
    """The ticks of a run of a stream, with the axis of segments. What does not change with time stays as it is."""
    if TIME not in stream.axes:
        return stream
    whole = outer.force(stream)
    time = whole.axes.index(TIME)
    others = [a for a in whole.axes if a != TIME]
    axes = tuple(a for a in low.order if a in {*others, SEGMENT, TIME})
    moved = {d: axes.index(a) for d, a in enumerate(whole.axes) if a != TIME}
    moved.update({len(whole.axes) + n: len(axes) + n for n in range(len(whole.shape))})
    if time not in whole.where:
        return Held(axes, whole.shape, whole.elem, whole.ssa, whole.sizes, tuple(moved[w] for w in whole.where))
    text, place = outer.text, whole.where.index(time)
    length = text.index_op("muli", run.count, run.length)
    ssa, sizes = whole.ssa, list(whole.sizes)
    if run.offset != 0 or length != sizes[place]:
        ssa = text.cut(ssa, sizes, whole.elem, place, run.offset, length)
        sizes[place] = length
    pieces: list[tuple[Size, int]] = [(run.count, axes.index(SEGMENT)), (run.length, axes.index(TIME))]
    pieces = [p for p in pieces if p[0] != 1]
    if not pieces:
        ssa = text.cut(ssa, sizes, whole.elem, place, 0, None)
    groups: list[list[Size]] = [[s] if n != place else [p[0] for p in pieces] for n, s in enumerate(sizes)]
    where: list[int] = []
    for n, w in enumerate(whole.where):
        where += [p[1] for p in pieces] if n == place else [moved[w]]
    if pieces:
        ssa = text.expand(ssa, sizes, whole.elem, groups)
    return Held(axes, whole.shape, whole.elem, ssa, tuple(s for g in groups for s in g), tuple(where))


@dataclass
class Stream:
    """A stream that runs fill part by part."""

    outer: Lower
    type: Type  # without time
    ssa: str = ""
    sizes: tuple[Size, ...] = ()
    where: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.axes = tuple(a for a in self.outer.order if a in {*self.type.axes, TIME})
        self.shape = tuple(int(str(s)) for s in self.type.shape)
        made = Held(self.axes, self.shape, elem_of(self.type), "", (), ())
        self.where = tuple(d for d in range(made.rank) if self.outer.size(made, d) != 1)
        self.sizes = tuple(self.outer.size(made, d) for d in self.where)

    @property
    def elem(self) -> str:
        return elem_of(self.type)

    def begin(self) -> None:
        """Zeros: some runs may have nothing to put."""
        self.ssa = self.ssa or self.outer.text.unlike(self.sizes, self.elem)

    def put(self, low: Lower, node: Node, run: Run, alone: bool) -> None:
        """The part of a run; ``alone``: there is no other one."""
        text, elem = low.text, elem_of(self.type)
        axes = tuple(a for a in low.order if a in {*self.axes, SEGMENT})
        node = low.stretched(node, axes, self.shape)
        lead = [
            d for a in self.axes for d in ([axes.index(SEGMENT), axes.index(TIME)] if a == TIME else [axes.index(a)])
        ]
        part = low.laid(node if node.elem == elem else low.point("to_real", node),
                        [*lead, *range(len(axes), node.rank)])  # fmt: skip
        length = text.index_op("muli", run.count, run.length)
        groups: list[list[Size]] = []
        sizes: list[Size] = []
        at = 0
        for d, size in zip(self.where, self.sizes, strict=True):
            if d < len(self.axes) and self.axes[d] == TIME:
                pieces = [s for s in (run.count, run.length) if s != 1]
                groups.append(pieces)
                sizes.append(length)
                at += len(pieces)
            else:
                groups.append([size])
                sizes.append(size)
                at += 1
        place = next((n for n, d in enumerate(self.where) if d < len(self.axes) and self.axes[d] == TIME), None)
        ssa = part.ssa
        if place is not None and groups[place]:
            ssa = text.collapse(part.ssa, part.sizes, elem, groups, sizes)
        if place is None:
            self.ssa = ssa
            return
        if alone:
            self.ssa = text.cast(ssa, sizes, self.sizes, elem)
            return
        own: Sequence[Size] = sizes
        amount: Size | None = length
        if not groups[place]:
            own, amount = part.sizes, None
        self.ssa = text.put((ssa, own), (self.ssa, self.sizes), elem, place, run.offset, amount)

    def node(self) -> Held:
        return Held(self.axes, self.shape, elem_of(self.type), self.ssa, self.sizes, self.where)


# ---------------------------------------------------------------- runs that may be empty


@dataclass
class Slots:
    """Tensors that a run changes, and what they are where it has no segment."""

    text: Text
    tensors: list[Held] = field(default_factory=list)

    def add(self, tensor: Held) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def otherwise(self) -> list[Carry]:
        return [carry(t) for t in self.tensors]

    def after(self, results: Sequence[str]) -> list[Held]:
        pairs = zip(self.tensors, results, strict=True)
        return [replace(t, ssa=self.text.tied(ssa, t.sizes, t.elem)) for t, ssa in pairs]


# ---------------------------------------------------------------- what is carried


@dataclass
class Carried:
    """Tensors that a loop carries, in the layout of their types."""

    low: Lower
    types: dict[Key, Type] = field(default_factory=dict)
    values: dict[Key, Held] = field(default_factory=dict)

    def held(self, key: Key, ssa: str) -> Held:
        type = self.types[key]
        axes = tuple(a for a in self.low.order if a in type.axes)
        made = Held(axes, tuple(int(str(s)) for s in type.shape), elem_of(type), "", (), ())
        where = tuple(d for d in range(made.rank) if self.low.size(made, d) != 1)
        return replace(made, ssa=ssa, sizes=tuple(self.low.size(made, d) for d in where), where=where)

    def add(self, key: Key, type: Type, value: Node) -> None:
        self.types[key] = type
        self.values[key] = self.laid(key, value)

    def laid(self, key: Key, value: Node) -> Held:
        """A value in the layout of what is carried under ``key``."""
        made = self.held(key, "")
        node = self.low.stretched(value, made.axes, made.shape)
        if node.elem != made.elem and node.elem != BOOL:
            node = self.low.point("to_real", node)
        return self.low.full(node)


@dataclass
class Stack:
    """A value of each segment, side by side. ``type`` is that of one segment."""

    low: Lower
    type: Type
    ticks: int
    ssa: str = ""

    def __post_init__(self) -> None:
        axes = tuple(a for a in self.low.order if a in {*self.type.axes, SEGMENT})
        shape = tuple(number_of(s, self.ticks) for s in self.type.shape)
        made = Held(axes, shape, elem_of(self.type), "", (), ())
        where = tuple(d for d in range(made.rank) if self.low.size(made, d) != 1)
        self.made = replace(made, sizes=tuple(self.low.size(made, d) for d in where), where=where)
        self.ssa = self.low.text.unlike(self.made.sizes, self.made.elem)

    def put(self, low: Lower, ssa: str, at: str, value: Node) -> str:
        """The tensor with the value of segment ``at``."""
        axes = self.made.axes[1:]
        node = low.stretched(value, axes, self.made.shape)
        if node.elem != self.made.elem:
            node = low.point("to_real", node)
        part = low.full(node)
        if 0 not in self.made.where:
            return part.ssa
        return low.text.put((part.ssa, part.sizes), (ssa, self.made.sizes), self.made.elem, 0, at, None)

    def node(self, ssa: str) -> Held:
        return replace(self.made, ssa=ssa)


# ---------------------------------------------------------------- clocks


def remainder_is(text: Text, tick: str, period: int, rest: int) -> str:
    """Whether a number of ticks leaves ``rest``, as a condition."""
    left = text.int_op("remsi", tick, text.const(period, INT))
    return text.let(f"arith.cmpi eq, {left}, {text.const(rest, INT)} : i64")


def fires(low: Lower, clock: Clock, tick: str) -> Node:
    """Whether a clock fires at tick ``tick`` (from 1)."""
    if clock.period == 1:
        return low.scalar(low.text.const(1, BOOL), BOOL)
    return low.scalar(remainder_is(low.text, tick, clock.period, 1 if clock.start else 0), BOOL)


def clock_value(low: Lower, instr: Instr, tick: Node) -> Node:
    """The value of ``clock(scale, period)`` at tick ``tick``."""
    scale, period = instr.attr("scale"), instr.attr("period")
    found = tick
    if scale != 1:  # ticks are not negative: what is left over is taken off, then the division is exact
        rest = low.point("mod", tick, low.literal(scale))
        found = low.point("quotient", low.point("sub", tick, rest), low.literal(scale))
    if period:
        found = low.point(
            "add", low.point("mod", low.point("sub", found, low.literal(1)), low.literal(period)), low.literal(1)
        )
    return found


def ticks_of_run(low: Lower, start: str, run: Run) -> Node:
    """The tick of each place of a run, with the axes of segments and of time."""
    first = low.point("mul", low.counter(SEGMENT), low.literal(run.length))
    own = low.point("add", first, low.counter(TIME)) if run.length != 1 else first
    return low.point("add", own, low.scalar(low.text.int_op("addi", start, low.text.const(1, INT)), INT))


# ---------------------------------------------------------------- the loop


@dataclass
class Done:
    """What a run of a loop gives. ``starts``: states at the beginning of each segment, with the axis of segments."""

    states: States
    outputs: dict[int, Node]
    starts: dict[Key, Held]


@dataclass
class Forward:
    """One run of a loop, forward. ``states``: its states and anchors; ``leaves``: what comes from outside, by leaf."""

    outer: Lower
    program: Program
    loop: ChunkLoop
    run: Run
    tick: str  # ticks before the run
    states: States
    leaves: dict[tuple[str, object], Node]
    initials: dict[str, Node]
    back: BackwardLoop | None = None

    @property
    def boundaries(self) -> tuple[Key, ...]:
        """What is kept of the beginning of each segment."""
        return self.back.boundaries if self.back is not None else ()

    def __post_init__(self) -> None:
        self.low = inner(self.outer, self.program, self.loop, self.run)
        self.stage = stages(self.loop)
        self.text = self.low.text

    def lower(self) -> Done:
        body, stage = self.loop.body, self.stage
        known = self._leaves()
        prepare = Body(self.low, body, self._no_clock, self.run.length, known)
        prepare.run(self._values(PREPARE), self._crossing(PREPARE, (STEP, FINISH)))
        stacked, results, starts = self._steps(prepare.known)
        known = {v: n for v, n in prepare.known.items() if stage[v] == PREPARE} | stacked
        finish = Body(self.low, body, self._no_clock, self.run.length, known)
        finish.run(self._values(FINISH), [v for _, v in self.loop.outputs])
        outputs = {value: finish.known[v] for value, v in self.loop.outputs}
        return Done(results, outputs, starts)

    def _no_clock(self, clock: Clock) -> Node:
        raise AssertionError(f"a choice of {clock} outside the steps")

    def _values(self, stage: int) -> list[int]:
        body = self.loop.body
        return [v for v in range(len(body)) if self.stage[v] == stage and body[v].op not in ("state", "anchor")]

    def _crossing(self, source: int, targets: tuple[int, ...]) -> list[int]:
        used = {a for v, i in enumerate(self.loop.body) if self.stage[v] in targets for a in i.args}
        used |= {v for _, v in (*self.loop.carry, *self.loop.outputs)}
        return sorted(v for v in used if self.stage[v] == source)

    def _leaves(self) -> dict[int, Node]:
        known: dict[int, Node] = {}
        ticks: Node | None = None
        own = {name for name, _ in self.types()}
        for v, instr in enumerate(self.loop.body):
            if self.stage[v] is None:
                continue
            if instr.op == "clock":
                ticks = ticks or ticks_of_run(self.low, self.tick, self.run)
                known[v] = clock_value(self.low, instr, ticks)
            elif instr.op in ("given", "param"):
                known[v] = self.leaves[instr.op, instr.attr("value" if instr.op == "given" else "param")]
            elif instr.op == "state" and instr.attr("state") not in own:
                known[v] = self.leaves["state", instr.attr("state")]
        return known

    def types(self) -> dict[Key, Type]:
        """What the loop carries: packs instead of their states."""
        return carried_types(self.program, self.loop, self.low.order)

    def _steps(self, prepared: dict[int, Node]) -> tuple[dict[int, Node], States, dict[Key, Held]]:
        loop, body, text, low = self.loop, self.loop.body, self.text, self.low
        carried = Carried(low)
        for key, type in self.types().items():
            carried.add(key, type, gathered(low, loop, self.states, key))
        finishing = [v for v in self._crossing(STEP, (FINISH,)) if v in self._needed_late()]
        stacks = [Stack(low, body[v].type, self.run.length) for v in finishing]
        saved = [Stack(low, carried.types[key], self.run.length) for key in self.boundaries]
        keys = list(carried.values)
        iterated = [carry(carried.values[k]) for k in keys] + [carry(s.node(s.ssa)) for s in (*stacks, *saved)]
        with text.loop(self.run.count, iterated) as (at, inside, end):
            step = Lower(text, low.sizes, low.order)
            begin = text.int_op(
                "addi", self.tick, text.int_op("muli", text.integer(at), text.const(self.run.length, INT))
            )
            last = text.int_op("addi", begin, text.const(self.run.length, INT))
            now: dict[Key, Node] = {k: carried.held(k, ssa) for k, ssa in zip(keys, inside, strict=False)}
            refreshed(step, now, begin)
            known = LazyPicks(step, prepared, at)
            for v, instr in enumerate(body):
                if instr.op == "state" and (instr.attr("state"), 0) in now:
                    known[v] = now[instr.attr("state"), 0]
                elif instr.op == "anchor":
                    known[v] = now[instr.attr("state"), instr.attr("period")]
            rows = len(keys)
            kept = [
                s.put(step, inside[rows + len(stacks) + n], at, now[key])
                for n, (s, key) in enumerate(zip(saved, self.boundaries, strict=True))
            ]
            work = Body(step, body, lambda clock: fires(step, clock, last), self.run.length, known, one_by_one=True)
            work.run(self._values(STEP), [*finishing, *(v for _, v in loop.carry)])
            made = [
                s.put(step, inside[rows + n], at, work.known[v])
                for n, (s, v) in enumerate(zip(stacks, finishing, strict=True))
            ]
            for name, v in loop.carry:
                now[name, 0] = work.known[v]
            self._reset(step, now, last)
            after = Carried(step, carried.types)
            results = end([*(after.laid(k, now[k]).ssa for k in keys), *made, *kept])
        tensors = [*(carried.values[k] for k in keys), *(s.made for s in (*stacks, *saved))]
        results = [text.tied(ssa, t.sizes, t.elem) for ssa, t in zip(results, tensors, strict=True)]
        ends: States = {k: carried.held(k, results[n]) for n, k in enumerate(keys)}
        found: dict[int, Node] = {
            v: s.node(results[rows + n]) for n, (s, v) in enumerate(zip(stacks, finishing, strict=True))
        }
        starts = {
            key: s.node(results[rows + len(stacks) + n])
            for n, (s, key) in enumerate(zip(saved, self.boundaries, strict=True))
        }
        return found, apart(low, loop, ends), starts

    def _needed_late(self) -> set[int]:
        used = {a for v, i in enumerate(self.loop.body) if self.stage[v] == FINISH for a in i.args}
        return used | {v for _, v in self.loop.outputs}

    def _reset(self, low: Lower, now: dict[Key, Node], last: str) -> None:
        """States whose reset clock fires take their initial value, with their anchors."""
        for name in self.loop.states:
            clock = self.program.state(name).reset.clock
            if self.program.state(name).reset.kind != "clock" or clock is None:
                continue
            condition = fires(low, clock, last)
            for key in [k for k in now if k[0] == name]:
                now[key] = low.point("where", condition, self.initials[name], now[key])


def refreshed(low: Lower, now: dict[Key, Node], begin: str) -> None:
    """Anchors that are due after ``begin`` ticks take the value of their state."""
    for name, period in [k for k in now if k[1]]:
        if period == 1:
            now[name, period] = now[name, 0]
        else:
            due = low.scalar(remainder_is(low.text, begin, period, 0), BOOL)
            now[name, period] = low.force(low.point("where", due, now[name, 0], now[name, period]))


def carried_types(program: Program, loop: ChunkLoop, order: Sequence[str]) -> dict[Key, Type]:
    """The types of what a loop carries, by (state or pack, period)."""
    found: dict[Key, Type] = {}
    packs = {p.name: p for p in loop.packs}
    inside = {s for p in loop.packs for s in p.states}
    names = [*packs, *(s for s in loop.states if s not in inside)]
    for name in names:
        if name in packs:
            first = program.state(packs[name].states[0]).type
            axes = tuple(a for a in order if a in {*first.axes, packs[name].axis})
            found[name, 0] = Type(first.shape, axes, first.kind)
        else:
            found[name, 0] = program.state(name).type
    for name, period in loop.anchors:
        found[name, period] = found[name, 0]
    return found


__all__ = ["Done", "Forward", "Stream", "apart", "cheap", "gathered"]
