"""Derivatives: every ``grad`` becomes the instructions of its reverse sweep.

Needs: any verified program. Guarantees: no ``grad`` is left, the meaning is the same (an operand that does not
influence the loss has derivative zero), instructions of a sweep are guarded like the ``grad`` and have its span.
No ``fixed`` is left either: it is a constant for every ``grad``, and nothing else.

    grad(loss, x1..xn; index=i) --> vjp({loss: 1}, [x1..xn], lanes=axes(loss))[i]

Operands are rebuilt before their users, so the inner of two nested derivatives is expanded first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nldsl.dims import Dim
from nldsl.ir.build import Builder
from nldsl.ir.program import Axis, Instr, Program
from nldsl.ir.types import BATCH, Clock
from nldsl.passes.base import copy, rebuild, with_axes, with_bodies
from nldsl.passes.vjp import influenced, vjp
from nldsl.passes.vjp_site import zeros
from nldsl.source import Span

__all__ = ["Derive", "DeriveError", "vjp"]


class DeriveError(Exception):
    """A derivative that cannot be written per lane; a fault of the program, at ``span``."""

    def __init__(self, message: str, span: Span) -> None:
        super().__init__(message)
        self.span = span


@dataclass(frozen=True)
class Derive:
    """Expands every ``grad``."""

    name: ClassVar[str] = "derive"

    def apply(self, program: Program) -> Program:
        if all(i.op not in ("grad", "fixed") for i in (*program.body, *program.init)):
            return program
        axes = list(program.axis_names())
        added: dict[str, Axis] = {}
        body, init = Builder(axes), Builder(axes)
        body_values = rebuild(program.body, body, _Expansion(program, program.body, added))
        init_values = rebuild(program.init, init, _Expansion(program, program.init, added))
        return _unfixed(with_axes(with_bodies(program, body, body_values, init, init_values), added))


def _unfixed(program: Program) -> Program:
    """What was a constant for the program's own derivatives is none for those of its training."""
    if all(i.op != "fixed" for i in (*program.body, *program.init)):
        return program
    axes = list(program.axis_names())
    body, init = Builder(axes), Builder(axes)
    body_values = rebuild(program.body, body, _value_itself)
    init_values = rebuild(program.init, init, _value_itself)
    return with_bodies(program, body, body_values, init, init_values)


def _value_itself(builder: Builder, instr: Instr, args: tuple[int, ...]) -> int:
    return args[0] if instr.op == "fixed" else copy(builder, instr, args)


class _Expansion:
    """The rewrite of one body; remembers sweeps, since one sweep serves every ``index``."""

    def __init__(self, program: Program, body: tuple[Instr, ...], added: dict[str, Axis]) -> None:
        self.program = program
        self.added = added
        self.done = 0
        self.asked = _needed(body, {x for instr in body if instr.op == "grad" for x in instr.args[1:]})
        self.sweeps: dict[tuple[tuple[int, ...], Clock | None], list[int | None]] = {}

    def __call__(self, builder: Builder, instr: Instr, args: tuple[int, ...]) -> int:
        number, self.done = self.done, self.done + 1
        if instr.op != "grad":
            return copy(builder, instr, args)
        result = self.expanded(builder, instr, args)
        if number not in self.asked:
            return result
        # It may have come out as a value that was there before (v for S @ v), on which another loss depends without
        # depending on this derivative. Where a variable is made from it, it must be a value of its own.
        return builder.emit("broadcast", result, span=instr.span, shape=builder.type(result).shape)

    def expanded(self, builder: Builder, instr: Instr, args: tuple[int, ...]) -> int:
        key = args, instr.guard
        if key not in self.sweeps:
            self.sweeps[key] = self.sweep(builder, args[0], args[1:], instr.span)
        index = instr.attr("index")
        result = self.sweeps[key][index]
        return zeros(builder, builder.type(args[1 + index]).shape, instr.span) if result is None else result

    def sweep(self, builder: Builder, loss: int, xs: tuple[int, ...], span: Span) -> list[int | None]:
        lanes = builder.type(loss).axes
        crossed = self.crossed(builder, loss, xs, lanes, span)
        seed = builder.const(1.0, span)
        if not crossed:
            return vjp(builder, {loss: seed}, xs, lanes, span)
        # The lanes of the loss share values with each other. Give the lanes of the loss axes of their own, so that
        # what other lanes contribute to lane h of the loss is not lost; then take lane h of each.
        renamed = {axis: self.fresh(builder, axis) for axis in crossed}
        for axis, own in renamed.items():
            row = _unit_rows(builder, self.added[own], span)
            both = builder.emit("spread", builder.emit("spread", row, axis=axis, span=span), axis=own, span=span)
            seed = builder.emit("mul", seed, both, span=span)
        found = vjp(builder, {loss: seed}, xs, tuple(renamed.get(a, a) for a in lanes), span)
        for axis, own in renamed.items():
            found = [None if x is None else self.lane_of(builder, x, own, axis, span) for x in found]
        return found

    def lane_of(self, builder: Builder, value: int, own: str, axis: str, span: Span) -> int:
        """Lane h of ``axis`` takes lane h of ``own``."""
        if own not in builder.type(value).axes:
            return value
        rows = builder.emit("collect", value, axis=own, size=self.added[own].size, span=span)
        return builder.emit("spread", rows, axis=axis, span=span)

    def crossed(
        self, builder: Builder, loss: int, xs: tuple[int, ...], lanes: tuple[str, ...], span: Span
    ) -> list[str]:
        """The axes of the loss over which a value on the way from ``xs`` was combined."""
        found: dict[str, None] = {}
        for value in influenced(builder, [loss], xs):
            instr = builder.instrs[value]
            if instr.op not in ("collect", "axis_sum", "batch_mean"):
                continue
            axis = BATCH if instr.op == "batch_mean" else instr.attr("axis")
            mixes = instr.op == "axis_sum" or axis in builder.type(instr.args[0]).axes
            # a value that was asked for itself ends the way, if nothing else was asked for that comes before it
            if axis in lanes and mixes and (value not in xs or influenced(builder, instr.args, xs)):
                found[axis] = None
        if BATCH in found:
            raise DeriveError("the loss of one sequence depends on other sequences of the batch", span)
        return list(found)

    def fresh(self, builder: Builder, axis: str) -> str:
        name, n = f"{axis}_lane", 2
        while name in builder.axes:
            name, n = f"{axis}_lane{n}", n + 1
        builder.axes.append(name)
        self.added[name] = Axis(name, self.size(axis))
        return name

    def size(self, axis: str) -> Dim | None:
        return self.added[axis].size if axis in self.added else self.program.axis_size(axis)


def _needed(body: tuple[Instr, ...], values: set[int]) -> set[int]:
    """``values`` and all that they are computed from."""
    found = set(values)
    for value in range(len(body) - 1, -1, -1):
        if value in found:
            found.update(body[value].args)
    return found


def _unit_rows(builder: Builder, axis: Axis, span: Span) -> int:
    """The identity matrix of the size of an axis."""
    assert axis.size is not None
    return builder.emit("one_hot", builder.emit("iota", n=axis.size, span=span), n=axis.size, span=span)
