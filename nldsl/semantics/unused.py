"""Parameters, states and inputs that no result was computed from: a wrong name, or something left over. Such a
parameter has no gradient, which distributed training takes for an error much later. States that are assigned are
results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.frontend import ast
from nldsl.ir.demand import reachable
from nldsl.ir.program import InputDecl, Instr, ParamDecl, Program, StateDecl
from nldsl.source import Span

__all__ = ["report_unused"]

Declared = ParamDecl | StateDecl | InputDecl
"""A member of a program."""


def report_unused(program: Program, decl: ast.Unit, is_open: bool, bag: DiagnosticBag) -> None:
    """Warn about what the program declares and no output, loss or logged value depends on.

    ``is_open``: elaborated for all sizes, so that what depends on a static parameter is not known. Then, and for a
    memory by itself (whose methods are for others to call), a member is unused where the declaration never names it.
    Elsewhere members of other units of the file are looked at too; a place that is unrolled, or used several times, is
    unused where all its uses are.
    """
    found: dict[Span, str] = {}
    live: set[Span] = set()
    assigned = {name for name, _ in program.updates}
    if is_open or decl.keyword == "memory":
        for_others = decl.keyword == "memory" and not any(isinstance(m, ast.Method) for m in decl.members)
        named = {name for member in decl.members for name in _mentions(member)}
        own: list[Declared] = [*program.params, *program.states]
        own += [] if decl.keyword == "memory" else program.inputs
        members = (
            (kind, m, for_others or _short(m) in named)
            for kind, m in _declared(own)
            if decl.span.start <= m.span.start < decl.span.end
        )
    else:
        used = _used(program)
        all_of_it: list[Declared] = [*program.params, *program.states, *(i for i in program.inputs if not i.ahead)]
        members = ((kind, m, (kind, m.name) in used) for kind, m in _declared(all_of_it))
    for kind, member, is_used in members:
        if member.span.is_none or member.span.file.path != decl.span.file.path:
            continue
        if is_used or member.name in assigned:
            live.add(member.span)
        else:
            found.setdefault(member.span, f"the {_SHOWN[kind]} `{_short(member)}` is not used: no output depends on it")
    for span, text in found.items():
        if span not in live:
            notes = ("it has no gradient, and an optimizer leaves it as it is",) if "parameter" in text else ()
            bag.warning("NL0505", span, text, notes=notes)


_SHOWN = {"param": "parameter", "state": "state", "input": "input"}


def _short(member: Declared) -> str:
    return member.name.rpartition(".")[2]


def _declared(members: Iterable[Declared]) -> Iterator[tuple[str, Declared]]:
    for member in members:
        if isinstance(member, StateDecl) and member.hidden:
            continue
        kind = "param" if isinstance(member, ParamDecl) else "state" if isinstance(member, StateDecl) else "input"
        yield kind, member


def _mentions(node: Any) -> Iterator[str]:
    """The names that a part of the syntax uses; what it declares is no use."""
    waiting = [node]
    while waiting:
        item = waiting.pop()
        if isinstance(item, ast.Name):
            yield item.id
        elif isinstance(item, ast.Target):
            yield from item.names
        elif isinstance(item, tuple):
            waiting.extend(item)
        elif is_dataclass(item) and not isinstance(item, Span):
            waiting.extend(getattr(item, f.name) for f in fields(item))


def _used(program: Program) -> set[tuple[str, str]]:
    """What results are computed from, at this tick or through states at later ones."""
    updates = dict(program.updates)
    waiting = [v for _, v in (*program.outputs, *program.losses, *program.probes)]
    found: set[int] = set()
    while waiting:
        found |= reachable(program.body, [v for v in waiting if v not in found])
        read = {name for kind, name in _leaves(program.body, found) if kind == "state"}
        waiting = [updates[s] for s in read if s in updates and updates[s] not in found]
    used = _leaves(program.body, found)
    initial = [s.init for s in program.states if ("state", s.name) in used]
    used |= _leaves(program.init, reachable(program.init, initial))
    return used | {("input", i.source) for i in program.inputs if i.ahead and ("input", i.name) in used}


_LEAVES = {"param": "param", "state": "state", "anchor": "state", "input": "input"}


def _leaves(body: tuple[Instr, ...], values: set[int]) -> set[tuple[str, str]]:
    """The parameters, states and inputs among some values."""
    return {(_LEAVES[i.op], i.attr(_LEAVES[i.op])) for v in values if (i := body[v]).op in _LEAVES}
