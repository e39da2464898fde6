"""One instruction on the way back, and what its derivative rule may do there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.dims import Dim
from nldsl.ir.build import Builder
from nldsl.ir.clocks import implies
from nldsl.ir.program import Instr
from nldsl.source import Span


@dataclass(frozen=True)
class Site:
    """One instruction on the way back: what its rule sees."""

    builder: Builder
    value: int
    cotangent: int
    lanes: tuple[str, ...]
    span: Span

    @property
    def instr(self) -> Instr:
        return self.builder.instrs[self.value]

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.instr.type.shape

    def attr(self, key: str) -> Any:
        return self.instr.attr(key)

    def arg_shape(self, i: int) -> tuple[Dim, ...]:
        return self.builder.type(self.instr.args[i]).shape

    def arg(self, i: int) -> int:
        """Operand ``i``, usable under the guard of the cotangent."""
        return available(self.builder, self.instr.args[i], self.span)

    @property
    def out(self) -> int:
        return available(self.builder, self.value, self.span)

    def emit(self, op: str, *args: int, **attrs: Any) -> int:
        return self.builder.emit(op, *args, span=self.span, **attrs)

    def const(self, value: float) -> int:
        return self.builder.const(value, self.span)

    def mul(self, left: int, right: int) -> int:
        return self.emit("mul", left, right)

    def scaled(self, value: int, factor: float) -> int:
        return value if factor == 1.0 else self.mul(self.const(factor), value)

    def stretched(self, value: int, shape: tuple[Dim, ...]) -> int:
        """``value`` broadcast to ``shape``."""
        return value if self.builder.type(value).shape == shape else self.emit("broadcast", value, shape=shape)

    def reshaped(self, value: int, shape: tuple[Dim, ...]) -> int:
        return value if self.builder.type(value).shape == shape else self.emit("reshape", value, shape=shape)


def zeros(builder: Builder, shape: tuple[Dim, ...], span: Span) -> int:
    """A tensor of zeros."""
    zero = builder.const(0.0, span)
    return builder.emit("broadcast", zero, span=span, shape=shape) if shape else zero


def available(builder: Builder, value: int, span: Span) -> int:
    """``value`` usable under the current guard: zero at the ticks at which it is not computed."""
    guard = builder.instrs[value].guard
    if implies(builder.guard, guard):
        return value
    return builder.emit("when", value, zeros(builder, builder.type(value).shape, span), span=span, clock=guard)
