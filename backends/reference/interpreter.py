"""The interpreter: one tick after the other, one instruction after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nldsl.backends.reference.lanes import derivative_per_lane
from nldsl.backends.reference.ops import ALIGNED, FORWARD
from nldsl.backends.reference.tape import Tape
from nldsl.backends.reference.values import Array, Frame, Value, dtype_of, lift, stored_shape
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import BATCH, Type, axis_order

Anchors = dict[tuple[str, int], Value]


@dataclass(frozen=True)
class State:
    """Everything that lives from tick to tick. ``tick`` counts the ticks that are done."""

    tick: int
    values: Mapping[str, Value]
    anchors: Mapping[tuple[str, int], Value]
    sizes: dict[str, int]

    def __getitem__(self, name: str) -> Array:
        return self.values[name].array


@dataclass(frozen=True)
class Step:
    """The results of one tick."""

    outputs: dict[str, Value]
    losses: dict[str, Value]
    probes: dict[str, Value]
    state: State


class Reference:
    """Runs ``program`` with these parameters, each stored as ``runtime/initialize.py`` says.

    Inputs and results of a tick are arrays ``[batch, *shape]``, those of a sequence ``[batch, time, *shape]``; without
    ``batch`` for a program that has no such axis. A program may still have ``grad`` instructions: they are evaluated
    lane by lane from the operations of the tick (derivatives of derivatives need ``passes/derive.py`` first).
    """

    def __init__(self, program: Program, params: Mapping[str, Array], tape: Tape | None = None) -> None:
        self.program = program
        self.tape = tape
        self.batched = BATCH in program.axis_names()
        self.params = {p.name: self.leaf(np.asarray(params[p.name], np.float64), p.type) for p in program.params}
        for param in program.params:
            wanted = stored_shape(param.type, self.sizes(1))
            if self.params[param.name].array.shape != wanted:
                raise ValueError(f"parameter {param.name}: shape {self.params[param.name].array.shape}, not {wanted}")
        self.has_grad = any(i.op == "grad" for i in (*program.body, *program.init))
        self.anchored = {(i.attr("state"), i.attr("period")) for i in program.body if i.op == "anchor"}

    # ------------------------------------------------------------ whole sequences

    def run(
        self,
        inputs: Mapping[str, Array],
        state: State | None = None,
        ticks: int | None = None,
    ) -> tuple[dict[str, Array], dict[str, Array], State]:
        """All ticks of a sequence: outputs, losses by level, and the last state. ``ticks`` if there are no inputs."""
        steps, state = self.run_values(self.sequence_of(inputs), state, ticks)
        outputs = {n: self.stacked(s.outputs[n] for s in steps) for n in (steps[0].outputs if steps else ())}
        losses = {n: self.stacked(s.losses[n] for s in steps) for n in (steps[0].losses if steps else ())}
        return outputs, losses, state

    def run_values(
        self, sequence: Mapping[str, list[Value]], state: State | None, ticks: int | None = None
    ) -> tuple[list[Step], State]:
        """``run`` on values that may be on a tape, one list entry a tick."""
        state = state or self.init_state(self.batch_of(sequence))
        steps: list[Step] = []
        for t in range(ticks if ticks is not None else min(len(x) for x in sequence.values())):
            step = self.step(state, {name: values[t] for name, values in sequence.items()})
            steps.append(step)
            state = step.state
        return steps, state

    def tick(self, state: State, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], State]:
        """One tick: outputs and the next state."""
        self.check_inputs(inputs)
        values = {d.name: self.leaf(self.as_input(inputs[d.name], d.type), d.type) for d in self.program.inputs}
        step = self.step(state, values)
        return {name: value.array for name, value in step.outputs.items()}, step.state

    def sequence_of(self, inputs: Mapping[str, Array]) -> dict[str, list[Value]]:
        """The inputs of each tick, as values."""
        result: dict[str, list[Value]] = {}
        self.check_inputs(inputs)
        for declared in self.program.inputs:
            array, time = self.as_input(inputs[declared.name], declared.type), int(BATCH in declared.type.axes)
            ticks = [np.take(array, t, time) for t in range(array.shape[time])]
            result[declared.name] = [self.leaf(tick, declared.type) for tick in ticks]
        return result

    def batch_of(self, sequence: Mapping[str, list[Value]]) -> int:
        sized = (x[0].array.shape[0] for x in sequence.values() if x and BATCH in x[0].type.axes)
        return next(sized, 1)

    def stacked(self, values: Iterable[Value]) -> Array:
        return np.stack([v.array for v in values], axis=int(self.batched))

    def check_inputs(self, inputs: Mapping[str, Array]) -> None:
        missing = [d.name for d in self.program.inputs if d.name not in inputs]
        if missing:
            raise ValueError(f"no values for the inputs {', '.join(missing)}")

    @staticmethod
    def as_input(array: Array, type: Type) -> Array:
        return np.asarray(array, dtype_of(type))

    def leaf(self, array: Array, type: Type) -> Value:
        return self.tape.leaf(array, type) if self.tape else Value(array, type)

    # ------------------------------------------------------------ states

    def sizes(self, batch: int) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for axis in self.program.axes:
            size = batch if axis.name == BATCH else axis.size
            if not isinstance(size, int):
                raise ValueError(f"the interpreter needs numbers: the size of {axis.name} is {size}")  # noqa: TRY004
            sizes[axis.name] = size
        return sizes

    def init_state(self, batch: int = 1) -> State:
        """The state before the first tick of a sequence."""
        return self.reset(State(0, {}, {}, self.sizes(batch)), {s.name for s in self.program.states})

    def next_sequence(self, state: State) -> State:
        """The state before the first tick of the next sequence: states that are never reset keep their value."""
        return self.reset(replace(state, tick=0), {s.name for s in self.program.states if s.reset.kind != "never"})

    def reset(self, state: State, names: set[str]) -> State:
        """``names`` and their anchors set to their initial values, in the order of declaration."""
        values, anchors = dict(state.values), dict(state.anchors)
        for declared in self.program.states:
            if declared.name in names:
                now = replace(state, values=values)
                initial = self.evaluate(self.program.init, now, {}, self.cone(declared.init))[declared.init]
                assert initial is not None
                values[declared.name] = self.place(initial, declared.type, state.sizes)
            for name, period in self.anchored:
                if name == declared.name and (name in names or (name, period) not in anchors):
                    anchors[name, period] = values[name]
        return replace(state, values=values, anchors=anchors)

    def cone(self, value: int) -> set[int]:
        """The instructions of ``init`` that ``value`` needs."""
        needed, open_ = {value}, [value]
        while open_:
            new = set(self.program.init[open_.pop()].args) - needed
            needed |= new
            open_.extend(new)
        return needed

    # ------------------------------------------------------------ one tick

    def step(self, state: State, inputs: Mapping[str, Value]) -> Step:
        """One tick on values."""
        tick, program = state.tick + 1, self.program
        anchors = dict(state.anchors)
        for name, period in self.anchored:
            if (tick - 1) % period == 0:
                anchors[name, period] = state.values[name]
        now = replace(state, tick=tick, anchors=anchors)
        body = self.evaluate(program.body, now, inputs)

        def result(value: int, place: Type | None = None) -> Value:
            found = body[value]
            if found is None:
                raise ValueError(f"value {value} is needed at tick {tick}, but its guard did not fire")
            # results always have the axis of the batch
            axes = self.order((*found.type.axes, *((BATCH,) if self.batched else ())))
            return self.place(found, place or replace(found.type, axes=axes), state.sizes)

        values = dict(state.values)
        for name, value in program.updates:
            values[name] = result(value, program.state(name).type)
        losses: dict[str, Value] = {}
        for level, value in program.losses:
            loss = result(value)
            losses[level] = self.apply("add", [losses[level], loss], loss.type, now) if level in losses else loss
        after = replace(now, values=values)
        due = {s.name for s in program.states if s.reset.clock is not None and s.reset.clock.fires(tick)}
        return Step(
            {name: result(value) for name, value in program.outputs},
            losses,
            {name: result(value) for name, value in program.probes if body[value] is not None},
            self.reset(after, due) if due else after,
        )

    def evaluate(
        self, body: tuple[Instr, ...], state: State, inputs: Mapping[str, Value], only: set[int] | None = None
    ) -> list[Value | None]:
        """The values of a body; None for those whose guard does not fire."""
        scratch = self if self.tape or not self.has_grad else self.on_scratch_tape()
        start = len(scratch.tape.nodes) if scratch.tape else 0
        values: list[Value | None] = []
        with np.errstate(all="ignore"):
            for n, instr in enumerate(body):
                skipped = (only is not None and n not in only) or (instr.guard and not instr.guard.fires(state.tick))
                values.append(None if skipped else scratch.instruction(instr, values, state, inputs, start))
        if scratch is not self:
            values = [None if v is None else Value(v.array, v.type) for v in values]
        return values

    def on_scratch_tape(self) -> Reference:
        """This interpreter recording one tick, for its ``grad`` instructions."""
        return Reference(self.program, {name: value.array for name, value in self.params.items()}, Tape())

    def instruction(
        self, instr: Instr, values: list[Value | None], state: State, inputs: Mapping[str, Value], start: int
    ) -> Value:
        leaf = self.leaf_value(instr, state, inputs)
        if leaf is not None:
            return self.apply("same", [leaf], leaf.type, state) if leaf.node >= 0 else self.leaf(leaf.array, leaf.type)
        chosen = instr.args
        if instr.op == "when":
            chosen = (instr.args[0 if instr.attr("clock").fires(state.tick) else 1],)
        operands = [values[a] for a in chosen]
        known = [v for v in operands if v is not None]
        if len(known) != len(operands):
            raise ValueError(f"{instr.op} at tick {state.tick} uses a value whose guard did not fire")
        if instr.op == "when":  # a value of its own: the derivative with respect to it is not that of the chosen one
            return self.apply("same", [self.place(known[0], instr.type, state.sizes)], instr.type, state)
        if instr.op == "grad":
            assert self.tape is not None
            array = derivative_per_lane(self.tape, known[0], known[1 + instr.attr("index")], instr.type, start)
            frame = Frame(instr.type.axes, instr.type, state.sizes)
            return self.tape.record("grad", frame, known, [v.array for v in known], array)
        return self.apply(instr.op, known, instr.type, state, dict(instr.attrs))

    def leaf_value(self, instr: Instr, state: State, inputs: Mapping[str, Value]) -> Value | None:
        match instr.op:
            case "input":
                return inputs[instr.attr("input")]
            case "param":
                return self.params[instr.attr("param")]
            case "state":
                return state.values[instr.attr("state")]
            case "anchor":
                return state.anchors[instr.attr("state"), instr.attr("period")]
        return None

    # ------------------------------------------------------------ one operation

    def order(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return axis_order(names, self.program.axis_names())

    def apply(
        self, op: str, operands: list[Value], out: Type, state: State, attrs: dict[str, Any] | None = None
    ) -> Value:
        axes = self.order(tuple(a for v in operands for a in v.type.axes))
        frame = Frame(axes, out, state.sizes, attrs or {}, state.tick)
        rank = len(out.shape) if op in ALIGNED else None
        lifted, expected = [lift(v, axes, rank) for v in operands], frame.out_shape
        array = np.asarray(FORWARD[op](frame, *lifted)).astype(dtype_of(out))
        if array.shape != expected:
            raise ValueError(f"{op} gave shape {array.shape}, its type {out} says {expected}")
        return self.tape.record(op, frame, operands, lifted, array) if self.tape else Value(array, out)

    def place(self, value: Value, type: Type, sizes: dict[str, int]) -> Value:
        """``value`` as a value of this type, which may have more axes, or be real where it is an integer."""
        if value.type == type:
            return value
        frame = Frame(type.axes, type, sizes)
        lifted = lift(value, type.axes)
        array = np.broadcast_to(lifted, frame.out_shape).astype(dtype_of(type))
        return self.tape.record("place", frame, [value], [lifted], array) if self.tape else Value(array, type)
