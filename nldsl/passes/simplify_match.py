"""What a simplification rule sees, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.ir.program import Instr
from nldsl.ir.types import Type
from nldsl.source import Span

MAX_DEPTH = 12  # of rules that emit operations to which rules apply


class Emitter(Protocol):
    """Makes operations after the rules; knows how often values are used."""

    @property
    def sizes(self) -> dict[str, Dim]: ...
    @property
    def uses(self) -> Any: ...
    def emit(
        self, builder: Builder, op: str, args: tuple[int, ...], attrs: dict[str, Any], name: str, span: Span, depth: int
    ) -> int: ...


@dataclass(frozen=True)
class Match:
    """An operation that is about to be made; ``type`` is what it would have."""

    builder: Builder
    emitter: Emitter
    op: str
    args: tuple[int, ...]
    attrs: dict[str, Any]
    type: Type
    span: Span
    depth: int

    def instr(self, i: int) -> Instr:
        return self.builder.instrs[self.args[i]]

    def of(self, value: int) -> Instr:
        return self.builder.instrs[value]

    def emit(self, op: str, *args: int, **attrs: Any) -> int:
        return self.emitter.emit(self.builder, op, args, attrs, "", self.span, self.depth + 1)

    def const(self, value: float) -> int:
        return self.builder.const(value, self.span)

    def same(self, value: int) -> int | None:
        """``value`` in place of the operation, if it has its shape and kind."""
        type = self.builder.type(value)
        return value if (type.shape, type.kind) == (self.type.shape, self.type.kind) else None

    def factor(self, number: float) -> int:
        """A number of the kind of the operation's result."""
        return self.const(int(number) if self.type.kind == "int" else float(number))

    def full(self, number: float) -> int:
        """The operation's result filled with a number."""
        value = self.factor(number)
        return self.emit("broadcast", value, shape=self.type.shape) if self.type.shape else value

    def single(self, value: int) -> bool:
        """Whether this is the only use of a value, so that it need not be kept."""
        return bool(self.emitter.uses[value] == 1)

    def number(self, value: int) -> float | int | None:
        """The number of which ``value`` is full, if it is a constant."""
        instr = self.of(value)
        while instr.op in ("broadcast", "reshape"):
            instr = self.of(instr.args[0])
        return instr.attr("value") if instr.op == "const" else None

    def scalar(self, value: int) -> int | None:
        """The scalar that was stretched to ``value``, or ``value`` if it is one."""
        while self.of(value).op in ("broadcast", "reshape") and self.builder.type(value).shape:
            value = self.of(value).args[0]
        return None if self.builder.type(value).shape else value


@dataclass(frozen=True)
class Rule:
    """A row: ``text`` is the rewrite; ``rewrite`` returns None where it does not apply."""

    name: str
    text: str
    ops: frozenset[str]
    rewrite: Callable[[Match], int | None]


def rule(name: str, text: str, where: str, rewrite: Callable[[Match], int | None]) -> Rule:
    """A row for the operations listed in ``where``."""
    names = frozenset(where.split())
    assert names <= ops.ALL_OPS
    return Rule(name, text, names, rewrite)
