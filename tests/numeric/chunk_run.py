"""Programs run tick by tick, and the same with their loops as loops over segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nldsl.ir.build import Builder
from nldsl.ir.chunk import ChunkLoop, Pack, segments
from nldsl.ir.program import Axis, Initializer, InputDecl, Instr, ParamDecl, Program, Reset, StateDecl
from nldsl.ir.schedule import Delay, Parallel, Schedule, anchors
from nldsl.ir.types import BATCH, TIME, Clock, Type
from tests.numeric.ir_torch import Evaluator, Streams

BATCH_SIZE = 2
Held = dict[tuple[str, int], Tensor]


@dataclass
class Run:
    """The streams of the outputs [T, axes.., dims], and the states at the end."""

    outputs: dict[str, Tensor]
    states: dict[str, Tensor]
    anchors: dict[tuple[str, int], Tensor]


class Maker:
    """Builds small programs: states and inputs on the batch axis, and copies of a memory on the axis ``heads``."""

    def __init__(self, heads: int = 0) -> None:
        self.axes = (Axis(BATCH, None), *((Axis("heads", heads),) if heads else ()))
        self.lanes = tuple(a.name for a in self.axes)
        self.body = Builder(list(self.lanes))
        self.init = Builder(list(self.lanes))
        self.inputs: list[InputDecl] = []
        self.params: list[ParamDecl] = []
        self.states: list[StateDecl] = []
        self.updates: dict[str, int] = {}
        self.outputs: dict[str, int] = {}

    def input(self, name: str, *shape: int) -> int:
        type = Type(shape, self.lanes)
        self.inputs.append(InputDecl(name, type))
        return self.body.leaf("input", type, name, input=name)

    def param(self, name: str, *shape: int) -> int:
        type = Type(shape)
        self.params.append(ParamDecl(name, type, Initializer("normal", (0.3,))))
        return self.body.leaf("param", type, name, param=name)

    def state(self, name: str, *shape: int, reset: Clock | None = None) -> int:
        type = Type(shape, self.lanes)
        start = self.init.leaf("param", Type(shape), param=name + "_0")
        self.params.append(ParamDecl(name + "_0", Type(shape), Initializer("normal", (0.3,))))
        kind = Reset("clock", reset) if reset else Reset()
        self.states.append(StateDecl(name, type, start, kind))
        value = self.body.leaf("state", type, name, state=name)
        self.updates.setdefault(name, value)
        return value

    def anchor(self, name: str, period: int) -> int:
        shape = next(s.type.shape for s in self.states if s.name == name)
        return self.body.leaf("anchor", Type(shape, self.lanes), name, state=name, period=period)

    def __getattr__(self, op: str) -> Any:
        def emit(*args: int | float, **attrs: Any) -> int:
            values = [a if isinstance(a, int) else self.body.const(a) for a in args]
            return self.body.emit(op, *values, **attrs)

        return emit

    def ein(self, spec: str, *args: int) -> int:
        return self.body.emit("einsum", *args, spec=spec)

    def program(self) -> Program:
        return Program(
            "test",
            self.axes,
            tuple(self.inputs),
            tuple(self.params),
            tuple(self.states),
            tuple(self.body.instrs),
            tuple(self.updates.items()),
            tuple(self.outputs.items()),
            init=tuple(self.init.instrs),
        )


@dataclass
class Data:
    """Inputs [T, axes.., dims] and parameters."""

    inputs: dict[str, Tensor]
    params: dict[str, Tensor]

    def tensors(self) -> list[Tensor]:
        return [*self.inputs.values(), *self.params.values()]


def sizes(program: Program, axes: tuple[str, ...]) -> list[int]:
    found = []
    for axis in axes:
        size = BATCH_SIZE if axis == BATCH else program.axis_size(axis)
        assert isinstance(size, int)
        found.append(size)
    return found


def initial(program: Program, name: str, data: Data) -> Tensor:
    state = program.state(name)
    value = Evaluator(program.init, lambda i: data.params[i.attr("param")], lambda c: False)(state.init)
    shape = [*sizes(program, state.type.axes), *(int(str(s)) for s in state.type.shape)]
    return value.expand(shape)


def clock_value(instr: Instr, tick: int) -> int:
    n: int = tick // instr.attr("scale")
    period: int = instr.attr("period")
    return (n - 1) % period + 1 if period else n


def run_ticks(program: Program, data: Data, count: int) -> Run:
    """Every tick by itself, straight from the meaning of a program."""
    states = {s.name: initial(program, s.name, data) for s in program.states}
    held = {key: states[key[0]] for key in anchors(program)}
    streams: dict[str, list[Tensor]] = {name: [] for name, _ in program.outputs}
    for t in range(1, count + 1):
        for name, period in held:
            if (t - 1) % period == 0:
                held[name, period] = states[name]

        def leaf(instr: Instr, t: int = t, states: Streams = states, held: Held = held) -> Tensor:
            if instr.op == "input":
                return data.inputs[instr.attr("input")][t - 1]
            if instr.op == "param":
                return data.params[instr.attr("param")]
            if instr.op == "state":
                return states[instr.attr("state")]
            if instr.op == "anchor":
                return held[instr.attr("state"), instr.attr("period")]
            assert instr.op == "clock"
            return torch.tensor(float(clock_value(instr, t)), dtype=torch.float64)

        values = Evaluator(program.body, leaf, partial(Clock.fires, tick=t))
        for name, value in program.outputs:
            streams[name].append(values(value))
        states = states | {name: values(value) for name, value in program.updates}
        for state in program.states:
            if state.reset.clock is not None and state.reset.clock.fires(t):
                states[state.name] = initial(program, state.name, data)
                held = {k: (states[state.name] if k[0] == state.name else v) for k, v in held.items()}
    shape = dict(program.outputs)
    stacked = {}
    for name, rows in streams.items():
        axes = program.body[shape[name]].type.axes
        stacked[name] = torch.stack([r.expand(*sizes(program, axes), *r.shape[len(axes) :]) for r in rows])
    return Run(stacked, states, held)


@dataclass
class ChunkRun:
    """Runs a schedule whose loops are all chunk loops, call by call."""

    schedule: Schedule
    data: Data
    states: dict[str, Tensor] = field(default_factory=dict)
    anchors: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    tick: int = 0

    def __post_init__(self) -> None:
        program = self.schedule.program
        self.states = {s.name: initial(program, s.name, self.data) for s in program.states}
        self.anchors = {key: self.states[key[0]] for key in anchors(program)}

    def call(self, count: int) -> dict[str, Tensor]:
        """The next ``count`` ticks: the streams of the outputs, time first."""
        program = self.schedule.program
        streams: dict[int, Tensor] = {}  # with TIME first, then the axes of the program
        for phase in self.schedule.phases:
            if isinstance(phase, Parallel):
                self.parallel(phase, streams, count)
            elif isinstance(phase, Delay):
                self.delay(phase, streams)
            else:
                assert isinstance(phase, ChunkLoop)
                self.loop(phase, streams, count)
        self.tick += count
        return {name: self.stream(streams, value, count) for name, value in program.outputs}

    def stream(self, streams: dict[int, Tensor], value: int, count: int) -> Tensor:
        instr = self.schedule.program.body[value]
        if value not in streams and instr.op == "input":
            streams[value] = self.data.inputs[instr.attr("input")][self.tick : self.tick + count]
        if value not in streams and instr.op == "clock":
            rows = [clock_value(instr, self.tick + n + 1) for n in range(count)]
            streams[value] = torch.tensor(rows, dtype=torch.float64)
        if value not in streams and instr.op == "param":
            return self.data.params[instr.attr("param")].expand(count, *instr.type.shape)  # type: ignore[arg-type]
        return streams[value]

    def parallel(self, phase: Parallel, streams: dict[int, Tensor], count: int) -> None:
        body = self.schedule.program.body
        rows: list[dict[int, Tensor]] = []
        for n in range(count):

            def leaf(instr: Instr, n: int = n) -> Tensor:
                if instr.op == "param":
                    return self.data.params[instr.attr("param")]
                if instr.op == "state":
                    return self.states[instr.attr("state")]
                return self.stream(streams, body.index(instr), count)[n]

            values = Evaluator(body, leaf, partial(Clock.fires, tick=self.tick + n + 1))
            for known, stream in streams.items():
                if known not in phase.values:
                    values.known[known] = stream[n]
            rows.append({v: values(v) for v in phase.values})
        for value in phase.values:
            streams[value] = torch.stack([r[value] for r in rows])

    def delay(self, phase: Delay, streams: dict[int, Tensor]) -> None:
        stream = streams[phase.value]
        first = self.states[phase.state].expand(stream.shape[1:])
        for value, instr in enumerate(self.schedule.program.body):
            if instr.op == "state" and instr.attr("state") == phase.state:
                streams[value] = torch.cat([first.unsqueeze(0), stream[:-1]])
        self.states[phase.state] = stream[-1]

    def loop(self, phase: ChunkLoop, streams: dict[int, Tensor], count: int) -> None:
        program = self.schedule.program
        found: dict[int, list[Tensor]] = {v: [] for v, _ in phase.outputs}
        at = 0
        for length in segments(self.tick, count, phase.size, phase.clocks):
            start = self.tick + at
            members = {p.name: p.states for p in phase.packs}
            for name, period in phase.anchors:
                for state in members.get(name, (name,)):
                    if start % period == 0:
                        self.anchors[state, period] = self.states[state]
            values = self.segment(phase, streams, at, length, count)
            for value, inside in phase.outputs:
                part = values(inside)
                axes = phase.body[inside].type.axes
                if TIME in axes:
                    part = part.movedim(axes.index(TIME), 0)
                    part = part.expand(length, *part.shape[1:])
                else:
                    part = part.expand(length, *part.shape)
                own = program.body[value].type.axes
                part = part.reshape(length, *self.padded(part.shape[1:], [a for a in axes if a != TIME], own))
                lead = sizes(program, own)
                found[value].append(part.expand(length, *lead, *part.shape[1 + len(own) :]))
            new = {name: values(inside) for name, inside in phase.carry}
            packs = {p.name: p for p in phase.packs}
            for name, inside in phase.carry:
                axes = phase.body[inside].type.axes
                if name in packs:
                    self.apart(packs[name], new[name], axes)
                    continue
                type = program.state(name).type
                end = new[name].reshape(self.padded(new[name].shape, list(axes), type.axes))
                self.states[name] = end.expand(*sizes(program, type.axes), *end.shape[len(type.axes) :])
            at += length
            for name in phase.scan.states:
                clock = program.state(name).reset.clock
                if clock is not None and clock.fires(self.tick + at):
                    self.states[name] = initial(program, name, self.data)
                    for key in self.anchors:
                        if key[0] == name:
                            self.anchors[key] = self.states[name]
        for value, parts in found.items():
            streams[value] = torch.cat(parts)

    def apart(self, pack: Pack, value: Tensor, axes: tuple[str, ...]) -> None:
        """The states of a pack from their new values side by side."""
        program = self.schedule.program
        for state, end in zip(pack.states, value.unbind(axes.index(pack.axis)), strict=True):
            type = program.state(state).type
            whole = end.reshape(self.padded(end.shape, [a for a in axes if a != pack.axis], type.axes))
            self.states[state] = whole.expand(*sizes(program, type.axes), *whole.shape[len(type.axes) :])

    @staticmethod
    def padded(shape: torch.Size, axes: list[str], own: tuple[str, ...]) -> list[int]:
        """``shape`` over ``axes`` with a dim of size 1 for each missing one of ``own``."""
        lead = {a: shape[n] for n, a in enumerate(axes)}
        return [lead.get(a, 1) for a in own] + list(shape[len(axes) :])

    def segment(self, phase: ChunkLoop, streams: dict[int, Tensor], at: int, length: int, count: int) -> Evaluator:
        packs = {p.name: p for p in phase.packs}

        def leaf(instr: Instr) -> Tensor:
            if instr.op == "param":
                return self.data.params[instr.attr("param")]
            if instr.op in ("state", "anchor") and instr.attr("state") in packs:
                pack = packs[instr.attr("state")]
                period = instr.attr("period") if instr.op == "anchor" else 0
                parts = [self.anchors[s, period] if period else self.states[s] for s in pack.states]
                return torch.stack(parts, instr.type.axes.index(pack.axis))
            if instr.op == "state":
                return self.states[instr.attr("state")]
            if instr.op == "anchor":
                return self.anchors[instr.attr("state"), instr.attr("period")]
            if instr.op == "clock":
                ticks = range(self.tick + at + 1, self.tick + at + length + 1)
                return torch.tensor([float(clock_value(instr, t)) for t in ticks], dtype=torch.float64)
            assert instr.op == "given"
            stream = self.stream(streams, instr.attr("value"), count)
            if TIME not in instr.type.axes:
                return stream[at]
            return stream[at : at + length].movedim(0, instr.type.axes.index(TIME))

        return Evaluator(phase.body, leaf, lambda c: c.fires(self.tick + at + length), length)


def random_data(program: Program, count: int, seed: int = 0, scale: float = 1.0) -> Data:
    gen = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return scale * torch.randn(shape, generator=gen, dtype=torch.float64)

    inputs = {
        i.name: normal(count, *sizes(program, i.type.axes), *(int(str(s)) for s in i.type.shape))
        for i in program.inputs
    }
    params = {p.name: 0.3 * normal(*(int(str(s)) for s in p.type.shape)) for p in program.params}
    return Data(inputs, params)
