"""The way back through a run of a loop: the same segments, from the last one to the first (``ir/backward.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.backends.iree.body import Body
from nldsl.backends.iree.loop import (
    Carried,
    Stack,
    apart,
    carried_types,
    carry,
    clock_value,
    fires,
    gathered,
    inner,
    remainder_is,
    ticks_of_run,
)
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import BOOL, INT, Held, Node
from nldsl.backends.iree.picks import LazyPicks
from nldsl.backends.iree.runs import Run
from nldsl.ir.backward import BackwardLoop, Key, Leaf
from nldsl.ir.program import Program
from nldsl.ir.stages import FINISH, PREPARE, SEGMENT, STEP, backward_stages
from nldsl.ir.types import Clock, Type


@dataclass
class Returned:
    """``states``: the cotangents at the beginning of the run; ``streams``: by value, with the axes of segments and
    ticks; ``sums``: by leaf; ``starts``: of initial values, by state."""

    states: dict[Key, Held]
    streams: dict[int, Node]
    sums: dict[Leaf, Node]
    starts: dict[str, Node]


@dataclass
class Backward:
    """``leaves`` and ``starts`` are those of the run forward; ``cotangents``: of its outputs, in pieces; ``states``: of
    the states and anchors after it."""

    outer: Lower
    program: Program
    back: BackwardLoop
    run: Run
    tick: str
    leaves: dict[tuple[str, object], Node]
    starts: dict[Key, Held]
    cotangents: dict[int, Node]
    states: dict[Key, Held]

    def __post_init__(self) -> None:
        self.loop = self.back.loop
        self.low = inner(self.outer, self.program, self.loop, self.run)
        self.text = self.low.text
        self.body = self.back.body
        self.stage = backward_stages(self.back)
        if not self.loop.hoist:  # nothing is kept for every tick but the states
            self.stage = tuple(
                s if s is None or (not i.args and i.op != "cotangent") else STEP
                for s, i in zip(self.stage, self.body, strict=True)
            )
        types = carried_types(self.program, self.loop, self.low.order)
        self.types = {key: type for key, type in types.items() if type.kind == "real"}

    def lower(self) -> Returned:
        known = self._leaves()
        prepare = Body(self.low, self.body, self._no_clock, self.run.length, known)
        late = {a for v, i in enumerate(self.body) if self.stage[v] in (STEP, FINISH) for a in i.args}
        results = {v for _, v in (*self.back.carry, *self.back.outputs, *self.back.sums)}
        prepare.run(self._values(PREPARE), late | results)
        stacked, states, totals, starts = self._steps(prepare.known)
        known = {v: n for v, n in prepare.known.items() if self.stage[v] == PREPARE} | stacked
        finish = Body(self.low, self.body, self._no_clock, self.run.length, known)
        finish.run(self._values(FINISH), [v for _, v in self.back.outputs])
        streams = {value: finish.known[v] for value, v in self.back.outputs}
        sums = dict(totals)
        for leaf, v in self.back.sums:
            if leaf not in sums:
                sums[leaf] = self._over_segments(finish.known[v])
        return Returned(states, streams, sums, starts)

    def _no_clock(self, clock: Clock) -> Node:
        raise AssertionError(f"a choice of {clock} outside the steps")

    def _values(self, stage: int) -> list[int]:
        return [v for v, i in enumerate(self.body) if self.stage[v] == stage and i.op != "cotangent"]

    def _over_segments(self, node: Node) -> Node:
        if SEGMENT in node.axes:
            return self.low.reduce(node, (node.axes.index(SEGMENT),))
        return self.low.times(node, [self.run.count])

    def _leaves(self) -> dict[int, Node]:
        known: dict[int, Node] = {}
        ticks: Node | None = None
        for v, instr in enumerate(self.body):
            if self.stage[v] is None or instr.args:
                continue
            if instr.op == "clock":
                ticks = ticks or ticks_of_run(self.low, self.tick, self.run)
                known[v] = clock_value(self.low, instr, ticks)
            elif instr.op in ("given", "param", "state"):
                known[v] = self.leaves[instr.op, instr.attr("value" if instr.op == "given" else instr.op)]
            elif instr.op == "boundary":
                known[v] = self.starts[instr.attr("state"), instr.attr("period")]
            elif instr.op == "cotangent_of":
                zero = self.low.stretched(self.low.literal(0.0), (), _sized(instr.type, self.run.length).shape)  # type: ignore[arg-type]
                known[v] = self.cotangents.get(instr.attr("value"), zero)
        return known

    def _steps(
        self, prepared: dict[int, Node]
    ) -> tuple[dict[int, Node], dict[Key, Held], dict[Leaf, Node], dict[str, Node]]:
        text, low, body, back = self.text, self.low, self.body, self.back
        carried = Carried(low)
        for key, type in self.types.items():
            carried.add(key, type, gathered(low, self.loop, self.states, key))
        keys = list(self.types)
        summed = [(leaf, v) for leaf, v in back.sums if self.stage[v] == STEP]
        reset = [s for s in self.loop.states if self.program.state(s).reset.kind == "clock" and (s, 0) in self.types]
        extra = Carried(low)
        for n, (_, v) in enumerate(summed):
            extra.add((f"sum {n}", 0), _sized(body[v].type, self.run.length), low.zero())
        for name in reset:
            extra.add((f"start {name}", 0), self.types[name, 0], low.zero())
        finishing = [v for v in self._late() if self.stage[v] == STEP]
        stacks = [Stack(low, body[v].type, self.run.length) for v in finishing]
        tensors = [*carried.values.values(), *extra.values.values(), *(s.node(s.ssa) for s in stacks)]
        with text.loop(self.run.count, [carry(t) for t in tensors]) as (number, inside, end):
            step = Lower(text, low.sizes, low.order)
            last_one = text.index_op("subi", self.run.count, 1)
            at = text.index(text.index_op("subi", last_one, number))
            length = text.const(self.run.length, INT)
            begin = text.int_op("addi", self.tick, text.int_op("muli", text.integer(at), length))
            last = text.int_op("addi", begin, length)
            now: dict[Key, Node] = {k: carried.held(k, ssa) for k, ssa in zip(keys, inside, strict=False)}
            sums = {k: extra.held(k, inside[len(keys) + n]) for n, k in enumerate(extra.types)}
            starts: dict[Key, Node] = dict(sums)
            for name in reset:
                self._through_reset(step, now, starts, name, last)
            known = LazyPicks(step, prepared, at)
            for v, instr in enumerate(body):
                if instr.op == "cotangent":
                    known[v] = now[instr.attr("state"), instr.attr("period")]
            work = Body(step, body, lambda clock: fires(step, clock, last), self.run.length, known, one_by_one=True)
            work.run(self._values(STEP), [*finishing, *(v for _, v in back.carry)])
            first = len(keys) + len(extra.types)
            made = [
                s.put(step, inside[first + n], at, work.known[v])
                for n, (s, v) in enumerate(zip(stacks, finishing, strict=True))
            ]
            for key, v in back.carry:
                now[key] = work.known[v]
            for n, (_, v) in enumerate(summed):
                starts[f"sum {n}", 0] = step.point("add", starts[f"sum {n}", 0], work.known[v])
            self._through_anchors(step, now, begin)
            after, more = Carried(step, carried.types), Carried(step, extra.types)
            ended = [after.laid(k, now[k]).ssa for k in keys] + [more.laid(k, starts[k]).ssa for k in extra.types]
            results = end([*ended, *made])
        results = [text.tied(ssa, t.sizes, t.elem) for ssa, t in zip(results, tensors, strict=True)]
        states = apart(low, self.loop, {k: carried.held(k, results[n]) for n, k in enumerate(keys)})
        extras = {k: extra.held(k, results[len(keys) + n]) for n, k in enumerate(extra.types)}
        totals: dict[Leaf, Node] = {leaf: extras[f"sum {n}", 0] for n, (leaf, _) in enumerate(summed)}
        first = len(keys) + len(extra.types)
        stacked: dict[int, Node] = {
            v: s.node(results[first + n]) for n, (s, v) in enumerate(zip(stacks, finishing, strict=True))
        }
        return stacked, states, totals, {name: extras[f"start {name}", 0] for name in reset}

    def _late(self) -> list[int]:
        used = {a for v, i in enumerate(self.body) if self.stage[v] == FINISH for a in i.args}
        return sorted(used | {v for _, v in self.back.outputs})

    def _through_reset(self, low: Lower, now: dict[Key, Node], starts: dict[Key, Node], name: str, last: str) -> None:
        """Where a state took its initial value, its cotangent is that of the value; before it there is none."""
        clock = self.program.state(name).reset.clock
        assert clock is not None
        condition, zero = fires(low, clock, last), low.literal(0.0)
        for key in [k for k in now if k[0] == name]:
            part = low.point("where", condition, now[key], zero)
            starts[f"start {name}", 0] = low.point("add", starts[f"start {name}", 0], part)
            now[key] = low.point("where", condition, zero, now[key])

    def _through_anchors(self, low: Lower, now: dict[Key, Node], begin: str) -> None:
        """Where an anchor was taken, its cotangent is one of the state."""
        for name, period in [k for k in now if k[1]]:
            anchor = now[name, period]
            if period == 1:
                now[name, 0] = low.point("add", now[name, 0], anchor)
                now[name, period] = low.literal(0.0)
                continue
            due = low.scalar(remainder_is(low.text, begin, period, 0), BOOL)
            anchor = low.force(anchor) if not isinstance(anchor, Held) else anchor
            now[name, 0] = low.point("add", now[name, 0], low.point("where", due, anchor, low.literal(0.0)))
            now[name, period] = low.point("where", due, low.literal(0.0), anchor)


def _sized(type: Type, ticks: int) -> Type:
    from nldsl.backends.iree.body import number_of

    return Type(tuple(number_of(s, ticks) for s in type.shape), type.axes, type.kind)


__all__: Sequence[str] = ["Backward", "Returned"]
