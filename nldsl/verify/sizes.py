"""Sizes to verify a program with: small, unequal, and dividing one another as the program's own defaults do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticError
from nldsl.frontend import ast
from nldsl.ir.program import Program
from nldsl.standalone import Loaded, Request, load, unit_of

MOST_TICKS = 160
LEAST_TICKS = 9
_PERIODS = 2.5
_SMALL = 8  # a default up to this is a number of heads, layers or parts


def load_small(request: Request) -> Loaded:
    """The program with the smallest sizes that it accepts; sizes that the request gives are kept.

    Raises DiagnosticError if it accepts none.
    """
    unit = unit_of(request)
    given = dict(request.dims)
    free = {p.name: value for p in unit.params if p.name not in given and (value := _default(p)) is not None}
    for dims in _candidates(free):
        try:
            return load(_with(request, {**given, **dims}))
        except DiagnosticError:
            continue
    return load(request)


def _with(request: Request, dims: dict[str, Any]) -> Request:
    return replace(request, dims=tuple(sorted(dims.items())))


def _default(param: ast.Param) -> int | None:
    """The default of a size, if it is written as a number."""
    is_dim = isinstance(param.type, ast.NamedType) and param.type.name == "dim"
    value = getattr(param.default, "value", None)
    return value if is_dim and isinstance(value, int) and not isinstance(value, bool) else None


def _candidates(free: dict[str, int]) -> Iterator[dict[str, int]]:
    """Ever larger sizes. Equal defaults stay equal, different ones different, small ones divide large ones."""
    large = sorted({v for v in free.values() if v > _SMALL})
    if not large:
        return
    for heads, unit in ((2, 4), (2, 8), (4, 8)):
        sizes = {value: unit * (i + 2) for i, value in enumerate(large)}
        few = {v: min(heads, v) for v in free.values() if v <= _SMALL}
        yield {name: sizes.get(value, few.get(value, value)) for name, value in free.items()}
    powers = {value: max(8, value // 16) for value in large}
    yield {name: powers.get(value, value) for name, value in free.items()}


def largest_period(program: Program) -> int:
    """The period of the slowest clock inside a sequence."""
    periods = [1]
    for instr in program.body:
        if instr.op == "anchor":
            periods.append(instr.attr("period"))
        elif instr.op == "when":
            periods.append(instr.attr("clock").period)
        if instr.guard is not None:
            periods.append(instr.guard.period)
    periods += [s.reset.clock.period for s in program.states if s.reset.clock is not None]
    return max(periods)


def ticks_for(program: Program, most: int = MOST_TICKS) -> int:
    """Ticks that cover the slowest clock two and a half times, within a bound."""
    return max(LEAST_TICKS, min(most, int(_PERIODS * largest_period(program) + 0.5)))
