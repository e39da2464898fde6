"""A loop over segments as code: the function of a run (``runs.py``), and the one that cuts the ticks into runs.

``T`` is the number of ticks of a segment in the function of a run, ``N`` the number of segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from nldsl.backends.interface import LoopCall, LoopKernels, LoopSource, LoopTensor
from nldsl.backends.torch.alone import alone
from nldsl.backends.torch.chunk_backward import write_backward
from nldsl.backends.torch.chunk_drivers import Driver, write_entry, write_forward_driver
from nldsl.backends.torch.names import short_names
from nldsl.backends.torch.runs import Argument, Operands, RunWriter, SegmentLayout, axis_dim, leaf_of, without_segment
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ATOM, INDENT, Expr
from nldsl.backends.torch.tick import Variables, fold, variables, write_initial, write_resets
from nldsl.ir.backward import BackwardLoop, Key
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.ending import Endings
from nldsl.ir.program import Axis, Program
from nldsl.ir.schedule import Schedule, init_reads, init_values
from nldsl.ir.stages import SEGMENT, stages
from nldsl.ir.types import TIME, Type


@dataclass(frozen=True)
class Call:
    """A call of a loop: targets, function and arguments, and the functions that must stand before it: of this backend,
    or the source that another one gave."""

    targets: list[str]
    function: str
    arguments: list[str]
    functions: list[Scope]
    given: LoopSource | None = None


def write_chunk_loop(
    new_scope: Callable[[str, str], Scope],
    title: str,
    scope: Scope,
    held: Variables,
    phase: ChunkLoop,
    schedule: Schedule,
    kernels: LoopKernels | None = None,
    attempt: str = "",
) -> Call | None:
    """Write the functions of a loop of a schedule. An ``attempt``, ``first`` or ``last`` of several, gives None where
    ``kernels`` have nothing for it."""
    program = schedule.program
    derived = schedule.backward_of(phase)
    entry = new_scope(title, _doc(phase))
    run = _run_scope(new_scope, f"{title}_run", "N segments of T ticks.", program, phase)
    inner = variables(run, program, phase.states)
    operands = take_operands(run, scope, phase, program, frozenset(inner.states))
    boundaries = derived.boundaries if derived else ()
    writer = ForwardRun(run, phase, inner, program, operands, boundaries)
    outputs, starts = writer.write()
    passed = [a.inside for a in operands.arguments]
    run.arguments = ["t", "T", "N", *(e.text for e in inner.all()), *(e.text for e in passed)]
    run.tensors = [*inner.all(), *passed]

    driver = Driver(inner, operands, outputs, phase)

    def plain() -> str:
        return alone(_own_functions(new_scope, title, entry, run, driver, starts, None, schedule), new_scope)

    given = None
    if kernels is not None:
        call = loop_call(entry, driver, derived, program, attempt != "first", run.params)
        given = kernels.loop(replace(call, plain=plain, **_derivable(schedule, phase, derived)))
    functions: list[Scope] = []
    if given is None and attempt:
        return None
    if given is None:
        functions = _own_functions(new_scope, title, entry, run, driver, starts, derived, schedule)

    outer = [*(held.states[s] for s in inner.states), *(held.anchors[a] for a in inner.anchors)]
    targets = [e.text for e in outer]
    for value, expr in outputs:
        name = scope.names.new(program.body[value].name or expr.text)
        scope.env[value] = Expr(name, outside_type(scope, expr.type), low=expr.low)
        targets.append(name)
    arguments = ["t"] if operands.streams else ["t", scope.need("T")]
    arguments += [e.text for e in outer] + [a.outside.text for a in operands.arguments]
    return Call(targets, entry.name, arguments, functions, given)


def _derivable(schedule: Schedule, phase: ChunkLoop, derived: BackwardLoop | None) -> dict[str, Any]:
    """What passes can still derive of a loop, for its ``LoopCall``."""
    found, program = schedule.derivations, schedule.program
    if found is None:
        return {}

    def endings(keeping: BackwardLoop | None) -> Endings:
        return partial(found.endings, phase, derived, program, keeping)

    keeping = None if derived is None else partial(found.keeping, derived, program)
    return {"endings": endings, "keeping": keeping, "recompute_above": schedule.recompute_above}


def outside_type(scope: Scope, type: Type) -> Type:
    """The type of a stream outside the function of a run."""
    return scope.layout.with_axis(Type(type.shape, without_segment(type.axes), type.kind), TIME)


def loop_call(
    entry: Scope,
    what: Driver,
    derived: BackwardLoop | None,
    program: Program,
    last: bool,
    params: Mapping[str, Expr],
) -> LoopCall:
    """The function of a loop as another backend may write it. ``params``: its parameters by their names."""
    held = [LoopTensor("state", e.text, e.type, ((name, 0),)) for name, e in what.inner.states.items()]
    held += [LoopTensor("anchor", e.text, e.type, (key,)) for key, e in what.inner.anchors.items()]
    arguments = list(held)
    for argument in what.operands.arguments:
        keys = tuple(leaf for leaf, e in what.operands.leaves.items() if e is argument.inside)
        kind = "stream" if argument.stream else "other"
        outside = argument.outside
        arguments.append(LoopTensor(kind, argument.inside.text, outside.type, keys, outside.low, outside.wide))
    results = list(held)
    for value, expr in what.outputs:
        results.append(LoopTensor("output", expr.text, outside_type(entry, expr.type), (("value", value),), expr.low))
    numbers = tuple((leaf, e.text) for leaf, e in what.operands.leaves.items() if e.is_literal)
    counts = not what.operands.streams
    initials = tuple(
        _initial(entry, program, name, expr, params)
        for name, expr in what.inner.states.items()
        if program.state(name).reset.kind == "clock" and not init_reads(program, name)
    )
    return LoopCall(
        entry.name, program, what.phase, derived, tuple(arguments), tuple(results), numbers, counts, last, initials
    )


def _initial(
    entry: Scope, program: Program, name: str, variable: Expr, params: Mapping[str, Expr]
) -> tuple[str, str, tuple[str, ...], str]:
    """The value that a state is reset to, as a function of the state (for its sizes) and of parameters."""
    read = [program.init[v].attr("param") for v in init_values(program, name) if program.init[v].op == "param"]
    used = {param: params[param] for param in dict.fromkeys(read)}
    scope = Scope(f"{entry.name}_initial_{variable.text}", entry.layout, "What the state is reset to.")
    scope.arguments = [variable.text, *(e.text for e in used.values())]
    for argument in scope.arguments:
        scope.names.new(argument)
    scope.tensors, scope.params = [variable, *used.values()], used
    found = write_initial(scope, program, name, {})
    scope.code.add(f"return {found.text}")
    return name, scope.name, tuple(scope.arguments), scope.text()


def _own_functions(
    new_scope: Callable[[str, str], Scope],
    title: str,
    entry: Scope,
    run: Scope,
    driver: Driver,
    starts: list[str],
    derived: BackwardLoop | None,
    schedule: Schedule,
) -> list[Scope]:
    phase, program, functions = driver.phase, schedule.program, [run]
    forward = entry
    if derived is not None:
        forward = new_scope(f"{title}_forward", "What the loop gives, and the states at the beginning of each segment.")
    write_forward_driver(forward, run, driver, starts, keeps=derived is not None)
    functions.append(forward)
    if derived is not None:
        back_run = _run_scope(new_scope, f"{title}_run_backward", "From the last segment to the first.", program, phase)
        back = new_scope(f"{title}_backward", "The cotangents of the arguments from those of what the loop gives.")
        write_backward(back, back_run, driver, derived, program)
        functions += [back_run, back]
        write_entry(entry, forward, back, driver, schedule.recompute_above)
        functions.append(entry)
    return functions


def _doc(phase: ChunkLoop) -> str:
    names = phase.states
    listed = ", ".join(names) if len(names) < 4 else f"{names[0]}, {names[1]} and {len(names) - 2} more states"
    return f"At most {phase.size} ticks at once: {listed}."


def _run_scope(
    new_scope: Callable[[str, str], Scope], title: str, doc: str, program: Program, phase: ChunkLoop
) -> Scope:
    run = new_scope(title, doc)
    axes = (Axis(SEGMENT, None), *program.axes, *phase.lanes)
    run.layout = SegmentLayout(replace(program, axes=axes))
    for name in ("N", "T"):
        run.names.new(name)
    run.given |= {"T": "T", "N": "N"}
    return run


def take_operands(run: Scope, scope: Scope, phase: ChunkLoop, program: Program, own: frozenset[str]) -> Operands:
    """The arguments of a loop besides its states, streams first."""
    found = _Operands(run, scope)
    body = phase.body
    for instr in body:
        if instr.op == "given":
            value = instr.attr("value")
            outside = scope.env[value]
            found.take(("given", value), outside, program.body[value].name or outside.text)
    names = [i.attr("param") for i in body if i.op == "param"]
    for state in phase.states:
        if program.state(state).reset.kind == "clock":
            names += [i.attr("param") for i in program.init if i.op == "param"]
    short = short_names(dict.fromkeys(names))
    for param in dict.fromkeys(names):
        outside = scope.params[param]
        inside = replace(outside, text=run.names.new(short[param]), strength=ATOM)
        run.params[param] = inside
        found.others.append(Argument(inside, outside, stream=False))
        found.leaves["param", param] = inside
    for instr in body:
        if instr.op == "state" and instr.attr("state") not in own and not _packed(phase, instr.attr("state")):
            name = instr.attr("state")
            source = next(v for v, i in enumerate(program.body) if i.op == "state" and i.attr("state") == name)
            found.take(("state", name), scope.env[source], name)
    return Operands([*found.streams, *found.others], found.leaves)


def _packed(phase: ChunkLoop, name: str) -> bool:
    return any(p.name == name for p in phase.packs)


class _Operands:
    """Collects arguments; equal expressions are one."""

    def __init__(self, run: Scope, scope: Scope) -> None:
        self.run = run
        self.scope = scope
        self.streams: list[Argument] = []
        self.others: list[Argument] = []
        self.leaves: dict[tuple[str, str | int], Expr] = {}
        self.known: dict[tuple[str, Type], Expr] = {}

    def take(self, leaf: tuple[str, str | int], outside: Expr, hint: str) -> None:
        run = self.run
        if outside.is_literal:
            self.leaves[leaf] = outside
            return
        key = outside.text, outside.type  # views may share a text
        if key not in self.known:
            if outside.form == "bool":  # of the module's own type: beside it a float64 number without dims has no say
                outside = replace(outside, text=f"{outside.text}.to({self.scope.need('dtype')})", form="tensor")
            type = outside.type
            stream = TIME in type.axes
            if stream:
                type = run.layout.with_axis(type, SEGMENT)
            inside = Expr(run.names.new(hint), type, low=outside.low)
            (self.streams if stream else self.others).append(Argument(inside, outside, stream))
            self.known[key] = inside
        self.leaves[leaf] = self.known[key]


class ForwardRun(RunWriter):
    """The function of a run of the loop itself. ``boundaries``: what is to be kept of the beginning of each segment."""

    def __init__(
        self,
        run: Scope,
        phase: ChunkLoop,
        inner: Variables,
        program: Program,
        operands: Operands,
        boundaries: tuple[Key, ...],
    ) -> None:
        super().__init__(
            run, program, phase.body, stages(phase), [v for _, v in phase.carry], [v for _, v in phase.outputs]
        )
        self.phase = phase
        self.inner = inner
        self.held = packed(run, phase, inner)
        self.boundaries = boundaries
        self.starts: list[str] = []
        for value, instr in enumerate(phase.body):
            leaf = leaf_of(instr)
            if leaf is not None and leaf in operands.leaves:
                run.env[value] = operands.leaves[leaf]

    def write(self) -> tuple[list[tuple[int, Expr]], list[str]]:
        """The lines; what leaves the run, with the axes ``time`` and ``segment``, and the lists of boundaries."""
        run = self.run
        write_packs(run, self.phase, self.held, self.inner, together=True)
        self.write_stages()
        outputs = []
        for value, inside in self.phase.outputs:
            expr = run.env[inside]
            type = run.layout.with_axis(expr.type, TIME, SEGMENT)
            wanted = self.program.body[value].type
            type = run.layout.with_axis(type, *wanted.axes)
            full = run.stretched(expr, replace(type, shape=wanted.shape))
            outputs.append((value, run.simple(full, self.program.body[value].name or "y")))
        texts = [*(e.text for e in self.inner.all()), *(e.text for _, e in outputs), *self.starts]
        run.code.add(f"return {', '.join(texts)}")
        return outputs, self.starts

    def begin(self) -> dict[int, Expr]:
        self._refresh_anchors()
        for state, period in self.boundaries:
            variable = self.held.anchors[state, period] if period else self.held.states[state]
            self.starts.append(self.keep_variable(variable.text))
        found = {}
        for value in self.leaves("state"):
            name = self.body[value].attr("state")
            if name in self.held.states:
                found[value] = self.held.states[name]
        for value in self.leaves("anchor"):
            found[value] = self.held.anchors[self.body[value].attr("state"), self.body[value].attr("period")]
        return found

    def _refresh_anchors(self) -> None:
        for period in dict.fromkeys(p for _, p in self.held.anchors):
            due = [(s, e) for (s, p), e in self.held.anchors.items() if p == period]
            if period > 1:
                self.run.code.add(f"if t % {period} == 0:")
            for state, anchor in due:
                indent = INDENT if period > 1 else ""
                self.run.code.add(f"{indent}{anchor.text} = {self.held.states[state].text}")

    def end(self) -> None:
        run = self.run
        names, texts = self.carry_on([(self.held.states[name], value) for name, value in self.phase.carry])
        fold(run.code, names, texts)
        if names:
            run.code.add(f"{', '.join(names)} = {', '.join(texts)}")
        alone = {n: e for n, e in self.held.states.items() if n in self.inner.states}
        write_resets(run, self.program, Variables(alone, self.held.anchors))

    def _loop(self, before: dict[int, Expr]) -> dict[int, Expr]:
        moved = super()._loop(before)
        write_packs(self.run, self.phase, self.held, self.inner, together=False)
        return moved


def packed(run: Scope, phase: ChunkLoop, inner: Variables) -> Variables:
    """What the loop holds: packs instead of their states."""
    states, anchors = dict(inner.states), dict(inner.anchors)
    for pack in phase.packs:
        first = inner.states[pack.states[0]]
        type = run.layout.with_axis(first.type, pack.axis)
        for state in pack.states:
            del states[state]
        states[pack.name] = Expr(run.names.new(f"{first.text}_pack"), type)
        for state, period in inner.anchors:
            if state == pack.states[0]:
                anchors[pack.name, period] = Expr(run.names.new(f"{first.text}_pack_at_{period}"), type)
        anchors = {key: e for key, e in anchors.items() if key[0] not in pack.states}
    return Variables(states, anchors)


def write_packs(run: Scope, phase: ChunkLoop, held: Variables, inner: Variables, together: bool) -> None:
    """Put the states of packs side by side, or apart again."""
    for pack in phase.packs:
        pairs = [(held.states[pack.name], [inner.states[s] for s in pack.states])]
        for (name, period), anchor in held.anchors.items():
            if name == pack.name:
                pairs.append((anchor, [inner.anchors[s, period] for s in pack.states]))
        for whole, parts in pairs:
            dim = axis_dim(whole.type, pack.axis)
            names = ", ".join(e.text for e in parts)
            if together:
                run.code.add(f"{whole.text} = torch.stack([{names}], {dim})")
            else:
                run.code.add(f"{names} = {whole.text}.unbind({dim})")
