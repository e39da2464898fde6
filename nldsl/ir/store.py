"""A program's bodies as JSON and back: much faster to read than the text form, which is for people.

Only what passes change is stored: bodies, axes, and which value each state, update and result is. Declarations,
levels and optimizers are those of the program before the passes, which is at hand whenever a stored one is read.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

from nldsl.dims import Poly
from nldsl.ir.program import Axis, Instr, Program
from nldsl.ir.types import Clock, Type
from nldsl.source import NO_SPAN, SourceFile, Span

Plain = dict[str, Any]
RESULTS = ("updates", "outputs", "losses", "probes")


def to_plain(program: Program, before: Program) -> Plain | None:
    """What the passes made of ``before``, as JSON takes it; None where they changed a declaration."""
    same = program.inputs == before.inputs and program.params == before.params
    names = [s.name for s in program.states]
    if not same or names != [s.name for s in before.states]:
        return None
    if any(replace(a, init=0) != replace(b, init=0) for a, b in zip(program.states, before.states, strict=True)):
        return None
    types: dict[Type, int] = {}
    paths = {path: number for number, path in enumerate(_files(before))}
    return {
        "axes": [[a.name, _out(a.size)] for a in program.axes],
        "body": [_instr(i, types, paths) for i in program.body],
        "init": [_instr(i, types, paths) for i in program.init],
        "types": [[[_out(s) for s in t.shape], list(t.axes), t.kind] for t in types],
        "states": [s.init for s in program.states],
        **{key: [list(pair) for pair in getattr(program, key)] for key in RESULTS},
    }


def from_plain(found: Plain, before: Program) -> Program:
    """The inverse; raises KeyError, ValueError, TypeError or IndexError for what ``to_plain`` did not make."""
    types = [Type(tuple(_in(s) for s in shape), tuple(axes), kind) for shape, axes, kind in found["types"]]
    files = list(_files(before).values())
    if len(found["states"]) != len(before.states):
        raise ValueError("the stored program has other states")
    results: dict[str, Any] = {key: tuple((name, value) for name, value in found[key]) for key in RESULTS}
    return replace(
        before,
        axes=tuple(Axis(name, _in(size)) for name, size in found["axes"]),
        body=tuple(_read(row, types, files) for row in found["body"]),
        init=tuple(_read(row, types, files) for row in found["init"]),
        states=tuple(replace(s, init=init) for s, init in zip(before.states, found["states"], strict=True)),
        **results,
    )


def _files(program: Program) -> dict[str, SourceFile]:
    """The files that a program came from, in a fixed order."""
    return {span.file.path: span.file for span in spans_of(program)}


def spans_of(program: Program) -> list[Span]:
    """Where everything in a program came from, in a fixed order."""
    spans = [i.span for i in (*program.body, *program.init)]
    return spans + [s.span for s in program.states] + [p.span for p in program.params]


def _instr(instr: Instr, types: dict[Type, int], paths: dict[str, int]) -> list[Any]:
    guard = None if instr.guard is None else [instr.guard.period, instr.guard.start]
    file = None if instr.span.is_none else paths.get(instr.span.file.path)
    span = None if file is None else [file, instr.span.start, instr.span.end]
    kind = types.setdefault(instr.type, len(types))
    return [instr.op, instr.args, [[k, _out(v)] for k, v in instr.attrs], kind, guard, instr.name, span]


def _read(row: list[Any], types: list[Type], files: list[SourceFile]) -> Instr:
    op, args, attrs, kind, guard, name, span = row
    return Instr(
        op,
        tuple(args),
        tuple((k, _in(v)) for k, v in attrs),
        types[kind],
        None if guard is None else Clock(*guard),
        name,
        NO_SPAN if span is None else Span(files[span[0]], span[1], span[2]),
    )


def plain(value: Any) -> Any:
    """A value as JSON takes it: numbers, texts, None, types, clocks, sizes, tuples of these; raises TypeError."""
    return _out(value)


def restored(found: Any) -> Any:
    """The inverse of ``plain``; raises ValueError or TypeError for what it did not make."""
    return _in(found)


def _out(value: Any) -> Any:
    """Numbers, texts and None are themselves; the rest is a list that begins with its kind."""
    if isinstance(value, Poly):
        return ["poly", [[[list(p) for p in m], str(c)] for m, c in value.terms]]
    if isinstance(value, tuple):
        return ["tuple", [_out(v) for v in value]]
    if isinstance(value, Clock):
        return ["clock", value.period, value.start]
    if isinstance(value, Type):
        return ["type", [_out(s) for s in value.shape], list(value.axes), value.kind]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"no stored form for {type(value).__name__}")


def _in(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind == "tuple":
        return tuple(_in(v) for v in rest[0])
    if kind == "clock":
        return Clock(*rest)
    if kind == "type":
        return Type(tuple(_in(s) for s in rest[0]), tuple(rest[1]), rest[2])
    if kind == "poly":
        return Poly(tuple((tuple((n, p) for n, p in m), _whole(Fraction(c))) for m, c in rest[0]))
    raise ValueError(f"no such kind of value: {kind}")


def _whole(number: Fraction) -> int | Fraction:
    return int(number) if number.denominator == 1 else number
