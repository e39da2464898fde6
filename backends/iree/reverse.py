"""The way back through all phases of a call: cotangents of results to those of parameters, inputs and states."""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.backends.iree.body import Body, cheap
from nldsl.backends.iree.copies import Copies
from nldsl.backends.iree.loop import Carried, Slots, Stream, elem_of, segmented
from nldsl.backends.iree.loop_backward import Backward
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import REAL, Held, Node
from nldsl.backends.iree.runs import Run
from nldsl.backends.iree.sequence import Sequence, taken
from nldsl.ir.backward import BackwardLoop, Key, Leaf
from nldsl.ir.build import Builder
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program
from nldsl.ir.schedule import Delay, Parallel, Schedule, init_values
from nldsl.ir.stages import SEGMENT
from nldsl.ir.types import TIME, Type


@dataclass
class Reverse:
    """``run`` is the call forward, done. ``values``: the cotangents known so far, by value of the program;
    ``states``: of the states and anchors after the call, and at last of those before it."""

    run: Sequence
    values: dict[int, Node]
    states: dict[Key, Node]
    params: dict[str, Node] = field(default_factory=dict)
    inputs: dict[str, Node] = field(default_factory=dict)

    @property
    def low(self) -> Lower:
        return self.run.low

    @property
    def program(self) -> Program:
        return self.run.program

    def go(self) -> None:
        for number, phase in reversed(list(enumerate(self.run.phases()))):
            if isinstance(phase, Parallel):
                self.parallel(phase)
            elif isinstance(phase, Delay):
                self.delay(phase)
            else:
                self.loop(number)
        for v in sorted(self.values):
            instr = self.program.body[v]
            if instr.op == "param":
                self.add(self.params, instr.attr("param"), self.values[v])
            elif instr.op == "input":
                self.add(self.inputs, instr.attr("input"), self.values[v])
            elif instr.op == "state" and instr.attr("state") not in self.delayed():
                self.add(self.states, (instr.attr("state"), 0), self.values[v])

    def delayed(self) -> set[str]:
        return {p.state for p in self.run.phases() if isinstance(p, Delay)}

    def add(self, found: dict, key: object, part: Node) -> None:  # type: ignore[type-arg]
        found[key] = self.low.force(self.low.point("add", found[key], part)) if key in found else part

    def to_value(self, v: int, part: Node) -> None:
        """A contribution to the cotangent of a value, summed over the axes that it does not have."""
        known = self.run.env[v]
        self.add(self.values, v, self.low.force(narrowed(self.low, part, known.axes, known.shape)))

    # ------------------------------------------------------------ all ticks at once

    def parallel(self, phase: Parallel) -> None:
        program, env, derive = self.program, self.run.env, self.run.schedule.derivations
        inside = [v for v in phase.values if v in self.run.needed]
        seeds = [v for v in inside if v in self.values]
        if not seeds:
            return
        builder = Builder([*program.axis_names(), TIME])
        leaves: dict[int, int] = {}

        def leaf(v: int) -> int:
            instr = program.body[v]
            if instr.op in ("const", "iota"):
                return builder.emit(instr.op, span=instr.span, **dict(instr.attrs))
            type = Type(instr.type.shape, builder.order(env[v].axes), instr.type.kind)
            leaves[v] = builder.leaf("given", type, instr.name, instr.span, value=v)
            return leaves[v]

        copies = Copies(builder, program.body, leaf)
        copies.run(inside)
        made = copies.made
        given: dict[int, int] = {}
        for v in seeds:
            type = builder.type(made[v])
            axes = builder.order(self.values[v].axes)
            number = builder.leaf("cotangent_of", Type(type.shape, axes), f"d_{program.body[v].name or 'y'}", value=v)
            seed = derive.fitted(builder, number, type)
            given[made[v]] = builder.emit("add", given[made[v]], seed) if made[v] in given else seed
        wanted = [v for v in leaves if program.body[v].type.kind == "real"]
        found = derive.vjp(builder, given, [leaves[v] for v in wanted], ())
        pairs = [
            (v, derive.fitted(builder, c, builder.type(leaves[v])))
            for v, c in zip(wanted, found, strict=True)
            if c is not None
        ]
        sizes = {a.name: a.size for a in program.axes if a.size is not None}
        roots = [c for _, c in pairs]
        body, number_of = derive.simplify_body(tuple(builder.instrs), roots, builder.axes, sizes)
        known: dict[int, Node] = {}
        for new in number_of.values():
            instr = body[new]
            if instr.op == "given":
                known[new] = env[instr.attr("value")]
            elif instr.op == "cotangent_of":
                known[new] = self.values[instr.attr("value")]
        for v in inside:
            new_number = number_of.get(made[v])
            if new_number is not None and v in env and new_number not in known and body[new_number].args:
                known[new_number] = env[v]
        live = live_values(body, [number_of[r] for r in roots], known)
        work = Body(self.low, body, self.run.fires, 1, known)
        work.run(live, [number_of[r] for r in roots])
        for v in seeds:
            del self.values[v]
        for v, root in pairs:
            self.to_value(v, work.known[number_of[root]])

    # ------------------------------------------------------------ states that are values of the tick before

    def delay(self, phase: Delay) -> None:
        run, low, text = self.run, self.low, self.low.text
        type = self.program.state(phase.state).type
        if elem_of(type) != REAL:
            return
        reads = [v for v, i in enumerate(self.program.body) if i.op == "state" and i.attr("state") == phase.state]
        zero = low.literal(0.0)
        total: Node = zero
        for v in reads:
            if v in self.values:
                total = low.point("add", total, self.values.pop(v))
        stream = run.whole(total, type)
        after = self.states.get((phase.state, 0), zero)
        axes = tuple(a for a in low.order if a in type.axes)
        end = low.full(low.stretched(after, axes, stream.shape))
        place = stream.axes.index(TIME)
        if place not in stream.where:
            self.states[phase.state, 0] = Held(axes, stream.shape, REAL, stream.ssa, end.sizes, end.where)
            moved: Node = low.stretched(end, stream.axes, stream.shape)
        else:
            at = stream.where.index(place)
            rest = text.index_op("subi", run.total, 1)
            first = text.cut(stream.ssa, stream.sizes, REAL, at, 0, None)
            self.states[phase.state, 0] = Held(axes, stream.shape, REAL, first, end.sizes, end.where)
            later = text.cut(stream.ssa, stream.sizes, REAL, at, 1, rest)
            sizes = [rest if n == at else s for n, s in enumerate(stream.sizes)]
            new = text.empty(stream.sizes, REAL)
            new = text.put((later, sizes), (new, stream.sizes), REAL, at, 0, rest)
            new = text.put((end.ssa, end.sizes), (new, stream.sizes), REAL, at, rest, None)
            moved = Held(stream.axes, stream.shape, REAL, new, stream.sizes, stream.where)
        self.to_value(phase.value, moved)

    # ------------------------------------------------------------ loops

    def loop(self, number: int) -> None:
        run, low, program = self.run, self.low, self.program
        trace = run.traces[number]
        keys = [key for key in run.states if key[0] in trace.loop.states]
        now: dict[Key, Held] = {}
        for key in keys:
            type = program.state(key[0]).type
            if elem_of(type) == REAL:
                axes = tuple(a for a in low.order if a in type.axes)
                shape = tuple(int(str(s)) for s in type.shape)
                now[key] = low.full(low.stretched(self.states.get(key, low.zero()), axes, shape))
        cotangents = {v: low.force(self.values.pop(v)) for v in trace.loop.scan.exports if v in self.values}
        streams: dict[int, Stream] = {}
        for part in reversed(trace.runs):
            back = part[1]
            assert back is not None
            for v, _ in back.outputs:
                known = run.env[v]
                if TIME in known.axes and v not in streams:
                    axes = tuple(a for a in known.axes if a != TIME)
                    streams[v] = Stream(low, Type(program.body[v].type.shape, axes))
            now = self.part(part, now, cotangents, streams, alone=len(trace.runs) == 1)
        for key, cotangent in now.items():
            self.states[key] = cotangent
        for v, stream in streams.items():
            self.to_value(v, stream.node())

    def part(
        self,
        traced: tuple[ChunkLoop, BackwardLoop | None, Run, str, dict[Key, Held]],
        now: dict[Key, Held],
        cotangents: dict[int, Held],
        streams: dict[int, Stream],
        alone: bool,
    ) -> dict[Key, Held]:
        """One run of a loop, backward; the cotangents of its states before it."""
        form, back, run, tick, starts = traced
        assert back is not None
        low, text = self.low, self.low.text
        one = Backward(low, self.program, back, run, tick, {}, starts, {}, now)
        sums = self.sums_of(back)
        resets = [s for s in form.states if self.program.state(s).reset.kind == "clock" and (s, 0) in now]

        def lower() -> tuple[dict[Key, Held], list[Held], list[Held]]:
            one.leaves = self.run.leaves(form, one.low, run)
            one.cotangents = {v: segmented(low, one.low, c, run) for v, c in cotangents.items()}
            found = one.lower()
            totals = dict(found.sums)
            for v, node in found.streams.items():
                known = self.run.env[v]
                if v in streams:
                    axes = tuple(a for a in one.low.order if a in {*known.axes, SEGMENT})
                    streams[v].put(one.low, narrowed(one.low, node, axes, known.shape), run, alone)
                else:
                    totals["given", v] = narrowed(one.low, node, known.axes, known.shape)
            laid = []
            for n, leaf in enumerate(sums):
                made = carried.held((str(n), 0), "")
                part = one.low.force(narrowed(one.low, totals[leaf], made.axes, made.shape))
                laid.append(carried.laid((str(n), 0), part))
            begun = [low.full(low.stretched(found.starts[s], now[s, 0].axes, now[s, 0].shape)) for s in resets]
            return {**now, **found.states}, laid, begun

        carried = Carried(low)
        for n, type in enumerate(sums.values()):
            carried.types[str(n), 0] = type
        if alone:
            states, totals, begun = lower()
        else:
            slots = Slots(text)
            zeros = Carried(low)
            for held in (*now.values(),):
                slots.add(held)
            for stream in streams.values():
                stream.begin()  # by segments and by ticks a loop may read other values
                slots.add(stream.node())
            for n, type in enumerate(sums.values()):
                zeros.add((str(n), 0), type, low.zero())
                slots.add(zeros.values[str(n), 0])
            for s in resets:
                slots.add(low.full(low.stretched(low.zero(), now[s, 0].axes, now[s, 0].shape)))
            with text.only_if(run.present, slots.otherwise()) as (results, end):
                inside, totals, begun = lower()
                ended = [low.full(inside[key]) for key in now]
                end([*(x.ssa for x in ended), *(s.ssa for s in streams.values()), *(x.ssa for x in (*totals, *begun))])
            after = iter(slots.after(results))
            states = {key: next(after) for key in now}
            for stream in streams.values():
                stream.ssa = next(after).ssa
            totals = [next(after) for _ in sums]
            begun = [next(after) for _ in resets]
        for (kind, name), node in zip(sums, totals, strict=True):
            self.total(kind, name, node)
        for name, node in zip(resets, begun, strict=True):
            self.initial(back, name, node)
        return states

    def sums_of(self, back: BackwardLoop) -> dict[Leaf, Type]:
        """The sums over all segments, and their types."""
        found: dict[Leaf, Type] = {}
        for kind, name in (leaf for leaf, _ in back.sums):
            if kind == "given":
                assert isinstance(name, int)
                known = self.run.env[name]
                found[kind, name] = Type(known.shape, known.axes)
            elif kind == "param":
                found[kind, name] = self.program.param(str(name)).type
            else:
                found[kind, name] = self.program.state(str(name)).type
        for v, _ in back.outputs:
            known = self.run.env[v]
            if TIME not in known.axes:
                found["given", v] = Type(known.shape, known.axes)
        return found

    def total(self, kind: str, name: object, node: Node) -> None:
        """A sum over all segments of a run."""
        low = self.low
        if kind == "given":
            assert isinstance(name, int)
            self.to_value(name, node)
        elif kind == "param":
            self.add(self.params, name, low.force(node))
        else:
            self.add(self.states, (str(name), 0), low.force(node))

    def initial(self, back: BackwardLoop, name: str, node: Node) -> None:
        """From the cotangent of an initial value to the parameters that it is made of."""
        for way in back.initials:
            if way.state == name:
                known: dict[int, Node] = {}
                for v, instr in enumerate(way.body):
                    if instr.op == "param":
                        known[v] = self.run.params[instr.attr("param")]
                    elif instr.op == "cotangent":
                        known[v] = node
                work = Body(self.low, way.body, self.run.fires, 1, known)
                work.run([v for v in range(len(way.body)) if v not in known], [v for _, v in way.sums])
                for (kind, of), v in way.sums:
                    self.total(kind, of, work.known[v])


def narrowed(low: Lower, node: Node, axes: tuple[str, ...], shape: tuple[int, ...]) -> Node:
    """Summed over axes and dims to which a value of this type was stretched."""
    over = [d for d, a in enumerate(node.axes) if a not in axes]
    lead, first = len(node.axes), len(node.shape) - len(shape)
    dropped = [n for n in range(len(node.shape)) if n < first]
    one = [n for n in range(first, len(node.shape)) if shape[n - first] == 1 and node.shape[n] != 1]
    node = low.reduce(node, [*over, *(lead + n for n in (*dropped, *one))])
    if node.shape != shape:
        from nldsl.backends.iree.shapes import reshape

        node = reshape(low, node, shape)
    return node


def live_values(body: tuple, roots: list[int], known: dict[int, Node]) -> list[int]:  # type: ignore[type-arg]
    """What is still to be computed for ``roots``, in order."""
    found: set[int] = set()
    stack = list(roots)
    while stack:
        v = stack.pop()
        if v in known or v in found:
            continue
        found.add(v)
        stack.extend(body[v].args)
    return sorted(found)


def initial_cotangents(
    low: Lower, schedule: Schedule, params: dict[str, Node], states: dict[str, Node]
) -> dict[str, Node]:
    """From the cotangents of the states at the beginning of a sequence to those of parameters."""
    program, derive = schedule.program, schedule.derivations
    builder = Builder([*program.axis_names()])
    made: dict[int, int] = {}
    read: dict[str, int] = {}

    def value(v: int) -> int:
        if v in made:
            return made[v]
        instr = program.init[v]
        if instr.op == "state":
            made[v] = value(program.state(instr.attr("state")).init)
        elif instr.op == "param":
            made[v] = builder.leaf("param", instr.type, instr.name, instr.span, param=instr.attr("param"))
            read[instr.attr("param")] = made[v]
        else:
            made[v] = builder.emit(instr.op, *(value(a) for a in instr.args), span=instr.span, **dict(instr.attrs))
        return made[v]

    seeds: dict[int, int] = {}
    for name in states:
        type = program.state(name).type
        for v in init_values(program, name):
            value(v)
        target = value(program.state(name).init)
        leaf = builder.leaf("cotangent", type, f"d_{name}", state=name, period=0)
        seed = derive.fitted(builder, leaf, builder.type(target))
        seeds[target] = builder.emit("add", seeds[target], seed) if target in seeds else seed
    found = derive.vjp(builder, seeds, list(read.values()), ())
    pairs = [
        (n, derive.fitted(builder, c, builder.type(read[n]))) for n, c in zip(read, found, strict=True) if c is not None
    ]
    sizes = {a.name: a.size for a in program.axes if a.size is not None}
    body, number = derive.simplify_body(tuple(builder.instrs), [c for _, c in pairs], builder.axes, sizes)
    known: dict[int, Node] = {}
    for v, instr in enumerate(body):
        if instr.op == "param":
            known[v] = params[instr.attr("param")]
        elif instr.op == "cotangent":
            known[v] = states[instr.attr("state")]

    def no_clock(clock: object) -> Node:
        raise AssertionError(f"a choice of {clock} in an initial value")

    work = Body(low, body, no_clock, 1, known)
    work.run([v for v in range(len(body)) if v not in known], [number[c] for _, c in pairs])
    return {name: work.known[number[c]] for name, c in pairs}


__all__ = ["Reverse", "cheap", "initial_cotangents", "narrowed", "taken"]
