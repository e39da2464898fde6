"""A schedule as the source of one standalone Python module.

The module has ``init_state``, ``forward`` (all ticks of a call), ``step`` (one tick) and, where the next inputs are
needed before the states can change, ``peek`` (the outputs of a tick without its updates). States travel in a dict: by
name, with anchors as ``name@period`` and the number of ticks done as ``@tick``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence

from nldsl.backends.interface import LoopKernels
from nldsl.backends.torch.body import literal, write_tick
from nldsl.backends.torch.layout import Layout
from nldsl.backends.torch.names import LOOP, Names, plain, short_names
from nldsl.backends.torch.packing import CUTS, packable, packed_sources
from nldsl.backends.torch.packing import IMPORTS as PACKED_IMPORTS
from nldsl.backends.torch.phases import Emission, operands, write_phase
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.segment import IMPORTS, sources
from nldsl.backends.torch.segment_backward import BACKWARD_IMPORTS, backward_sources
from nldsl.backends.torch.split import LONGEST, split
from nldsl.backends.torch.target_ast import ADD, ATOM, INDENT, Code, Expr
from nldsl.backends.torch.tick import Variables, bind_leaves, variables, write_body, write_initial, write_updates
from nldsl.ir.demand import reachable
from nldsl.ir.program import Program
from nldsl.ir.schedule import Delay, Schedule, anchor_key, needs_next
from nldsl.ir.types import BATCH, TIME, Type

TICK = "@tick"
ENDS = "@ends"


def emit(schedule: Schedule, longest: int = LONGEST, kernels: LoopKernels | None = None) -> str:
    """The source of the module. Functions of more than ``longest`` lines are split; ``kernels`` may write loops."""
    program = schedule.program
    layout = Layout(program, schedule.autocast, schedule.wide)
    names = Names()

    def new_scope(name: str, doc: str) -> Scope:
        return Scope(LOOP + names.new(name), layout, doc)

    packs = getattr(kernels, "packs", False) and bool(program.inputs) and packable(schedule)
    emission = Emission(schedule, new_scope, _kept(schedule), kernels=kernels, packs=packs)
    init, forward, step = _init_state(layout), _forward(emission, layout, schedule), _step(layout, schedule)
    functions = [init, *emission.functions, forward, step]
    if needs_next(schedule):
        functions.append(_peek(layout, schedule))
    whole = [part for function in functions for part in split(function, emission.new_scope, longest)]
    text = "\n\n".join(function.text() for function in whole)
    own = [*packed_sources(text), *backward_sources(text)]
    text += '\n\nPACKED = True  # sequences may lie in one row: state["@cuts"] says where\n' if emission.packs else ""
    given = [*dict.fromkeys(part for source in emission.given for part in source.shared)]
    given += [source.source for source in emission.given]
    text = "\n\n".join([*sources(text), *own, *given, text])
    imports = [
        *(BACKWARD_IMPORTS if backward_sources(text) else IMPORTS if "scan_wide(" in text else ()),
        "import torch",
    ]
    imports += dict.fromkeys(line for source in emission.given for line in source.imports if line != "import torch")
    imports += [line for line in PACKED_IMPORTS if packed_sources(text) and line not in imports]
    imports += ["from torch.nn import functional as F"] if re.search(r"\bF\.", text) else []
    return "\n".join([_doc(layout), *imports, "", "", text])


def quoted(name: str) -> str:
    """A string of the program as a literal."""
    return json.dumps(name) if name.isascii() else ascii(name)


def _doc(layout: Layout) -> str:
    """What goes in and out, for the reader."""
    program, body = layout.program, layout.program.body

    def rows(title: str, items: Iterable[tuple[str, str]]) -> list[str]:
        found = [f"{INDENT}{plain(name)} {shape}" for name, shape in items]
        return ["", f"{title}:", *found] if found else []

    def stream(type: Type) -> str:
        return layout.describe(layout.with_axis(type, TIME))

    lines = [f'"""{plain(program.name) or "program"}, compiled by nldsl.']
    lines += rows("Parameters", ((p.name, layout.describe(p.type)) for p in program.params))
    lines += rows("Inputs", ((i.name, stream(i.type)) for i in program.inputs))
    lines += rows("States", ((s.name, layout.describe(s.type)) for s in program.states))
    lines += rows("Outputs", ((name, stream(body[v].type)) for name, v in program.outputs))
    lines += rows("Losses", ((name, stream(body[v].type)) for name, v in program.losses))
    return "\n".join([*lines, '"""', ""])


def _kept(schedule: Schedule) -> frozenset[int]:
    """Values that need a variable: used by another phase, or by the caller."""
    program = schedule.program
    kept = {v for _, v in (*program.outputs, *program.losses, *program.probes)}
    for phase in schedule.all_phases():
        kept |= operands(program, phase)
    return frozenset(kept)


# -- the start of a function


def _unpack(scope: Scope, source: str, name: str, type: Type) -> Expr:
    """``W = params["W"]``, with the layout as a comment."""
    program = scope.layout.program
    declared = [p.name for p in program.params] if source == "params" else [i.name for i in program.inputs]
    expr = Expr(scope.names.new(short_names(declared)[name]), type)
    scope.unpacking.append(f"{expr.text} = {source}[{quoted(name)}]  # {scope.layout.describe(type)}")
    scope.tensors.append(expr)
    if source == "params":
        scope.params[name] = expr
    return expr


def _unpack_leaves(scope: Scope, program: Program, values: set[int], at_once: bool) -> None:
    """Fetch the parameters and inputs among these values, in the order of their declaration."""
    leaves: dict[tuple[str, str], list[int]] = {}
    for value in sorted(values):
        instr = program.body[value]
        if instr.op in ("param", "input"):
            leaves.setdefault((instr.op, instr.attr(instr.op)), []).append(value)
        elif instr.op == "const":
            scope.env[value] = literal(instr.attr("value"))
    reset = any(s.reset.kind == "clock" for s in program.states)
    initial = {i.attr("param") for i in program.init if i.op == "param" and reset}
    for param in program.params:
        found = leaves.get(("param", param.name), [])
        if found or param.name in initial:
            scope.env.update(dict.fromkeys(found, _unpack(scope, "params", param.name, param.type)))
    read = {name for op, name in leaves if op == "input"}
    for item in program.inputs:
        found = leaves.get(("input", item.name), [])
        if found or not read:  # one is there in any case: it says how many ticks there are
            read.add(item.name)
            type = scope.layout.with_axis(item.type, TIME) if at_once else item.type
            scope.env.update(dict.fromkeys(found, _unpack(scope, "inputs", item.name, type)))


def _unpack_states(scope: Scope, program: Program, at_once: bool) -> Variables:
    held = variables(scope, program, [s.name for s in program.states])
    for name, expr in held.states.items():
        scope.unpacking.append(f"{expr.text} = state[{quoted(name)}]  # {scope.layout.describe(expr.type)}")
    for (name, period), expr in held.anchors.items():
        scope.unpacking.append(f"{expr.text} = state[{quoted(anchor_key(name, period))}]")
    scope.tensors.extend(held.all())
    scope.unpacking.append(f"t = state[{quoted(TICK)}]" + ("" if at_once else " + 1"))
    return held


# -- the functions


def _init_state(layout: Layout) -> Scope:
    program = layout.program
    scope = Scope("init_state", layout, "The states before the first tick.")
    scope.arguments = ["params", "batch", "dtype", "device"]
    scope.given = {"B": "batch"}
    read = {i.attr("param") for i in program.init if i.op == "param"}
    for param in program.params:
        if param.name in read:
            _unpack(scope, "params", param.name, param.type)
    held = variables(scope, program, [s.name for s in program.states])
    for name in held.states:
        initial = write_initial(scope, program, name, held.states)
        scope.code.add(f"{held.states[name].text} = {initial.text}")
    for (name, _), anchor in held.anchors.items():
        scope.code.add(f"{anchor.text} = {held.states[name].text}")
    _add_dict(scope.code, "return ", _state_entries(held, "0"))
    return scope


def _forward(emission: Emission, layout: Layout, schedule: Schedule) -> Scope:
    program = schedule.program
    scope = Scope("forward", layout, "All ticks of a call: (outputs, losses, probes, state).")
    scope.arguments = ["params", "inputs", "state"] if program.inputs else ["params", "inputs", "state", "T"]
    _unpack_leaves(scope, program, _needed(schedule), at_once=True)
    held = _unpack_states(scope, program, at_once=True)
    if emission.packs:
        scope.unpacking.append(f"{scope.names.new('cuts')} = state.get({quoted(CUTS)}, ())")
        scope.given["ticks"] = "packed_ticks(t, T, cuts, device)"
    if emission.kernels is not None:
        emission.ends = scope.names.new("ends")
    changed: set[str] = set()
    for phase in schedule.phases:
        changed.update(getattr(phase, "states", ()))
        changed.update((phase.state,) if isinstance(phase, Delay) else ())
    bind_leaves(scope, program, _without(held, changed))
    for phase in schedule.phases:
        write_phase(emission, scope, held, phase)

    def write_late() -> None:
        for phase in schedule.loss_phases:
            write_phase(emission, scope, held, phase)

    _write_results(scope, schedule, write_late, at_once=True)
    if any(source.ends for source in emission.given):
        scope.unpacking.append(f"{emission.ends} = state.get({quoted(ENDS)}, True)  # whether the new states are read")
    _write_return(scope, held, f"t + {scope.need('T')}")
    return scope


def _step(layout: Layout, schedule: Schedule) -> Scope:
    program = schedule.program
    scope = Scope("step", layout, "One tick: (outputs, losses, probes, state).")
    scope.arguments = ["params", "inputs", "state"]
    values = _needed(schedule)
    _unpack_leaves(scope, program, values, at_once=False)
    held = _unpack_states(scope, program, at_once=False)
    early = sorted(values - schedule.late)
    kept = [v for v in _results(program) if v not in schedule.late]
    kept += [a for v in schedule.late for a in program.body[v].args if a not in schedule.late]
    write_body(scope, program, held, early, kept)

    def write_late() -> None:
        late = [v for v in sorted(schedule.late) if v not in scope.env]
        write_tick(scope, program.body, late, [v for v in _results(program) if v in schedule.late])

    _write_results(scope, schedule, write_late, at_once=False)
    write_updates(scope, program, held)
    _write_return(scope, held, "t")
    return scope


def _peek(layout: Layout, schedule: Schedule) -> Scope:
    program = schedule.program
    scope = Scope("peek", layout, "The outputs of one tick; the states stay as they are.")
    scope.arguments = ["params", "inputs", "state"]
    results = [v for _, v in program.outputs]
    values = reachable(program.body, results)
    _unpack_leaves(scope, program, values, at_once=False)
    held = _unpack_states(scope, program, at_once=False)
    write_body(scope, program, held, sorted(values), results, updates=False)
    _add_dict(scope.code, "return ", _result_entries(scope, program.outputs, at_once=False))
    return scope


def _needed(schedule: Schedule) -> set[int]:
    """Every value that is used, except the inputs that only losses need."""
    program = schedule.program
    values = reachable(program.body, [*_results(program), *(v for _, v in program.updates)])
    return {
        v
        for v in values
        if not (program.body[v].op == "input" and program.body[v].attr("input") in schedule.loss_inputs)
    }


def _results(program: Program) -> list[int]:
    return [v for _, v in (*program.outputs, *program.losses, *program.probes)]


def _without(held: Variables, changed: set[str]) -> Variables:
    """The states that no tick changes: what they are is known from the start."""
    return Variables(
        {name: e for name, e in held.states.items() if name not in changed},
        {(name, period): e for (name, period), e in held.anchors.items() if name not in changed},
    )


# -- the end of a function


def _write_results(scope: Scope, schedule: Schedule, write_late: Callable[[], None], at_once: bool) -> None:
    program, late = schedule.program, schedule.late
    _add_dict(scope.code, "outputs = ", _result_entries(scope, program.outputs, at_once))
    for title, named in (("losses", program.losses), ("probes", program.probes)):
        early = [(name, v) for name, v in named if v not in late]
        _add_dict(scope.code, f"{title} = ", _result_entries(scope, early, at_once, title == "probes"))
    if not late:
        return
    outside, scope.code = scope.code, Code()
    for item in program.inputs:
        if item.name in schedule.loss_inputs:
            type = scope.layout.with_axis(item.type, TIME) if at_once else item.type
            expr = Expr(scope.names.new(item.name), type)
            scope.code.add(f"{expr.text} = inputs[{quoted(item.name)}]  # {scope.layout.describe(type)}")
            found = [v for v, i in enumerate(program.body) if i.op == "input" and i.attr("input") == item.name]
            scope.env.update(dict.fromkeys(found, expr))
    write_late()
    for title, named in (("losses", program.losses), ("probes", program.probes)):
        entries = _result_entries(scope, [(name, v) for name, v in named if v in late], at_once, title == "probes")
        if entries:
            _add_dict(scope.code, f"{title} |= ", entries)
    inside, scope.code = scope.code, outside
    condition = " and ".join(f"{quoted(name)} in inputs" for name in schedule.loss_inputs)
    outside.add(f"if {condition}:")
    outside.extend(inside)


def _result_entries(scope: Scope, named: Sequence[tuple[str, int]], at_once: bool, logged: bool = False) -> list[str]:
    """``"y": y`` with the axes that every result has: batch, and time in ``forward``. Equal names are summed. What is
    ``logged`` has no gradient."""
    entries: dict[str, str] = {}
    for name, value in named:
        expr = scope.env[value]
        axes = [TIME] if at_once else []
        if any(BATCH in tensor.type.axes for tensor in scope.tensors):
            axes.append(BATCH)
        whole = scope.stretched(scope.narrowed(expr), scope.layout.with_axis(expr.type, *axes))
        text = whole.at(ATOM if logged else ADD)
        text += ".detach()" * logged
        entries[name] = f"{entries[name]} + {text}" if name in entries else text
    return [f"{quoted(name)}: {text}" for name, text in entries.items()]


def _state_entries(held: Variables, tick: str) -> list[str]:
    entries = [f"{quoted(TICK)}: {tick}"]
    entries += [f"{quoted(name)}: {expr.text}" for name, expr in held.states.items()]
    return entries + [f"{quoted(anchor_key(*key))}: {expr.text}" for key, expr in held.anchors.items()]


def _write_return(scope: Scope, held: Variables, tick: str) -> None:
    _add_dict(scope.code, "state = ", _state_entries(held, tick))
    scope.code.add("return outputs, losses, probes, state")


def _add_dict(code: Code, head: str, entries: list[str]) -> None:
    line = f"{head}{{{', '.join(entries)}}}"
    if len(line) <= 100:
        code.add(line)
        return
    code.add(f"{head}{{")
    for entry in entries:
        code.add(f"{INDENT}{entry},")
    code.add("}")
