"""Sizes to verify a program with: small, unequal, and dividing one another as the program's own defaults do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nldsl.diagnostics.diagnostic import DiagnosticError
from nldsl.frontend import ast
from nldsl.ir.program import Program
from nldsl.standalone import Loaded, Request, load, unit_of

MOST_TICKS = 160
LEAST_TICKS = 9
_PERIODS = 2.5
_SMALL = 8  # a default up to this is a number of heads, layers or parts
_SHORT = 40  # a period or a window up to this is tried as it is


def load_small(request: Request) -> Loaded:
    """The program with the smallest sizes that it accepts; sizes that the request gives are kept.

    Raises DiagnosticError if it accepts none.
    """
    unit = unit_of(request)
    given = dict(request.dims)
    free = {p.name: value for p in unit.params if p.name not in given and (value := _default(p, "dim")) is not None}
    long = {p.name: value for p in unit.params if p.name not in given and (value := _default(p, "int")) is not None}
    spans = sorted({v for v in long.values() if v > _SHORT})
    short = {name: 10 * (spans.index(v) + 1) + 2 for name, v in long.items() if v > _SHORT}
    for counts in [short, {}] if short else [{}]:
        for dims in _candidates(free):
            if not dims and not counts:
                continue
            try:
                return load(replace(request, dims=tuple(sorted({**given, **dims, **counts}.items()))))
            except DiagnosticError:
                continue
    return load(request)


def _default(param: ast.Param, kind: str) -> int | None:
    """The default of a parameter of that kind, if it is written as a number."""
    of_kind = isinstance(param.type, ast.NamedType) and param.type.name == kind
    text = param.default.text if isinstance(param.default, ast.Number) else ""
    return int(text) if of_kind and text.isdecimal() else None


def _candidates(free: dict[str, int]) -> Iterator[dict[str, int]]:
    """Ever larger sizes, at last those of the program. Equal defaults stay equal, small ones divide large ones."""
    large = sorted({v for v in free.values() if v > _SMALL})
    for heads, unit in ((2, 4), (2, 8), (4, 8)) if large else ():
        sizes = {value: unit * (i + 2) for i, value in enumerate(large)}
        few = {v: min(heads, v) for v in free.values() if v <= _SMALL}
        yield {name: sizes.get(value, few.get(value, value)) for name, value in free.items()}
    if large:
        powers = {value: max(8, value // 16) for value in large}
        yield {name: powers.get(value, value) for name, value in free.items()}
    yield {}


def periods_of(program: Program) -> tuple[int, ...]:
    """The periods of the clocks inside a sequence, in order."""
    found = {1}
    for instr in program.body:
        if instr.op == "anchor":
            found.add(instr.attr("period"))
        elif instr.op == "when":
            found.add(instr.attr("clock").period)
        if instr.guard is not None:
            found.add(instr.guard.period)
    found.update(s.reset.clock.period for s in program.states if s.reset.clock is not None)
    return tuple(sorted(found))


def segment_lengths(program: Program) -> tuple[int, ...]:
    """How many ticks the loops that the compiler made of a program do at once; never part of its meaning."""
    from nldsl.ir.chunk import ChunkLoop
    from nldsl.passes.choose_chunk import ChunkOptions, chunk
    from nldsl.passes.schedule import schedule

    planned, _ = chunk(schedule(program), ChunkOptions())
    return tuple(sorted({phase.size for phase in planned.all_phases() if isinstance(phase, ChunkLoop)}))


def ticks_for(program: Program, most: int = MOST_TICKS) -> int:
    """Ticks that cover the slowest clock two and a half times, more than one segment and any window, within a bound."""
    periods = int(_PERIODS * max(periods_of(program)) + 0.5)
    buffers = [s.type.shape[0] for s in program.states if s.hidden and s.type.shape]  # windows of past values
    longest = max([*segment_lengths(program), *(n for n in buffers if isinstance(n, int))], default=0)
    return max(LEAST_TICKS, min(most, max(periods, longest + LEAST_TICKS if longest else 0)))
