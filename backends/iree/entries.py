"""The functions of a module: their arguments and results, in order, and their text."""

from __future__ import annotations

from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field

from nldsl.backends.iree.body import Body
from nldsl.backends.iree.loop import States, elem_of
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import INT, REAL, Held, Node, Size
from nldsl.backends.iree.sequence import Sequence
from nldsl.backends.iree.text import Text, tensor_type
from nldsl.backends.iree.tick import Tick
from nldsl.ir.program import Program
from nldsl.ir.schedule import Schedule, anchor_key, anchors, init_values
from nldsl.ir.types import BATCH, TIME, Clock, Type


@dataclass(frozen=True)
class Slot:
    """An argument or a result. ``group``: params, inputs, state, tick, ..; ``sizes``: numbers, "batch" or "time"."""

    group: str
    name: str
    sizes: tuple[int | str, ...]
    elem: str

    def described(self) -> dict[str, object]:
        kind = {REAL: "float32", INT: "int64"}[self.elem]
        return {"group": self.group, "name": self.name, "shape": list(self.sizes), "dtype": kind}


@dataclass
class Entry:
    """A function while it is written."""

    name: str
    program: Program
    fixed: dict[str, int] = field(default_factory=dict)  # sizes of batch and time that are known
    text: Text = field(default_factory=Text)
    takes: list[Slot] = field(default_factory=list)
    gives: list[Slot] = field(default_factory=list)
    results: list[tuple[str, str]] = field(default_factory=list)
    sizes: dict[str, Size] = field(default_factory=dict)
    arguments: list[tuple[str, Slot]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rest = [a for a in self.program.axis_names() if a != BATCH]
        self.sizes = {a.name: int(str(a.size)) for a in self.program.axes if a.size is not None}
        self.low = Lower(self.text, self.sizes, (BATCH, TIME, *rest))

    # ------------------------------------------------------------ arguments

    def slot(self, group: str, name: str, type: Type, time: bool = False) -> Slot:
        axes = tuple(a for a in self.low.order if a in type.axes or (time and a == TIME))
        sizes: list[int | str] = []
        for axis in axes:
            size = self.fixed.get(axis, axis) if axis in (BATCH, TIME) else self.sizes[axis]
            sizes.append(int(size) if not isinstance(size, str) else size)
        return Slot(group, name, (*sizes, *(int(str(s)) for s in type.shape)), elem_of(type))

    def take(self, slot: Slot) -> str:
        name = f"%a{len(self.arguments)}"
        self.arguments.append((name, slot))
        self.takes.append(slot)
        return name

    def measure(self) -> None:
        """The sizes that the arguments say."""
        for axis in (BATCH, TIME):
            if axis in self.fixed:
                self.sizes[axis] = self.fixed[axis]
                continue
            for name, slot in self.arguments:
                if axis in slot.sizes:
                    type, place = _type(slot), self.text.const(slot.sizes.index(axis), "index")
                    self.sizes[axis] = self.text.let(f"tensor.dim {name}, {place} : {type}")
                    break

    def number(self, group: str, name: str) -> tuple[str, Slot]:
        slot = Slot(group, name, (), INT)
        return self.take(slot), slot

    def value(self, ssa: str) -> str:
        return self.text.let(f"tensor.extract {ssa}[] : tensor<i64>")

    def node(self, ssa: str, slot: Slot, type: Type, time: bool = False) -> Held:
        """An argument as a value: dims of size 1 are left out."""
        axes = tuple(a for a in self.low.order if a in type.axes or (time and a == TIME))
        shape = tuple(int(str(s)) for s in type.shape)
        sizes: list[Size] = [self.sizes[s] if isinstance(s, str) else s for s in slot.sizes]
        self.text.tensors[ssa] = (tuple(sizes), slot.elem)
        ssa = self.text.tied(ssa, sizes, slot.elem)
        where = [n for n, s in enumerate(sizes) if s != 1]
        kept = [sizes[n] for n in where]
        if len(kept) != len(sizes):
            what = f"tensor.collapse_shape {ssa} {_grouped(sizes)} : {_type(slot)}"
            ssa = self.text.tensor(f"{what} into {tensor_type(kept, slot.elem)}", kept, slot.elem)
        return Held(axes, shape, slot.elem, ssa, tuple(kept), tuple(where))

    # ------------------------------------------------------------ results

    def give(self, group: str, name: str, value: Node, type: Type, time: bool = False) -> None:
        slot = self.slot(group, name, type, time)
        axes = tuple(a for a in self.low.order if a in type.axes or (time and a == TIME))
        shape = tuple(int(str(s)) for s in type.shape)
        if value.elem != slot.elem:
            value = self.low.point("to_real", value)
        full = self.low.full(self.low.stretched(value, axes, shape))
        sizes: list[Size] = [self.sizes[s] if isinstance(s, str) else s for s in slot.sizes]
        ssa = full.ssa
        if len(full.sizes) != len(sizes):
            ssa = self.text.let(
                f"tensor.expand_shape {ssa} {_grouped(sizes)} output_shape [{', '.join(map(str, sizes))}] :"
                f" {tensor_type(full.sizes, slot.elem)} into {tensor_type(sizes, slot.elem)}"
            )
        self.gives.append(slot)
        self.results.append((ssa, tensor_type(sizes, slot.elem)))

    def give_number(self, group: str, name: str, ssa: str) -> None:
        self.gives.append(Slot(group, name, (), INT))
        self.results.append((self.text.let(f"tensor.from_elements {ssa} : tensor<i64>"), "tensor<i64>"))

    def write(self) -> str:
        arguments = ", ".join(f"{name}: {_type(slot)}" for name, slot in self.arguments)
        types = ", ".join(t for _, t in self.results)
        end = f"  return {', '.join(v for v, _ in self.results)} : {types}"
        lines = [f"func.func @{self.name}({arguments}) -> ({types}) {{", *self.text.head, *self.text.lines, end, "}"]
        return "\n".join(lines) + "\n"


def _type(slot: Slot) -> str:
    return tensor_type(slot.sizes, slot.elem)


def _grouped(sizes: Sequence_[Size]) -> str:
    """How dims of size 1 belong to their neighbours."""
    groups: list[list[int]] = []
    waiting: list[int] = []
    for n, size in enumerate(sizes):
        if size == 1 and not groups:
            waiting.append(n)
        elif size == 1:
            groups[-1].append(n)
        else:
            groups.append([*waiting, n])
            waiting = []
    return "[" + ", ".join("[" + ", ".join(map(str, g)) + "]" for g in groups) + "]"


# ---------------------------------------------------------------- the functions


@dataclass
class Opened:
    """An entry with the arguments that most of them have."""

    entry: Entry
    params: dict[str, Node]
    inputs: dict[str, Node]
    states: States
    tick: str
    total: Size


def open_entry(
    name: str, schedule: Schedule, fixed: dict[str, int], time: bool, losses: bool, state: bool = True
) -> Opened:
    """Parameters, inputs, states and anchors, and the number of ticks before the call."""
    program = schedule.program
    entry = Entry(name, program, fixed if time else {k: v for k, v in fixed.items() if k != TIME})
    late = set() if losses else set(schedule.loss_inputs)
    taken: list[tuple[str, str, Slot, Type, bool]] = []

    def take(group: str, key: str, type: Type, at_once: bool = False) -> None:
        slot = entry.slot(group, key, type, at_once)
        taken.append((group, entry.take(slot), slot, type, at_once))

    for p in program.params:
        take("params", p.name, p.type)
    for i in program.inputs:
        if i.name not in late:
            take("inputs", i.name, i.type, time)
    if state:
        for s in program.states:
            take("state", s.name, s.type)
        for owner, period in anchors(program):
            take("state", anchor_key(owner, period), program.state(owner).type)
        number, _ = entry.number("state", "@tick")
    count, number = "", number if state else ""
    if time and TIME not in fixed and not any(TIME in slot.sizes for _, slot in entry.arguments):
        count, _ = entry.number("ticks", "ticks")
    if not state and BATCH in program.axis_names() and not any(BATCH in slot.sizes for _, slot in entry.arguments):
        batch, _ = entry.number("batch", "batch")
        entry.sizes[BATCH] = entry.text.as_size(entry.value(batch)) if BATCH not in fixed else fixed[BATCH]
    entry.measure()
    if count:
        entry.sizes[TIME] = entry.text.as_size(entry.value(count))
    tick = entry.value(number) if state else entry.text.const(0, INT)
    entry.sizes.setdefault(BATCH, 1)
    groups: dict[str, dict[str, Node]] = {"params": {}, "inputs": {}, "state": {}}
    for group, ssa, slot, type, at_once in taken:
        groups[group][slot.name] = entry.node(ssa, slot, type, at_once)
    states: States = {}
    if state:
        for s in program.states:
            states[s.name, 0] = _held(groups["state"][s.name])
        for owner, period in anchors(program):
            states[owner, period] = _held(groups["state"][anchor_key(owner, period)])
    return Opened(entry, groups["params"], groups["inputs"], states, tick, entry.sizes.get(TIME, 1))


def _held(node: Node) -> Held:
    assert isinstance(node, Held)
    return node


def no_clock(clock: Clock) -> Node:
    """Initial values choose nothing by a clock."""
    raise AssertionError(f"a choice of {clock} in an initial value")


def initial_values(entry: Entry, params: dict[str, Node], names: Sequence_[str]) -> dict[str, Node]:
    """The values at the beginning of a sequence of these states."""
    program, low = entry.program, entry.low
    known: dict[int, Node] = {}
    body = Body(low, program.init, no_clock, 1, known)
    found: dict[str, Node] = {}
    for name in names:
        values = init_values(program, name)
        for v in values:
            instr = program.init[v]
            if instr.op == "param":
                known[v] = params[instr.attr("param")]
            elif instr.op == "state":
                known[v] = found[instr.attr("state")]
        body.run([v for v in values if v not in known])
        state = program.state(name)
        axes = tuple(a for a in low.order if a in state.type.axes)
        shape = tuple(int(str(s)) for s in state.type.shape)
        value = known[state.init]
        if value.elem != elem_of(state.type):
            value = low.point("to_real", value)
        found[name] = low.full(low.stretched(value, axes, shape))
    return found


def give_states(entry: Entry, states: States, tick: str) -> None:
    """The states, their anchors and the number of ticks done, as results."""
    program = entry.program
    for s in program.states:
        entry.give("state", s.name, states[s.name, 0], s.type)
    for owner, period in anchors(program):
        entry.give("state", anchor_key(owner, period), states[owner, period], program.state(owner).type)
    entry.give_number("state", "@tick", tick)


def write_init(schedule: Schedule, fixed: dict[str, int]) -> Entry:
    """``init(params.., [batch]) -> state..``"""
    program = schedule.program
    entry = Entry("init", program, {k: v for k, v in fixed.items() if k == BATCH})
    slots = [(entry.take(slot), slot, p) for p in program.params for slot in [entry.slot("params", p.name, p.type)]]
    if BATCH in program.axis_names() and BATCH not in entry.fixed:
        number, _ = entry.number("batch", "batch")
        entry.sizes[BATCH] = entry.text.as_size(entry.value(number))
    entry.sizes.setdefault(BATCH, fixed.get(BATCH, 1))
    params: dict[str, Node] = {p.name: entry.node(ssa, slot, p.type) for ssa, slot, p in slots}
    found = initial_values(entry, params, state_order(program))
    states: States = {(name, 0): _held(node) for name, node in found.items()}
    states.update({key: states[key[0], 0] for key in anchors(program)})
    give_states(entry, states, entry.text.const(0, INT))
    return entry


def state_order(program: Program) -> list[str]:
    """The states, each after those from which its initial value is made."""
    from nldsl.ir.schedule import init_reads

    found: list[str] = []

    def visit(name: str) -> None:
        if name not in found:
            for other in init_reads(program, name):
                visit(other)
            found.append(name)

    for state in program.states:
        visit(state.name)
    return found


def write_forward(schedule: Schedule, fixed: dict[str, int], losses: bool) -> Entry:
    """``forward(params.., inputs.., state..) -> outputs.., state..``; with ``losses`` also what else they need."""
    opened = open_entry("loss" if losses else "forward", schedule, fixed, time=True, losses=losses)
    entry, program = opened.entry, schedule.program
    run = Sequence(
        entry.low, schedule, opened.params, opened.inputs, opened.states, reset_values(entry, opened.params),
        opened.tick, opened.total, losses,
    )  # fmt: skip
    run.run()
    for name, v in program.outputs:
        if losses or v not in schedule.late:
            entry.give("outputs", name, run.env[v], program.body[v].type, time=True)
    if losses:
        for name, v in program.losses:
            entry.give("losses", name, run.env[v], program.body[v].type, time=True)
    after = entry.text.int_op("addi", opened.tick, entry.text.integer(opened.total))
    give_states(entry, run.states, after)
    return entry


def reset_values(entry: Entry, params: dict[str, Node]) -> dict[str, Node]:
    """The initial values of states that a clock resets within a sequence."""
    program = entry.program
    wanted = [s.name for s in program.states if s.reset.kind == "clock"]
    return initial_values(entry, params, state_order(program)) if wanted else {}


def write_step(schedule: Schedule, fixed: dict[str, int], peek: bool = False) -> Entry:
    """One tick: ``step(params.., inputs.., state..) -> outputs.., state..``; ``peek``: the outputs alone."""
    opened = open_entry("peek" if peek else "step", schedule, fixed, time=False, losses=False)
    entry, program = opened.entry, schedule.program
    low, text = entry.low, entry.text
    last = text.int_op("addi", opened.tick, text.const(1, INT))
    outputs = [(name, v) for name, v in program.outputs if v not in schedule.late]
    updates = [] if peek else list(program.updates)
    tick = Tick(low, program, opened.tick, last, opened.states)
    known = tick.values([v for _, v in (*outputs, *updates)], opened.params, opened.inputs)
    for name, v in outputs:
        entry.give("outputs", name, known[v], program.body[v].type)
    if peek:
        return entry
    ended: States = {}
    for key, value in tick.after(known, reset_values(entry, opened.params)).items():
        state = program.state(key[0])
        if value.elem != elem_of(state.type):
            value = low.point("to_real", value)
        axes = tuple(a for a in low.order if a in state.type.axes)
        ended[key] = low.full(low.stretched(value, axes, tuple(int(str(s)) for s in state.type.shape)))
    give_states(entry, ended, last)
    return entry
