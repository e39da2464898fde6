"""Printed IR read back: ``parse_program(print_program(p)) == p``. See ``print.py`` for the form.

Only the form is checked here; ``verify.py`` checks what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from nldsl.ir.print import MAIN
from nldsl.ir.program import (
    Axis,
    Initializer,
    InputDecl,
    Instr,
    Level,
    MemoryInfo,
    ParamDecl,
    Program,
    Reset,
    StateDecl,
)
from nldsl.ir.scan import Line, ParseError
from nldsl.ir.types import Clock

__all__ = ["ParseError", "parse_program"]


@dataclass
class _Parts:
    """What was read so far."""

    name: str = ""
    axes: list[Axis] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    inputs: list[InputDecl] = field(default_factory=list)
    params: list[ParamDecl] = field(default_factory=list)
    states: list[StateDecl] = field(default_factory=list)
    memories: list[MemoryInfo] = field(default_factory=list)
    bodies: dict[str, tuple[Instr, ...]] = field(default_factory=dict)
    pairs: dict[str, list[tuple[str, int]]] = field(
        default_factory=lambda: {"update": [], "output": [], "loss": [], "probe": []}
    )


def parse_program(text: str) -> Program:
    """The program of a text. Raises ParseError."""
    parts = _Parts()
    lines = (Line(line, n) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    for line in lines:
        keyword = line.word("name")
        if keyword in parts.pairs:
            label = line.name()
            line.need("=")
            parts.pairs[keyword].append((label, line.ref()))
        elif keyword in ("init", "body"):
            line.need("{")
            line.end()
            parts.bodies[keyword] = tuple(_body(lines))
            continue
        elif keyword in _DECLARATIONS:
            _DECLARATIONS[keyword](parts, line)
        else:
            raise ParseError(f"line {line.row}: no declaration begins with `{keyword}`")
        line.end()
    return Program(
        parts.name,
        tuple(parts.axes),
        tuple(parts.inputs),
        tuple(parts.params),
        tuple(parts.states),
        parts.bodies.get("body", ()),
        tuple(parts.pairs["update"]),
        tuple(parts.pairs["output"]),
        tuple(parts.pairs["loss"]),
        tuple(parts.pairs["probe"]),
        parts.bodies.get("init", ()),
        tuple(parts.levels),
        tuple(parts.memories),
    )


def _body(lines: Iterator[Line]) -> Iterator[Instr]:
    for expected, line in enumerate(lines):
        if line.take("}"):
            line.end()
            return
        if line.ref() != expected:
            raise ParseError(f"line {line.row}: expected value %{expected}")
        yield _instr(line)
    raise ParseError("a body has no end")


def _instr(line: Line) -> Instr:
    label = line.name() if line.take(":") else ""
    line.need("=")
    op = line.word("name")
    attrs = _attrs(line, op) if line.take("(") else ()
    args: list[int] = []
    while not line.take(":"):
        args.append(line.ref())
        if not line.at(":"):
            line.need(",")
    type = line.type()
    guard = Clock(line.integer(), line.take("start")) if line.take("@") else None
    line.end()
    return Instr(op, tuple(args), attrs, type, guard, label)


def _attrs(line: Line, op: str) -> tuple[tuple[str, Any], ...]:
    found: list[tuple[str, Any]] = []
    while not line.take(")"):
        word, following = line.peek(), line.peek(1)
        named = word is not None and word.kind == "name" and following is not None and following.text == "="
        if named:
            key = line.name()
            line.need("=")
        elif op in MAIN and not found:
            key = MAIN[op]
        else:
            raise line.fail("the name of an attribute")
        found.append((key, line.value()))
        if not line.at(")"):
            line.need(",")
    return tuple(sorted(found, key=lambda item: item[0]))


# ---------------------------------------------------------------- declarations


def _clauses(line: Line, **readers: Callable[[Line], Any]) -> dict[str, Any]:
    """What follows a declaration: ``, key value`` in any order."""
    found: dict[str, Any] = {}
    while line.take(","):
        key = line.word("name")
        if key not in readers:
            raise ParseError(f"line {line.row}: no clause `{key}` here")
        found[key] = readers[key](line)
    return found


def _names(line: Line) -> tuple[str, ...]:
    line.need("[")
    names: list[str] = []
    while not line.take("]"):
        names.append(line.name())
        if not line.at("]"):
            line.need(",")
    return tuple(names)


def _program(parts: _Parts, line: Line) -> None:
    parts.name = line.name()


def _axis(parts: _Parts, line: Line) -> None:
    parts.axes.append(Axis(line.name(), line.dim() if line.take("=") else None))


def _level(parts: _Parts, line: Line) -> None:
    name = line.name()
    line.need("=")
    line.need("every")
    period, base = line.integer(), line.name()
    clauses = _clauses(line, optimizer=Line.name)
    parts.levels.append(Level(name, base, period, None, clauses.get("optimizer", "")))


def _input(parts: _Parts, line: Line) -> None:
    name = line.name()
    line.need(":")
    parts.inputs.append(InputDecl(name, line.type(), **_clauses(line, source=Line.name, ahead=Line.integer)))


def _param(parts: _Parts, line: Line) -> None:
    name = line.name()
    line.need(":")
    type = line.type()
    line.need("=")
    kind = line.word("name")
    line.need("(")
    values: list[Any] = []
    while not line.take(")"):
        values.append(line.value())
        if not line.at(")"):
            line.need(",")
    initial = Initializer(kind, tuple(values))
    parts.params.append(ParamDecl(name, type, initial, **_clauses(line, level=Line.name, owner=Line.name)))


def _state(parts: _Parts, line: Line) -> None:
    name = line.name()
    line.need(":")
    type = line.type()
    line.need("=")
    init = line.ref()
    clauses = _clauses(
        line,
        reset=lambda x: Reset(x.name(), x.clock() if x.at("every") else None),
        owner=Line.name,
        shared=lambda x: True,
        hidden=lambda x: True,
        clock=Line.clock,
    )
    parts.states.append(StateDecl(name, type, init, **clauses))


def _memory(parts: _Parts, line: Line) -> None:
    path = line.name()
    line.need("=")
    kind, template = line.name(), line.name()
    clauses = _clauses(line, states=_names, params=_names, level=Line.name, copies=Line.dim)
    parts.memories.append(MemoryInfo(path, template, kind, **clauses))


_DECLARATIONS: dict[str, Callable[[_Parts, Line], None]] = {
    "program": _program,
    "axis": _axis,
    "level": _level,
    "input": _input,
    "param": _param,
    "state": _state,
    "memory": _memory,
}
