"""What ``nldsl explain`` says about a program: one section for each memory, then loops, costs and levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nldsl.dims import Dim
from nldsl.explain.loops import Loop, loops_of, plan_of
from nldsl.explain.math import Math, equations, latex_lines, loss_math, text_lines, where_lines
from nldsl.explain.naming import short_names
from nldsl.explain.operations import clock_words
from nldsl.explain.scope import cone, states_of
from nldsl.ir.program import MemoryInfo, ParamDecl, Program, StateDecl
from nldsl.ir.types import Type
from nldsl.passes.cost import Cost, cost
from nldsl.passes.cost_schedule import Work, work

_LONGEST_FORMULA = 100


@dataclass(frozen=True)
class Section:
    """A memory (with the optimizers inside it) and how often it occurs with the same equations."""

    memory: MemoryInfo
    states: tuple[StateDecl, ...]
    math: Math
    paths: tuple[str, ...]
    loops: tuple[int, ...]  # the places of their loops in ``Report.loops``


@dataclass(frozen=True)
class Report:
    """Everything ``explain`` knows. ``shapes``: the program to take sizes and costs from."""

    program: Program
    shapes: Program
    kind: str
    sections: tuple[Section, ...]
    loops: tuple[Loop, ...]
    losses: Math
    cost: Cost
    notes: tuple[str, ...] = ()
    work: Work | None = None  # of the form in which it runs, where sizes are known


def report(program: Program, symbolic: Program | None = None, kind: str = "", notes: Sequence[str] = ()) -> Report:
    """The report on a derived and simplified program; ``symbolic``: the same with sizes as symbols."""
    shapes = program if symbolic is None or not _alike(program, symbolic) else symbolic
    found = plan_of(program)
    loops = loops_of(found) if found is not None else []
    sections: list[Section] = []
    found_groups = groups(program)
    whole = kind == "memory" and len(found_groups) == 1  # then what is read is what the program gives
    for memory, states in found_groups:
        names = tuple(s.name for s in states)
        math = equations(program, names, "outputs" if whole or memory.path == "" else "names")
        own = tuple(
            n for n, x in enumerate(loops) if x.recurrence is not None and set(x.recurrence.states) & set(names)
        )
        section = Section(memory, states, math, (memory.path,), own)
        twin = next((i for i, s in enumerate(sections) if _same(s, section)), None)
        if twin is None:
            sections.append(section)
        else:
            kept = sections[twin]
            sections[twin] = Section(kept.memory, kept.states, kept.math, (*kept.paths, memory.path), kept.loops)
    if not sections and program.outputs:
        info = MemoryInfo("", program.name, kind or "block")
        sections.append(Section(info, (), equations(program, ()), ("",), ()))
    run = work(found.schedule) if found is not None else None
    return Report(
        program, shapes, kind, tuple(sections), tuple(loops), loss_math(program), cost(shapes), tuple(notes), run
    )


def _alike(program: Program, symbolic: Program) -> bool:
    """Whether the program with symbols has the same states and parameters, and formulas that one can read."""
    same = [
        [*(i.name for i in p.inputs), *(s.name for s in p.states), *(w.name for w in p.params)]
        for p in (program, symbolic)
    ]
    return same[0] == same[1] and all(len(str(n)) <= _LONGEST_FORMULA for _, n in cost(symbolic).operations)


def groups(program: Program) -> list[tuple[MemoryInfo, tuple[StateDecl, ...]]]:
    """The memories with states, each with the states of the instances inside it and of the optimizers beside it."""
    owners = [m for m in program.memories if m.states]
    outer = [m for m in owners if not any(o is not m and _contains(o, m) for o in owners)]
    named = [(m, frozenset(states_of(program, m))) for m in outer]
    loose = {s.name for s in program.states if not s.hidden}.difference(*(names for _, names in named))
    if loose:  # fast weights: parameters of levels of tokens
        named.append((MemoryInfo("", program.name, "model", tuple(sorted(loose))), frozenset(loose)))
    found = []
    for memory, names in _joined(program, named):
        states = tuple(s for s in program.states if s.name in names)
        if states:
            found.append((memory, states))
    return found


def _contains(outer: MemoryInfo, inner: MemoryInfo) -> bool:
    return not outer.path or inner.path.startswith(outer.path + ".")


Group = tuple[MemoryInfo, frozenset[str]]


def _joined(program: Program, found: list[Group]) -> list[Group]:
    """A memory and the one whose new states its update adds (its optimizer) are one."""
    updates = dict(program.updates)
    for position, (memory, names) in enumerate(found):
        own = [updates[n] for n in names if n in updates]
        others = {updates[n]: n for n in updates if n not in names and not program.state(n).hidden}
        reached = cone(program.body, own, stop=others) & set(others)
        read = {others[v] for v in reached if program.body[v].op != "state"}
        partner = next((i for i, (_, n) in enumerate(found) if i != position and n & read), None)
        if partner is not None:
            both = _around(program, memory, found[partner][0]), names | found[partner][1]
            rest = [g for i, g in enumerate(found) if i not in (position, partner)]
            place = min(position, partner)
            return _joined(program, [*rest[:place], both, *rest[place:]])
    return found


def _around(program: Program, left: MemoryInfo, right: MemoryInfo) -> MemoryInfo:
    """The innermost instance that holds both, or the program itself."""
    holders = [m for m in program.memories if all(m is o or _contains(m, o) for o in (left, right))]
    return max(holders, key=lambda m: len(m.path), default=MemoryInfo("", program.name, "memory"))


def _same(left: Section, right: Section) -> bool:
    """Whether two sections would read the same."""
    return (
        left.memory.template == right.memory.template
        and text_lines(left.math) == text_lines(right.math)
        and [(s.type.shape, s.reset) for s in left.states] == [(s.type.shape, s.reset) for s in right.states]
    )


# ---------------------------------------------------------------- words


def dim_text(dim: Dim) -> str:
    """A size or a formula: ``2·dk·dv + d²``."""
    if isinstance(dim, int):
        return f"{dim:,}"
    powers = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    parts = str(dim).replace("*", "·").replace(" - ", " − ").split("^")
    out = parts[0]
    for part in parts[1:]:
        digits = len(part) - len(part.lstrip("0123456789"))
        out += part[:digits].translate(powers) + part[digits:]
    return out


def shape_text(program: Program, type: Type) -> str:
    """``[dv, dk]``, with the number of copies in front."""
    shape = (
        ("int" if type.kind == "int" else "") + "[" + ", ".join(dim_text(d).replace(",", "") for d in type.shape) + "]"
    )
    copies = [f"{dim_text(size)} × " for a in type.axes if (size := _axis(program, a)) is not None]
    return "".join(copies) + shape


def _axis(program: Program, name: str) -> Dim | None:
    return program.axis_size(name)


def init_text(program: Program, state: StateDecl) -> str:
    """What a state begins with."""
    from nldsl.explain.reader import Reader
    from nldsl.explain.terms import Num, Sym
    from nldsl.explain.text import TextPrinter

    body = Program(program.name, program.axes, params=program.params, states=program.states, body=program.init)
    line = Reader(body).equations((), [("output", state.name, state.init)])[-1]
    term = line.value
    if isinstance(term, Sym) and term.kind == "param":
        learned = next((p for p in program.params if p.name.endswith(term.name)), None)
        return "learned" + (f", from {initializer_text(learned)}" if learned is not None else "")
    return TextPrinter().term(term) if not isinstance(term, Num) else TextPrinter().number(term.value)


def initializer_text(param: ParamDecl) -> str:
    """``normal(0.5)``, ``0``, ``values``."""
    from nldsl.explain.text import format_number

    rule = param.initializer
    if rule.kind == "constant":
        return format_number(rule.values[0])
    if rule.kind == "values":
        return "given values"
    return f"{rule.kind}({', '.join(format_number(float(f'{v:.4g}')) for v in rule.values)})"


def reset_text(state: StateDecl) -> str:
    """When a state gets its first value again."""
    reset = state.reset
    if reset.kind == "clock" and reset.clock is not None:
        return f"reset {reset.clock} tokens"
    return "never reset" if reset.kind == "never" else "reset per sequence"


def clock_text(program: Program, state: StateDecl) -> str:
    """When a state changes."""
    value = dict(program.updates).get(state.name)
    if value is None:
        return "never changed"
    instr = program.body[value]
    held = program.body[instr.args[1]] if instr.op == "when" else None
    if held is None or held.op != "state" or held.attr("state") != state.name:
        return "changed every tick"
    return f"changed {clock_words(instr.attr('clock'))}"


def to_json(found: Report) -> dict[str, Any]:
    """The report as JSON types."""
    return {
        "name": found.program.name,
        "kind": found.kind,
        "inputs": {i.name: str(i.type) for i in found.shapes.inputs},
        "outputs": [name for name, _ in found.program.outputs],
        "memories": [
            {
                "paths": list(section.paths),
                "template": section.memory.template,
                "level": section.memory.level,
                "states": [
                    {
                        "name": s.name,
                        "shape": [str(d) for d in shape_of(found.shapes, s).shape],
                        "init": init_text(found.program, s),
                        "reset": reset_text(s),
                        "clock": clock_text(found.program, s),
                        "shared": s.shared,
                    }
                    for s in section.states
                ],
                "equations": text_lines(section.math),
                "where": where_lines(section.math),
                "notes": list(section.math.notes),
                "latex": latex_lines(section.math),
                "loops": list(section.loops),
            }
            for section in found.sections
        ],
        "losses": text_lines(found.losses),
        "loops": [
            {
                "words": loop.words,
                "states": list(c.states) if c is not None else [],
                "class": c.kind if c is not None else None,
                "why": c.why if c is not None else None,
                "span": str(c.span) if c is not None and not c.span.is_none else None,
                "hint": (c.hint or None) if c is not None else None,
            }
            for loop in found.loops
            for c in [loop.recurrence]
        ],
        "cost": {
            "operations": {f"every {period}": dim_text(n) for period, n in found.cost.operations},
            "state": dim_text(found.cost.state),
            "hidden": dim_text(found.cost.hidden),
            "anchors": dim_text(found.cost.anchored),
            "parameters": dim_text(found.cost.parameters),
        },
        "levels": [
            {"name": v.name, "base": v.base, "period": v.period, "optimizer": v.optimizer_name}
            for v in found.program.levels
        ],
        "notes": list(found.notes),
    }


def shape_of(shapes: Program, state: StateDecl) -> Type:
    """The type of a state in the program with symbols for sizes, if it is there."""
    return next((s.type for s in shapes.states if s.name == state.name), state.type)


def short_states(section: Section) -> dict[str, str]:
    """The names by which the equations call the states."""
    return short_names([s.name for s in section.states])
