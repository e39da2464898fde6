"""One training step as one function: the loss of whole sequences, its gradients, and a tick of the optimizers.

    train(params.., inputs.., state.., optimizer.., step) -> loss, params.., optimizer.., step

``inputs`` have their targets. ``state`` are the initial states that ``init`` gives for the same parameters: their
gradients are part of the step. (Made in here they would share the memory of the loops that begin with them: IREE 3.13
writes into tensors that it has made itself before the last reader has read them.) ``optimizer`` holds, for each
parameter, the states of the memory that trains it, and the sum of its gradients where its level ticks every n steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nldsl.backends.iree.body import Body, settled
from nldsl.backends.iree.entries import Entry, open_entry, state_order
from nldsl.backends.iree.gradient import through
from nldsl.backends.iree.legality import refused
from nldsl.backends.iree.loop import elem_of
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import BOOL, INT, REAL, Held, Node
from nldsl.backends.iree.reverse import initial_cotangents
from nldsl.backends.iree.tick import Tick
from nldsl.ir.backward import Key
from nldsl.ir.demand import reachable
from nldsl.ir.program import ParamDecl, Program
from nldsl.ir.schedule import Schedule, anchor_key, anchors
from nldsl.ir.types import BATCH, Type


@dataclass(frozen=True)
class Trainer:
    """The memory that trains one parameter, lined up with the parameter's own axes."""

    param: ParamDecl
    program: Program
    period: int

    @property
    def prefix(self) -> str:
        return self.param.name + ":"

    def type_of(self, type: Type) -> Type:
        """A type of the memory, for every copy of the parameter."""
        return replace(type, axes=tuple(dict.fromkeys((*self.param.type.axes, *type.axes))))


def trainers(schedule: Schedule) -> list[Trainer]:
    """Raises DiagnosticError for a parameter that nothing trains."""
    program = schedule.program
    levels = {level.name: level for level in program.levels if level.base == "step"}
    found: list[Trainer] = []
    for param in program.params:
        level = levels.get(param.level)
        if level is None or level.optimizer is None:
            raise refused(f"nothing trains the parameter `{param.name}`", None, "say `with AdamW(..)` for its level")
        shape = tuple(int(str(s)) for s in param.type.shape)
        rule = schedule.derivations.expanded(level.optimizer(shape))
        names = {i.name for i in rule.inputs}
        if "g" not in names or names - {"g", "weight"} or len(rule.outputs) != 1 or rule.params:
            raise refused(f"`{rule.name}` is no optimizer of numbers alone", None)
        if set(rule.axis_names()) - set(program.axis_names()) or BATCH in rule.axis_names():
            raise refused(f"`{rule.name}` has axes of its own", None)
        found.append(Trainer(param, rule, level.period))
    return found


def can_train(program: Program) -> bool:
    """Whether every parameter has an optimizer, and there is a loss."""
    levels = {level.name: level for level in program.levels if level.base == "step"}
    trained = all(p.level in levels and levels[p.level].optimizer is not None for p in program.params)
    return bool(program.losses) and bool(program.params) and trained


def write_train(schedule: Schedule, fixed: dict[str, int]) -> Entry:
    """See the module's text."""
    program = schedule.program
    if not program.losses:
        raise refused(f"`{program.name}` has nothing to minimize", None)
    opened = open_entry("train", schedule, fixed, time=True, losses=True)
    entry, low, text = opened.entry, opened.entry.low, opened.entry.text
    rules = trainers(schedule)
    taken = {rule.param.name: _states_of(entry, rule) for rule in rules}
    number, _ = entry.number("optimizer", "@step")
    step = entry.value(number)
    start = [s.name for s in program.states if elem_of(s.type) == REAL]
    count = text.index_op("muli", entry.sizes.get(BATCH, 1) if BATCH in program.axis_names() else 1, opened.total)
    whole = low.scalar(text.integer(count), INT)
    share = low.point("div", low.literal(1.0), whole)
    given: dict[int, Node] = {}
    for _, v in program.losses:
        given[v] = low.point("add", given[v], share) if v in given else share
    run, back = through(opened, schedule, given, {})
    began = {s: back.states[s, 0] for s in start if (s, 0) in back.states}
    for owner, period in anchors(program):
        if (owner, period) in back.states and owner in began:
            began[owner] = low.point("add", began[owner], back.states[owner, period])
    if began:
        for name, part in initial_cotangents(low, schedule, opened.params, began).items():
            back.add(back.params, name, part)
    losses: list[Node] = []
    for _, v in program.losses:
        value = run.whole(run.env[v], program.body[v].type)
        losses.append(low.point("mul", low.reduce(value, range(value.rank)), share))
    total = losses[0]
    for loss in losses[1:]:
        total = low.point("add", total, loss)
    entry.give("losses", "loss", total, Type())
    after: dict[str, dict[str, Node]] = {}
    for rule in rules:
        type = rule.param.type
        axes = tuple(a for a in low.order if a in type.axes)
        cotangent = back.params.get(rule.param.name, low.literal(0.0))
        gradient = low.force(low.stretched(cotangent, axes, _shape(type)))
        weight, after[rule.param.name] = _tick(entry, rule, gradient, opened.params[rule.param.name],
                                               taken[rule.param.name], step)  # fmt: skip
        entry.give("params", rule.param.name, weight, type)
    for rule in rules:
        for name, kept in after[rule.param.name].items():
            entry.give("optimizer", rule.prefix + name, kept, _types(rule)[name])
    entry.give_number("optimizer", "@step", text.int_op("addi", step, text.const(1, INT)))
    return entry


def write_start(schedule: Schedule, fixed: dict[str, int]) -> Entry:
    """``begin() -> optimizer..``: the states of all optimizers before the first step."""
    del fixed
    program = schedule.program
    entry = Entry("begin", program)
    for rule in trainers(schedule):
        own = Lower(entry.text, _sizes(entry, rule), _order(entry, rule))
        values = _initials(own, rule)
        for name, type in _types(rule).items():
            base = name.partition("@")[0] if "@" in name else name
            value = values.get(base, own.literal(0.0)) if name != "sum" else own.literal(0.0)
            entry.give("optimizer", rule.prefix + name, value, type)
    entry.give_number("optimizer", "@step", entry.text.const(0, INT))
    return entry


def _shape(type: Type) -> tuple[int, ...]:
    return tuple(int(str(s)) for s in type.shape)


def _types(rule: Trainer) -> dict[str, Type]:
    """What is kept for a parameter from step to step."""
    found = {s.name: rule.type_of(s.type) for s in rule.program.states}
    for owner, period in anchors(rule.program):
        found[anchor_key(owner, period)] = found[owner]
    if rule.period > 1:
        found["sum"] = rule.param.type
    return found


def _states_of(entry: Entry, rule: Trainer) -> dict[str, Node]:
    found: dict[str, Node] = {}
    entry.sizes.update(_sizes(entry, rule))
    for name, type in _types(rule).items():
        slot = entry.slot("optimizer", rule.prefix + name, type)
        found[name] = entry.node(entry.take(slot), slot, type)
    return found


def _sizes(entry: Entry, rule: Trainer) -> dict[str, int | str]:
    return {**entry.sizes, **{a.name: int(str(a.size)) for a in rule.program.axes if a.size is not None}}


def _order(entry: Entry, rule: Trainer) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*entry.low.order, *rule.program.axis_names())))


def _initials(low: Lower, rule: Trainer) -> dict[str, Node]:
    program = rule.program
    found: dict[str, Node] = {}

    def no_clock(clock: object) -> Node:
        raise AssertionError(f"a choice of {clock} in an initial value")

    for name in state_order(program):
        known: dict[int, Node] = {}
        for v, instr in enumerate(program.init):
            if instr.op == "state":
                known[v] = found[instr.attr("state")]
        target = program.state(name).init
        needed = sorted(reachable(program.init, [target]))
        Body(low, program.init, no_clock, 1, known).run([v for v in needed if v not in known], [target])
        found[name] = known[target]
    return found


def _tick(
    entry: Entry, rule: Trainer, gradient: Node, weight: Node, states: dict[str, Node], step: str
) -> tuple[Node, dict[str, Node]]:
    """The parameter and the states after a step; where the level does not tick, only the sum of gradients grows."""
    text = entry.text
    low = Lower(text, _sizes(entry, rule), _order(entry, rule))
    if rule.period == 1:
        return _updated(low, rule, gradient, weight, states, step)
    gradient = low.force(low.point("add", states["sum"], gradient))
    left = text.int_op("remsi", text.int_op("addi", step, text.const(1, INT)), text.const(rule.period, INT))
    due = text.let(f"arith.cmpi eq, {left}, {text.const(0, INT)} : i64")
    done = text.int_op("divsi", step, text.const(rule.period, INT))
    types = _types(rule)
    kept = [name for name in types if name != "sum"]
    layouts = [rule.param.type, *(types[name] for name in kept)]

    def carried(own: Lower, values: list[Node]) -> list[Held]:
        return [settled(own, v, type, _shape(type)) for v, type in zip(values, layouts, strict=True)]

    before = carried(low, [weight, *(states[name] for name in kept)])
    with text.only_if(due, [(v.ssa, v.sizes, v.elem) for v in before]) as (results, end):
        here = low.inside()
        moved, now = _updated(here, rule, gradient, weight, states, done)
        end([v.ssa for v in carried(here, [moved, *(now[name] for name in kept)])])
    found: list[Node] = [
        replace(old, ssa=text.tied(ssa, old.sizes, old.elem)) for old, ssa in zip(before, results, strict=True)
    ]
    after = dict(zip(kept, found[1:], strict=True))
    after["sum"] = low.point("where", low.scalar(due, BOOL), low.literal(0.0), gradient)
    return found[0], after


def _updated(
    low: Lower, rule: Trainer, gradient: Node, weight: Node, states: dict[str, Node], done: str
) -> tuple[Node, dict[str, Node]]:
    """The parameter and the states after a tick of its optimizer, which has made ``done`` before."""
    text, program = low.text, rule.program
    now: dict[Key, Node] = {(s.name, 0): states[s.name] for s in program.states}
    now.update({key: states[anchor_key(*key)] for key in anchors(program)})
    last = text.int_op("addi", done, text.const(1, INT))
    change = program.outputs[0][1]
    tick = Tick(low, program, done, last, now)
    known = tick.values([change, *(v for _, v in program.updates)], {}, {"g": gradient, "weight": weight})
    initials = _initials(low, rule) if any(s.reset.kind == "clock" for s in program.states) else {}
    ended = tick.after(known, initials)
    after = {anchor_key(name, period) if period else name: value for (name, period), value in ended.items()}
    return low.point("add", weight, known[change]), after


__all__ = ["can_train", "elem_of", "write_start", "write_train"]
