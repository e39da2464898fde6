"""Functions of a module that take gradients: cotangents of results to those of everything that went in."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.backends.iree.entries import Entry, Opened, open_entry, reset_values, state_order
from nldsl.backends.iree.loop import elem_of
from nldsl.backends.iree.nodes import REAL, Node
from nldsl.backends.iree.reverse import Reverse, initial_cotangents
from nldsl.backends.iree.sequence import Sequence, loop_forms
from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.ir.backward import BackwardLoop, Key
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.schedule import Schedule, anchor_key, anchors
from nldsl.ir.types import BATCH, TIME, Type


@dataclass(frozen=True)
class Ways:
    """The forms of all loops, and the way back through each of them."""

    forms: dict[int, tuple[ChunkLoop, ChunkLoop]]
    backwards: dict[int, BackwardLoop]


def ways_back(schedule: Schedule) -> Ways:
    """Raises DiagnosticError for a loop that has no derived way back."""
    program, backwards = schedule.program, dict[int, BackwardLoop]()
    forms = loop_forms(schedule)
    for pair in forms.values():
        for loop in pair:
            if id(loop) in backwards:
                continue
            found = schedule.backward_of(loop) or schedule.derivations.backward(loop, program)
            if found is None:
                state = program.state(loop.states[0])
                raise DiagnosticError(
                    Diagnostic(
                        "NL0796",
                        f"the state `{state.name}` has no derivative in a module of IREE",
                        state.span,
                        notes=("it is shared by the whole batch, or it is reset to a value made of other states",),
                        hints=("compile without gradients: `--entries init,forward,step`",),
                    )
                )
            backwards[id(loop)] = found
    return Ways(forms, backwards)


def write_backward(schedule: Schedule, fixed: dict[str, int]) -> Entry:
    """``backward(params, inputs, state, d_outputs, d_losses, d_state) -> d_params, d_inputs, d_state``

    Everything forward is computed again. The cotangent of a state before the call does not contain the ways through
    its anchors, which have cotangents of their own.
    """
    opened = open_entry("backward", schedule, fixed, time=True, losses=bool(schedule.program.losses))
    entry, program = opened.entry, schedule.program
    given: dict[int, Node] = {}
    states: dict[Key, Node] = {}
    for group, rows in (("d_outputs", program.outputs), ("d_losses", program.losses)):
        for name, v in rows:
            type = program.body[v].type
            if type.kind == "real":
                slot = entry.slot(group, name, type, True)
                node: Node = entry.node(entry.take(slot), slot, type, True)
                given[v] = entry.low.point("add", given[v], node) if v in given else node
    for key in ((s.name, 0) for s in program.states):
        states.update(_taken(entry, key, key[0], program.state(key[0]).type))
    for key in anchors(program):
        states.update(_taken(entry, key, anchor_key(*key), program.state(key[0]).type))
    _, back = through(opened, schedule, given, states)
    for p in program.params:
        if elem_of(p.type) == REAL:
            entry.give("d_params", p.name, back.params.get(p.name, entry.low.literal(0.0)), p.type)
    for i in program.inputs:
        if elem_of(i.type) == REAL:
            entry.give("d_inputs", i.name, back.inputs.get(i.name, entry.low.literal(0.0)), i.type, time=True)
    for key in (*((s.name, 0) for s in program.states), *anchors(program)):
        type = program.state(key[0]).type
        if elem_of(type) == REAL:
            name = anchor_key(*key) if key[1] else key[0]
            entry.give("d_state", name, back.states.get(key, entry.low.literal(0.0)), type)
    return entry


def write_init_backward(schedule: Schedule, fixed: dict[str, int]) -> Entry:
    """``init_backward(params, d_state) -> d_params``: through the initial values of states that are made of parameters.
    An anchor begins as its state: its cotangent is to be added to that of the state."""
    program = schedule.program
    entry = Entry("init_backward", program, {k: v for k, v in fixed.items() if k == BATCH})
    slots = [(entry.take(slot), slot, p) for p in program.params for slot in [entry.slot("params", p.name, p.type)]]
    given = []
    for s in program.states:
        if elem_of(s.type) == REAL:
            slot = entry.slot("d_state", s.name, s.type)
            given.append((entry.take(slot), slot, s))
    entry.measure()
    entry.sizes.setdefault(BATCH, 1)
    params: dict[str, Node] = {p.name: entry.node(ssa, slot, p.type) for ssa, slot, p in slots}
    states: dict[str, Node] = {s.name: entry.node(ssa, slot, s.type) for ssa, slot, s in given}
    found = initial_cotangents(entry.low, schedule, params, states)
    for p in program.params:
        if elem_of(p.type) == REAL:
            entry.give("d_params", p.name, found.get(p.name, entry.low.literal(0.0)), p.type)
    return entry


def initial_is_learned(schedule: Schedule) -> bool:
    """Whether a state begins as something that is made of parameters."""
    return any(i.op == "param" for i in schedule.program.init)


def _taken(entry: Entry, key: Key, name: str, type: Type) -> dict[Key, Node]:
    if elem_of(type) != REAL:
        return {}
    slot = entry.slot("d_state", name, type)
    return {key: entry.node(entry.take(slot), slot, type)}


def through(
    opened: Opened, schedule: Schedule, given: dict[int, Node], states: dict[Key, Node], losses: bool | None = None
) -> tuple[Sequence, Reverse]:
    """Forward and back. ``given``: the cotangents of results, by value; ``states``: of the states at the end."""
    entry, program = opened.entry, schedule.program
    ways = ways_back(schedule)
    run = Sequence(
        entry.low, schedule, opened.params, opened.inputs, dict(opened.states), reset_values(entry, opened.params),
        opened.tick, opened.total, bool(program.losses) if losses is None else losses,
        forms=ways.forms, backwards=ways.backwards,
    )  # fmt: skip
    run.run()
    values: dict[int, Node] = {}
    for v, node in given.items():
        known = run.env[v]
        from nldsl.backends.iree.reverse import narrowed

        values[v] = entry.low.force(narrowed(entry.low, node, known.axes, known.shape))
    back = Reverse(run, values, dict(states))
    back.go()
    return run, back


__all__ = ["TIME", "initial_cotangents", "state_order", "through", "write_backward"]
