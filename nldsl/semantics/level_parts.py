"""What a program is made of: the states of a memory that tick together are one part, each parameter is another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from nldsl.dims import Dim
from nldsl.ir.ops import product
from nldsl.ir.program import MemoryInfo, ParamDecl, Program, StateDecl
from nldsl.ir.types import BATCH
from nldsl.semantics.level_clock import Rate, Rates
from nldsl.source import Span

__all__ = ["ParamBox", "Part", "StateBox", "parts_of"]


@dataclass(frozen=True)
class StateBox:
    """A state. `axes` are the copies it exists in: names and sizes. `period` counts tokens, 0 for a state that never
    changes; `reset`: sequence, clock or never."""

    name: str
    label: str
    shape: tuple[str, ...] = ()
    axes: tuple[tuple[str, str], ...] = ()
    period: int = 1
    reset: str = "sequence"
    reset_period: int = 0
    anchors: tuple[int, ...] = ()
    shared: bool = False
    hidden: bool = False


@dataclass(frozen=True)
class ParamBox:
    """A parameter. `size` counts entries, 0 where it is not known; `reached`: the gradient of a loss arrives."""

    name: str
    label: str
    shape: tuple[str, ...] = ()
    axes: tuple[tuple[str, str], ...] = ()
    level: str = ""
    initializer: str = ""
    size: int = 0
    reached: bool = True


@dataclass(frozen=True)
class Part:
    id: str
    kind: str
    path: str
    label: str
    rate: Rate
    template: str = ""
    copies: str = ""
    source: str = ""
    states: tuple[StateBox, ...] = field(default=())
    params: tuple[ParamBox, ...] = field(default=())


def parts_of(program: Program, rates: Rates) -> tuple[list[Part], dict[str, str]]:
    """The parts in the order of the declarations, and the part of every state (`state:S`) and parameter (`param:w`)."""
    infos = {m.path: m for m in program.memories}
    root = next((m.path for m in program.memories if m.kind == "model"), "")
    owners = _owners(program)
    part_of: dict[str, str] = {}
    groups: dict[tuple[str, Rate], list[StateDecl]] = {}
    for state in program.states:
        if state.name not in rates.carriers:
            groups.setdefault((owners[state.name], rates.states[state.name]), []).append(state)
    parts = []
    for (owner, rate), members in groups.items():
        alone = len([1 for o, _ in groups if o == owner]) == 1
        kind = "buffer" if rate.kind == "nonparametric" else "memory"
        id = f"{kind}:{owner}" if alone else f"{kind}:{owner}:{rate.kind}-{rate.period}.{rate.order}"
        part_of.update({f"state:{s.name}": id for s in members})
        info = infos.get(owner)
        shown = _below(owner, root)
        label = _tail(shown) or (info.template if info else "") if kind == "memory" else ""
        label = label or ", ".join(list(dict.fromkeys(_past(s) for s in members))[:3])
        states = tuple(_state(s, rate, owner, program) for s in members)
        place = info.span if info else members[0].span
        parts.append(Part(id, kind, shown, label, rate, *_about(info), _place(place), states))
    in_body, in_init = ({i.attr("param") for i in body if i.op == "param"} for body in (program.body, program.init))
    for param in program.params:
        initial = param.name in in_init - in_body
        id = f"{'initial' if initial else 'weights'}:{param.name}"
        part_of[f"param:{param.name}"] = id
        owner = owners[param.name]
        about = _about(infos.get(owner)) if owner != root else ("", "")
        path = _below(owner, root)
        rate = rates.params[param.name]
        box = _param(param, owner, program)
        kind = "initial" if initial else "weights"
        label = _tail(path) if path and owner in infos and not initial else box.label
        parts.append(Part(id, kind, path, label, rate, *about, _place(param.span), (), (box,)))
    return parts, part_of


def _owners(program: Program) -> dict[str, str]:
    """Who owns each state and parameter: as declared there, else as the list of memories says."""
    owners = {name: m.path for m in program.memories for name in (*m.states, *m.params)}
    declared: Iterable[StateDecl | ParamDecl] = (*program.states, *program.params)
    paths = {m.path for m in program.memories}
    return {d.name: _round_of(d.name, d.owner if d.owner in paths else owners.get(d.name, d.owner)) for d in declared}


def _round_of(name: str, owner: str) -> str:
    """The owner, with the round of a loop in it that the name is from: `layers.0` for `layers.0.w`."""
    start = f"{owner}." if owner else ""
    inner = name.removeprefix(start).split(".")[:-1] if name.startswith(start) else []
    rounds = max((n + 1 for n, part in enumerate(inner) if part.isdigit()), default=0)
    return start + ".".join(inner[:rounds]) if rounds else owner


def _about(info: MemoryInfo | None) -> tuple[str, str]:
    if info is None:
        return "", ""
    return info.template, "" if info.copies is None else str(info.copies)


def _below(path: str, root: str) -> str:
    """A path without the name of the model."""
    if not root:
        return path
    return "" if path == root else path.removeprefix(root + ".")


def _tail(path: str) -> str:
    """The last name of a path; with the number of the round, if it ends in one."""
    head, _, last = path.rpartition(".")
    return f"{_tail(head)}.{last}" if last.isdigit() and head else last


def _past(state: StateDecl) -> str:
    """A buffer by what it holds: the compiler calls its own `window_x` and `prev_x`."""
    label = _tail(state.name)
    for prefix, words in (("window_", "window of "), ("prev_", "previous ")):
        if state.hidden and label.startswith(prefix):
            return words + re.sub(r"_\d+$", "", label.removeprefix(prefix))
    return label


def _place(span: Span) -> str:
    return "" if span.is_none else str(span)


def _shape(dims: tuple[Dim, ...]) -> tuple[str, ...]:
    return tuple(str(d) for d in dims)


def _axes(names: tuple[str, ...], program: Program) -> tuple[tuple[str, str], ...]:
    return tuple((a, str(program.axis_size(a) or a)) for a in names if a != BATCH)


def _state(state: StateDecl, rate: Rate, owner: str, program: Program) -> StateBox:
    label = state.name.removeprefix(owner + ".") if owner else state.name
    axes = _axes(state.type.axes, program)
    every = state.reset.clock.period if state.reset.clock else 0
    period = 0 if rate.kind == "frozen" else state.clock.period if state.clock else 1
    return StateBox(
        state.name,
        label,
        _shape(state.type.shape),
        axes,
        period,
        state.reset.kind,
        every,
        (),
        state.shared,
        state.hidden,
    )


def _param(param: ParamDecl, owner: str, program: Program) -> ParamBox:
    label = param.name.removeprefix(owner + ".") if owner else param.name
    size = product(param.type.shape)
    for axis in param.type.axes:
        size = size * (program.axis_size(axis) or 1)
    values = ", ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in param.initializer.values)
    how = f"{param.initializer.kind}({values})" if param.initializer.kind != "values" else "given values"
    return ParamBox(
        param.name,
        label,
        _shape(param.type.shape),
        _axes(param.type.axes, program),
        param.level,
        how,
        size if isinstance(size, int) else 0,
    )
