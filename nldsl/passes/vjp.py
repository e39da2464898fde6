"""Reverse mode on the graph: cotangents of seeds are carried back to the values asked for.

Axes. ``lanes`` are the axes over which the seeds are independent problems. The cotangent of a value has at most the
axes ``lanes ∪ axes(value)``; a contribution from an operation that works in further axes (the value was stretched to
them) is summed over these. A value that is the same in all ``lanes`` has a cotangent for each.

Guards. The cotangent of a guarded instruction is computed under its guard, together with the guard under which
``vjp`` was called. A contribution to a value of a faster clock is ``when(it, 0)``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.ir.clocks import implies, meet
from nldsl.ir.program import Instr
from nldsl.ir.types import Clock
from nldsl.passes.vjp_rules import differentiable, rule_of
from nldsl.passes.vjp_site import Site, zeros
from nldsl.source import NO_SPAN, Span


def influenced(builder: Builder, targets: Sequence[int], wrts: Sequence[int]) -> list[int]:
    """The values that depend on one of ``wrts`` (or are one) and on which a target depends, in order."""
    if not wrts:
        return []
    wanted = frozenset(wrts)
    lowest, cone, open_ = min(wrts), set(targets), list(targets)
    while open_:
        instr = builder.instrs[open_.pop()]
        if not differentiable(instr):
            continue
        for arg in instr.args:
            if arg >= lowest and arg not in cone:
                cone.add(arg)
                open_.append(arg)
    reached: set[int] = set()
    for value in sorted(cone):
        instr = builder.instrs[value]
        if value in wanted or (differentiable(instr) and any(a in reached for a in instr.args)):
            reached.add(value)
    return [value for value in sorted(reached) if builder.type(value).kind == "real"]


def vjp(
    builder: Builder, seeds: dict[int, int], wrts: Sequence[int], lanes: tuple[str, ...], span: Span = NO_SPAN
) -> list[int | None]:
    """The cotangent of each of ``wrts`` when the values ``seeds`` have the cotangents given there; None is zero.

    Everything is emitted under ``builder.guard``. A collect (or sum) over an axis of ``lanes`` is taken lane by
    lane: ``derive.py`` renames such an axis first where that would lose terms.
    """
    sweep = _Sweep(builder, lanes, span, builder.guard)
    try:
        return sweep.run(seeds, wrts)
    finally:
        builder.guard = sweep.base


class _Sweep:
    """The state of one reverse sweep."""

    def __init__(self, builder: Builder, lanes: tuple[str, ...], span: Span, base: Clock | None) -> None:
        self.builder = builder
        self.lanes = frozenset(lanes)
        self.lane_names = lanes
        self.span = span
        self.base = base
        self.first = len(builder.instrs)
        # each contribution with the clock at whose ticks it is known
        self.parts: dict[int, list[tuple[int, Clock | None]]] = defaultdict(list)

    def run(self, seeds: dict[int, int], wrts: Sequence[int]) -> list[int | None]:
        order = influenced(self.builder, list(seeds), wrts)
        relevant, wanted = frozenset(order), frozenset(wrts)
        results: dict[int, tuple[int, Clock | None]] = {}
        for value, cotangent in seeds.items():
            if value in relevant:
                self.parts[value].append((cotangent, self.builder.instrs[cotangent].guard))
        for value in reversed(order):
            total = self.total(value)
            if total is None:
                continue
            if value in wanted:
                results[value] = total, self.builder.guard
                self.name(total, value)
            self.propagate(value, total, relevant)
        self.builder.guard = self.base
        return [self.known(*results[w]) if w in results else None for w in wrts]

    def clock_of(self, value: int) -> tuple[Clock | None, Clock | None]:
        """The guard of the cotangent of ``value``; and, where both clocks have no common guard, the one left out."""
        guard = self.builder.instrs[value].guard
        try:
            return meet(self.base, guard), None
        except ValueError:
            return self.base, guard

    def total(self, value: int) -> int | None:
        """The sum of what reached ``value``, under its guard."""
        parts = self.parts.pop(value, [])
        if not parts:
            return None
        self.builder.guard, _ = self.clock_of(value)
        known = [self.known(part, clock) for part, clock in parts]
        total = known[0]
        for part in known[1:]:
            total = self.builder.emit("add", total, part, span=self.span)
        return total

    def known(self, part: int, clock: Clock | None) -> int:
        """``part`` at the ticks of ``clock``, zero at others."""
        if implies(self.builder.guard, clock):
            return part
        zero = zeros(self.builder, self.builder.type(part).shape, self.span)
        return self.builder.emit("when", part, zero, span=self.span, clock=clock)

    def propagate(self, value: int, total: int, relevant: frozenset[int]) -> None:
        instr = self.builder.instrs[value]
        guard, masked = self.clock_of(value)
        site = Site(self.builder, value, total, self.lane_names, self.span)
        for i, arg in enumerate(instr.args):
            if arg not in relevant or (rule := rule_of(instr, i)) is None:
                continue
            self.builder.guard = guard
            back = self.through_when(instr, i, total) if instr.op == "when" else self.fitted(rule(site, i), arg)
            if back is None:
                continue
            part = self.summed(back, instr, arg)
            if masked is not None:
                part = self.known(part, masked)
            self.parts[arg].append((part, guard))

    def through_when(self, instr: Instr, i: int, total: int) -> int | None:
        """``when(new, old; clock)``: the cotangent is that of ``new`` at the ticks of the clock, else of ``old``."""
        clock = instr.attr("clock")
        if i == 0:
            return total if implies(self.clock_of(instr.args[0])[0], clock) else self.known(total, clock)
        if implies(self.builder.guard, clock):
            return None
        zero = zeros(self.builder, self.builder.type(total).shape, self.span)
        return self.builder.emit("when", zero, total, span=self.span, clock=clock)

    def fitted(self, part: int, arg: int) -> int:
        """``part`` summed over the logical dims to which ``arg`` was stretched."""
        shape, wanted = self.builder.type(part).shape, self.builder.type(arg).shape
        if shape == wanted:
            return part
        lead = len(shape) - len(wanted)
        assert lead >= 0, f"cotangent of shape {shape} for a value of shape {wanted}"
        dims = tuple(i for i, size in enumerate(shape) if i < lead or (wanted[i - lead] == 1 and size != 1))
        if dims:
            part = self.builder.emit("sum", part, span=self.span, dims=dims)
        if self.builder.type(part).shape != wanted:
            part = self.builder.emit("reshape", part, span=self.span, shape=wanted)
        return part

    def summed(self, part: int, instr: Instr, arg: int) -> int:
        """``part`` summed over the axes in which ``instr`` works and ``arg`` does not exist."""
        kept = self.lanes | set(self.builder.type(arg).axes)
        for axis in working_axes(self.builder, instr):
            if axis not in kept:
                part = self.builder.emit("axis_sum", part, span=self.span, axis=axis)
        return part

    def name(self, total: int, value: int) -> None:
        """Call the cotangent of ``S`` ``d_S``, unless it is a value that existed before."""
        instr, made = self.builder.instrs[value], self.builder.instrs[total]
        hint = instr.name or next((str(v) for _, v in instr.attrs if instr.op in ops.LEAVES), "")
        if hint and total >= self.first and not made.name:
            self.builder.instrs[total] = replace(made, name=f"d_{hint.rpartition('.')[2]}")


def working_axes(builder: Builder, instr: Instr) -> tuple[str, ...]:
    """The axes in whose lanes an instruction reads its operands."""
    axes = tuple(axis for a in instr.args for axis in builder.type(a).axes)
    if instr.op == "axis_sum":  # an operand that is the same in all lanes counts once in each
        axes += (instr.attr("axis"),)
    return builder.order(axes)
