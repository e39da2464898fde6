"""What a well-formed program is. Run on every program that a pass gives, in the tests and by ``--verify``.

names       of axes, inputs, params, states, levels are unique; leaves, updates and losses name what is declared
order       an operand is a value with a smaller number; ``init`` reads only states declared before
types       every type is what ``ops.infer`` says; a leaf has its declaration's type
places      a value given to a state has the state's shape, its kind, and no axis that the state lacks
guards      an operand is computed at every tick at which it is used (the first operand of ``when``: at the ticks
            of its clock); what leaves the body is computed at every tick
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from nldsl.ir import ops
from nldsl.ir.clocks import implies, meet
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import BATCH, Clock, ShapeError, Type, axis_order

INIT_OPS = ops.ALL_OPS - {"input", "anchor", "clock", "when"}
# The attributes of each operation that has some.
ATTRS: dict[str, frozenset[str]] = {
    op: frozenset(names.split())
    for op, names in {
        "input": "input",
        "param": "param",
        "state": "state",
        "anchor": "state period",
        "const": "value",
        "iota": "n",
        "clock": "scale period",
        "einsum": "spec",
        "sum": "dims",
        "max": "dims",
        "cumsum": "dim reverse",
        "reshape": "shape",
        "broadcast": "shape",
        "concat": "dim",
        "slice": "dim start stop",
        "pad": "dim before after",
        "scatter_add": "n",
        "one_hot": "n",
        "spread": "axis",
        "collect": "axis size",
        "axis_sum": "axis",
        "grad": "index",
        "when": "clock",
    }.items()
}


class InvalidProgramError(Exception):
    """A broken invariant: a fault of the compiler, never of the user. ``problems``: all that were found."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def verify(program: Program) -> Program:
    """The program itself; raises InvalidProgramError."""
    found = problems(program)
    if found:
        raise InvalidProgramError(found)
    return program


def problems(program: Program) -> tuple[str, ...]:
    """Everything that is wrong with a program."""
    found = [
        *_names(program),
        *_body(program, program.body, "body", ops.ALL_OPS),
        *_body(program, program.init, "init", INIT_OPS),
    ]
    if found:  # what follows would stumble over it
        return tuple(found)
    return tuple(_places(program)) or tuple(_init_order(program))


def _names(program: Program) -> Iterator[str]:
    groups: dict[str, Iterable[str]] = {
        "axis": program.axis_names(),
        "input": [i.name for i in program.inputs],
        "param": [p.name for p in program.params],
        "state": [s.name for s in program.states],
        "level": [level.name for level in program.levels],
        "output": [name for name, _ in program.outputs],
        "probe": [name for name, _ in program.probes],
        "update of": [name for name, _ in program.updates],
    }
    for what, names in groups.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{what} {name}: declared {count} times"
    for axis in program.axes:
        if (axis.size is None) != (axis.name == BATCH):
            yield f"axis {axis.name}: only {BATCH} is without a size"
    states = {s.name for s in program.states}
    yield from (f"update of {name}: no such state" for name, _ in program.updates if name not in states)
    axes = set(program.axis_names())
    declared = [(d.name, d.type) for d in program.inputs]
    declared += [(d.name, d.type) for d in program.params]
    declared += [(d.name, d.type) for d in program.states]
    for name, type in declared:
        yield from (f"{name}: no axis {axis}" for axis in type.axes if axis not in axes)


def _body(program: Program, body: tuple[Instr, ...], where: str, allowed: frozenset[str]) -> Iterator[str]:
    for n, instr in enumerate(body):
        place = f"{where} %{n} ({instr.op})"
        if instr.op not in allowed:
            yield f"{place}: no such operation here"
        elif instr.attrs != tuple(sorted(instr.attrs)) or {k for k, _ in instr.attrs} != ATTRS.get(
            instr.op, frozenset()
        ):
            yield f"{place}: attributes {[k for k, _ in instr.attrs]}"
        elif any(not 0 <= a < n for a in instr.args):
            yield f"{place}: operand {max(instr.args)} is not defined before"
        elif instr.guard is not None and where == "init":
            yield f"{place}: a guard in init"
        else:
            yield from (f"{place}: {problem}" for problem in _instr(program, body, instr))


def _instr(program: Program, body: tuple[Instr, ...], instr: Instr) -> Iterator[str]:
    declared = _declared(program, instr)
    if declared is None:
        try:
            types = [body[a].type for a in instr.args]
            expected = ops.infer(
                instr.op, types, dict(instr.attrs), lambda names: axis_order(names, program.axis_names())
            )
        except (ShapeError, ValueError, KeyError, IndexError, TypeError) as error:
            yield f"no type: {error}"
            return
    elif isinstance(declared, str):
        yield declared
        return
    else:
        expected = declared
    if expected != instr.type:
        yield f"type {instr.type}, expected {expected}"
    if instr.op == "grad" and body[instr.args[0]].type.shape:
        yield f"the loss has type {body[instr.args[0]].type}"
    if instr.op == "einsum":
        output = ops.split_spec(instr.attr("spec"))[1]
        if len(set(output)) != len(output):
            yield f"{instr.attr('spec')}: a letter twice in the result"
    if instr.op in ("sum", "max") and list(instr.attr("dims")) != sorted(set(instr.attr("dims"))):
        yield f"dims {instr.attr('dims')} are not in order"
    for i, arg in enumerate(instr.args):
        needed = _both(instr.guard, instr.attr("clock")) if instr.op == "when" and i == 0 else (instr.guard,)
        if not any(implies(clock, body[arg].guard) for clock in needed):
            yield f"operand %{arg} is computed {body[arg].guard}, used {needed[-1] or 'at every tick'}"


def _both(left: Clock | None, right: Clock) -> tuple[Clock | None, ...]:
    """Clocks of which each fires whenever both do."""
    try:
        return left, right, meet(left, right)
    except ValueError:
        return left, right


def _declared(program: Program, instr: Instr) -> Type | str | None:
    """The type of a leaf by its declaration, or what is wrong with it; None for other operations."""
    found: dict[str, Type]
    match instr.op:
        case "input":
            found = {i.name: i.type for i in program.inputs}
        case "param":
            found = {p.name: p.type for p in program.params}
        case "state" | "anchor":
            found = {s.name: s.type for s in program.states}
        case _:
            return None
    name = instr.attr("state" if instr.op == "anchor" else instr.op)
    return found.get(name, f"{name} is not declared")


def _places(program: Program) -> Iterator[str]:
    ends = {"update": program.updates, "output": program.outputs, "loss": program.losses, "probe": program.probes}
    for what, pairs in ends.items():
        for name, value in pairs:
            if not 0 <= value < len(program.body):
                yield f"{what} {name}: no value %{value}"
                continue
            instr = program.body[value]
            if what != "probe" and not implies(None, instr.guard):
                yield f"{what} {name}: %{value} is computed {instr.guard} only"
            if what == "loss" and (instr.type.shape or instr.type.kind != "real"):
                yield f"loss {name}: type {instr.type}"
            if what == "update":
                yield from _fits(f"update of {name}", instr.type, program.state(name).type)
    for state in program.states:
        if not 0 <= state.init < len(program.init):
            yield f"state {state.name}: no initial value %{state.init}"
        else:
            yield from _fits(f"initial value of {state.name}", program.init[state.init].type, state.type)


def _fits(what: str, value: Type, place: Type) -> Iterator[str]:
    if value.shape != place.shape or not set(value.axes) <= set(place.axes):
        yield f"{what}: type {value} for {place}"
    elif place.kind == "int" and value.kind != "int":
        yield f"{what}: a real for an integer"


def _init_order(program: Program) -> Iterator[str]:
    before: set[str] = set()
    for state in program.states:
        open_, seen = [state.init], {state.init}
        while open_:
            instr = program.init[open_.pop()]
            if instr.op == "state" and instr.attr("state") not in before:
                yield f"state {state.name}: its initial value reads {instr.attr('state')}, which is not declared before"
            new = set(instr.args) - seen
            seen |= new
            open_.extend(new)
        before.add(state.name)
