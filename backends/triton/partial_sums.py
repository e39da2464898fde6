"""Sums over lanes, left to the host: each program writes its part, and the parts are added up after the launch.

Linear operations and sums over lanes may change places. ``PartialSums.of(value)`` is a value whose sum over lanes is
``value``: the sums are taken off, wherever they stand below linear operations.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.ir.program import Instr
from nldsl.ir.types import Type

_LINEAR = frozenset("neg reshape sum broadcast slice pad concat add sub collect spread stop_grad when axis_sum".split())
_PRODUCT = frozenset({"mul", "einsum"})


class PartialSums:
    """``body`` grows by what takes the place of sums over ``lanes``."""

    def __init__(self, body: tuple[Instr, ...], lanes: tuple[str, ...], order: tuple[str, ...]) -> None:
        self.body = list(body)
        self.lanes = lanes
        self.order = order
        self.summed = [False] * len(body)
        for value, instr in enumerate(body):
            own = instr.op == "axis_sum" and instr.attr("axis") in lanes and bool(instr.args)
            self.summed[value] = own or any(self.summed[a] for a in instr.args)
        self.known: dict[int, int] = {}

    def of(self, value: int) -> int:
        """A value whose sum over the lanes that it has more is ``value``; itself where that cannot be had."""
        found = self._of(value)
        return value if found is None else found

    def _of(self, value: int) -> int | None:
        if value in self.known:
            return self.known[value]
        instr = self.body[value]
        found: int | None = None
        if not self.summed[value]:
            return None
        if instr.op == "axis_sum" and instr.attr("axis") in self.lanes:
            (arg,) = instr.args
            if instr.attr("axis") in self.body[arg].type.axes:
                below = self._of(arg)
                found = arg if below is None else below
        elif instr.op in _LINEAR:
            zero = [self._zero(a) for a in instr.args]
            parts = [a if z else self._of(a) for a, z in zip(instr.args, zero, strict=True)]
            pairs = [(a, p) for a, p, z in zip(instr.args, parts, zero, strict=True) if not z]
            if pairs and len({self._more(a, p) for a, p in pairs}) == 1 and all(p is not None for p in parts):
                found = self._with(instr, [p for p in parts if p is not None])
        elif instr.op in _PRODUCT:
            parts = [self._of(a) for a in instr.args]
            whole = [n for n, p in enumerate(parts) if p is not None]
            if len(whole) == 1 and not any(self.summed[a] for n, a in enumerate(instr.args) if n not in whole):
                args = [a if p is None else p for a, p in zip(instr.args, parts, strict=True)]
                found = self._with(instr, args)
        if found is not None:
            self.known[value] = found
        return found

    def _zero(self, value: int) -> bool:
        """Whether a value is 0, whatever lanes it is summed over."""
        instr = self.body[value]
        if instr.op == "const":
            return bool(instr.attr("value") == 0)
        return instr.op in ("broadcast", "reshape", "axis_sum", "collect") and self._zero(instr.args[0])

    def _more(self, value: int, part: int | None) -> frozenset[str]:
        """The lanes over which a part is to be summed."""
        return frozenset() if part is None else frozenset(self.body[part].type.axes) - set(self.body[value].type.axes)

    def _with(self, instr: Instr, args: list[int]) -> int:
        """The same operation of other operands, which have more lanes."""
        axes = {a for arg in args for a in self.body[arg].type.axes if a in self.lanes} | set(instr.type.axes)
        type = Type(instr.type.shape, tuple(sorted(axes, key=self.order.index)), instr.type.kind)
        self.body.append(replace(instr, args=tuple(args), type=type))
        self.summed.append(False)
        return len(self.body) - 1
