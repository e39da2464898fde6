"""Phases as code: the parallel parts stand in the function itself, each loop becomes a function of its own.

A loop never indexes its streams tick by tick: they are unbound once before it, and what it exports is stacked once
after it. Otherwise every tick's gradient would be a tensor of the whole length, and the backward pass quadratic in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nldsl.backends.interface import LoopKernels, LoopSource
from nldsl.backends.torch.body import at_tick, write_values
from nldsl.backends.torch.chunk_drivers import widen
from nldsl.backends.torch.chunks import Call, write_chunk_loop
from nldsl.backends.torch.names import short_names
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import INDENT, Code, Expr, add_call
from nldsl.backends.torch.tick import Variables, variables, write_body, write_updates
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.fused import Fused
from nldsl.ir.program import Program
from nldsl.ir.schedule import Delay, Parallel, Phase, Scan, Schedule
from nldsl.ir.types import BATCH, TIME


@dataclass
class Emission:
    """The module being emitted. ``functions`` are those written so far, ``given`` those that ``kernels`` wrote;
    ``kept`` are values that more than one phase or the result of the call uses. ``packs``: so far everything works on
    sequences packed in a row (``packing.py``). ``ends``: the variable that says whether states are wanted."""

    schedule: Schedule
    new_scope: Callable[[str, str], Scope]
    kept: frozenset[int] = frozenset()
    functions: list[Scope] = field(default_factory=list)
    kernels: LoopKernels | None = None
    given: list[LoopSource] = field(default_factory=list)
    packs: bool = False
    ends: str = "True"

    @property
    def program(self) -> Program:
        return self.schedule.program


def write_phase(emission: Emission, scope: Scope, held: Variables, phase: Phase) -> None:
    """Write one phase into a function that works on all ticks; ``held`` has the variables of all states."""
    if isinstance(phase, Parallel):
        if not (isinstance(phase, Fused) and _write_fused(emission, scope, held, phase)):
            write_values(scope, emission.program.body, phase.values, [v for v in phase.values if v in emission.kept])
    elif isinstance(phase, Scan):
        _write_scan(emission, scope, held, phase)
    elif isinstance(phase, ChunkLoop):
        _write_chunks(emission, scope, held, phase)
    elif isinstance(phase, Delay):
        _write_delay(emission, scope, held, phase)
    else:
        raise NotImplementedError(f"{type(phase).__name__} is not known to the torch backend")


def _write_fused(emission: Emission, scope: Scope, held: Variables, phase: Fused) -> bool:
    """Pointwise work by other kernels, if they have a form for it."""
    if emission.kernels is None:
        return False
    schedule = replace(emission.schedule, backwards=(phase.derived,))
    made = write_chunk_loop(emission.new_scope, "entries", scope, held, phase.loop, schedule, emission.kernels, "first")
    if made is not None:
        _called(emission, scope, made)
    return made is not None


def operands(program: Program, phase: Phase) -> set[int]:
    """The values a phase takes from phases before it (or from leaves)."""
    if isinstance(phase, Delay):
        return {phase.value}
    if isinstance(phase, ChunkLoop):
        return {i.attr("value") for i in phase.body if i.op == "given"}
    if isinstance(phase, Parallel):
        own, needed = set(phase.values), set[int]()
    elif isinstance(phase, Scan):
        own = set(phase.values)
        needed = {v for name, v in program.updates if name in phase.states}
    else:
        raise NotImplementedError(type(phase).__name__)
    return (needed | {a for v in own for a in program.body[v].args}) - own


def _time_dim(expr: Expr) -> int:
    return 1 if BATCH in expr.type.axes else 0


def _write_delay(emission: Emission, scope: Scope, held: Variables, phase: Delay) -> None:
    program, variable = emission.program, held.states[phase.state]
    leaves = [v for v, i in enumerate(program.body) if i.op == "state" and i.attr("state") == phase.state]
    type = scope.layout.with_axis(variable.type, TIME)
    stream = scope.simple(scope.stretched(scope.narrowed(scope.env[phase.value]), type), "x")
    dim = _time_dim(stream)
    if emission.packs:
        delayed = Expr(scope.names.new(f"{variable.text}_before"), type)
        scope.env.update(dict.fromkeys(leaves, delayed))
        add_call(scope.code, [delayed.text, variable.text], "packed_delay", [stream.text, variable.text, "cuts"])
        return
    index = ":, " * dim
    if leaves:
        text = f"torch.cat([{variable.text}.unsqueeze({dim}), {stream.text}[{index}:-1]], {dim})"
        delayed = scope.bind(Expr(text, type), f"{variable.text}_before")
        scope.env.update(dict.fromkeys(leaves, delayed))
    cast = f".to({scope.need('dtype')})" if stream.low else ""
    scope.code.add(f"{variable.text} = {stream.text}[{index}-1]{cast}")


def _write_chunks(emission: Emission, scope: Scope, held: Variables, phase: ChunkLoop) -> None:
    title = _common(phase.states)
    schedule, kernels = emission.schedule, emission.kernels
    if kernels is not None and schedule.tick_form is not None:
        made = write_chunk_loop(emission.new_scope, title, scope, held, phase, schedule, kernels, "first")
        if made is not None:
            _called(emission, scope, made)
            return
        if _write_ticked(emission, scope, held, phase.scan, title):
            return
        kernels = None
    made = write_chunk_loop(emission.new_scope, title, scope, held, phase, schedule, kernels)
    assert made is not None
    _called(emission, scope, made)


def _called(emission: Emission, scope: Scope, made: Call) -> None:
    emission.functions += made.functions
    if made.given is not None:
        emission.given.append(made.given)
    scope.last_place = ""
    cuts = emission.packs and made.given is not None and made.given.packs
    emission.packs = cuts
    ends = [f"ends={emission.ends}"] if made.given is not None and made.given.ends else []
    add_call(scope.code, made.targets, made.function, [*made.arguments, *(["cuts=cuts"] if cuts else []), *ends])


def _write_scan(emission: Emission, scope: Scope, held: Variables, phase: Scan) -> None:
    program = emission.program
    prefix = _common(phase.states)
    if _write_ticked(emission, scope, held, phase, prefix):
        return
    emission.packs = False
    loop = emission.new_scope(prefix, f"One tick after the other: {_list(phase.states)}.")
    loop.within = True
    inner = variables(loop, program, phase.states)
    passed, streams = _take_operands(emission, scope, loop, phase)
    passed += _take_parameters(scope, loop, phase)
    exports = _write_loop(emission, loop, inner, phase, streams)

    outer = [*(held.states[s] for s in inner.states), *(held.anchors[a] for a in inner.anchors)]
    state_arguments = [e.text for e in inner.all()]
    loop.tensors = [*inner.all(), *loop.tensors]
    arguments = ["t", *state_arguments, *(inside for inside, _ in passed)]
    values = ["t", *(e.text for e in outer), *(outside for _, outside in passed)]
    if not any(re.search(r"\bt\b", line) for line in loop.code.lines if line.strip() != "t += 1"):
        loop.code.lines = [line for line in loop.code.lines if line.strip() != "t += 1"]
        arguments, values = arguments[1:], values[1:]
    if not streams:
        arguments.append("T")
        values.append(scope.need("T"))
    loop.arguments = arguments
    widen(loop, inner.all())
    emission.functions.append(loop)

    targets = [e.text for e in outer]
    for value, expr in exports:
        name = scope.names.new(program.body[value].name or expr.text)
        type = scope.layout.with_axis(expr.type, TIME)
        scope.env[value] = replace(expr, text=name, type=type, strength=7, parts=None)
        targets.append(name)
    scope.last_place = ""
    add_call(scope.code, targets, loop.name, values)


def _write_ticked(emission: Emission, scope: Scope, held: Variables, phase: Scan, title: str) -> bool:
    """The loop in a form that other kernels have for loops over segments, if they have one."""
    schedule, kernels = emission.schedule, emission.kernels
    if schedule.tick_form is None or kernels is None:
        return False
    ticked, derived = schedule.tick_form(phase)
    if derived is not None:
        schedule = replace(schedule, backwards=(derived,))
    made = write_chunk_loop(emission.new_scope, title, scope, held, ticked, schedule, kernels, "last")
    if made is not None:
        _called(emission, scope, made)
    return made is not None


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more states"


def _common(names: Sequence[str]) -> str:
    """What the names of the states of a loop have in common, or the first one."""
    if len(names) == 1:
        return names[0]
    parts = [name.split(".") for name in names]
    same = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        same.append(column[0])
    return ".".join(same) or names[0]


def _take_operands(
    emission: Emission, scope: Scope, loop: Scope, phase: Scan
) -> tuple[list[tuple[str, str]], list[tuple[Expr, Expr]]]:
    """Make the operands of a loop arguments of its function: (name inside, name outside), and its streams
    as (all ticks, one tick)."""
    program = emission.program
    passed, streams = [], []
    known: dict[str, Expr] = {}
    params = [i.attr("param") for v in operands(program, phase) if (i := program.body[v]).op == "param"]
    short = short_names(params)
    for value in sorted(operands(program, phase)):
        instr = program.body[value]
        if instr.op in ("state", "anchor") and instr.attr("state") in phase.states:
            continue
        outside = scope.env[value]
        if outside.is_literal:
            loop.env[value] = outside
            continue
        if outside.text in known:
            loop.env[value] = replace(known[outside.text], type=at_tick(outside).type)
            continue
        hint = (instr.name or outside.text) if instr.op != "param" else short[instr.attr("param")]
        inside = replace(at_tick(outside), text=loop.names.new(hint), strength=7, wide=False)
        if TIME in outside.type.axes:
            every = replace(outside, text=loop.names.new(f"{inside.text}_all"), strength=7)
            streams.append((every, inside))
            passed.append((every.text, outside.text))
            loop.tensors.append(every)
        else:
            passed.append((inside.text, outside.text))
            loop.tensors.append(inside)
        loop.env[value] = known[outside.text] = inside
        if instr.op == "param":
            loop.params[instr.attr("param")] = inside
    return passed, streams


def _take_parameters(scope: Scope, loop: Scope, phase: Scan) -> list[tuple[str, str]]:
    """Parameters that initial values need when a state is reset within the loop."""
    program = scope.layout.program
    found = []
    for name in phase.states:
        if program.state(name).reset.kind != "clock":
            continue
        for instr in program.init:
            if instr.op == "param" and (param := instr.attr("param")) not in loop.params:
                outside = scope.params[param]
                inside = replace(outside, text=loop.names.new(param.rpartition(".")[2]))
                loop.params[param] = inside
                loop.tensors.append(inside)
                found.append((inside.text, outside.text))
    return found


def _write_loop(
    emission: Emission, loop: Scope, inner: Variables, phase: Scan, streams: list[tuple[Expr, Expr]]
) -> list[tuple[int, Expr]]:
    """The lines of a loop; the exports as they are at one tick."""
    program = emission.program
    outside, inside = loop.code, Code()
    loop.code = inside
    inside.add("t += 1")
    bodies = program.body
    before = [v for v in phase.exports if bodies[v].op in ("state", "anchor")]
    after = [v for v in phase.exports if v not in before]
    lists: dict[int, str] = {}

    def export(value: int) -> None:
        expr = loop.tensor(loop.env[value]) if loop.env[value].is_literal else loop.env[value]
        loop.env[value] = expr
        lists[value] = loop.names.new(f"{expr.text if expr.text.isidentifier() else 'y'}_all")
        loop.code.add(f"{lists[value]}.append({expr.text})")

    def export_reads() -> None:
        for value in before:
            export(value)

    write_body(loop, program, inner, phase.values, after, export_reads)
    for value in after:
        export(value)
    write_updates(loop, program, inner)
    loop.code = outside

    for value in phase.exports:
        outside.add(f"{lists[value]} = []")
    if not streams:
        outside.add("for _ in range(T):")
    else:
        names = ", ".join(one.text for _, one in streams)
        unbound = [f"{every.text}.unbind({_time_dim(every)})" for every, _ in streams]
        if len(unbound) == 1:
            outside.add(f"for {names} in {unbound[0]}:")
        elif sum(map(len, unbound)) + len(names) < 90:
            outside.add(f"for {names} in zip({', '.join(unbound)}):")
        else:
            outside.add(f"for {names} in zip(")
            for text in unbound:
                outside.add(f"{INDENT}{text},")
            outside.add("):")
    outside.extend(inside)
    results = [e.text for e in inner.all()]
    results += [f"torch.stack({lists[v]}, {_time_dim(loop.env[v])})" for v in phase.exports]
    outside.add(f"return {', '.join(results)}")
    return [(v, loop.env[v]) for v in phase.exports]
