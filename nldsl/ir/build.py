"""Building bodies: type inference and hash-consing in one place, so that equal expressions exist once."""

from __future__ import annotations

from typing import Any

from nldsl.ir import ops
from nldsl.ir.program import Instr
from nldsl.ir.types import Clock, Type, axis_order
from nldsl.source import NO_SPAN, Span


class Builder:
    """Collects the instructions of one body. ``axes`` is the program's list of axis names (it may grow)."""

    def __init__(self, axes: list[str], instrs: list[Instr] | None = None, limit: int = 400_000) -> None:
        self.axes = axes
        self.instrs: list[Instr] = list(instrs or [])
        self.guard: Clock | None = None
        self.limit = limit
        self._known = {self._key(i.op, i.args, i.attrs, i.guard): n for n, i in enumerate(self.instrs)}

    def type(self, value: int) -> Type:
        return self.instrs[value].type

    def order(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return axis_order(names, tuple(self.axes))

    def leaf(self, op: str, type: Type, name: str = "", span: Span = NO_SPAN, **attrs: Any) -> int:
        """An instruction whose type is declared, not inferred: input, param, state, anchor."""
        return self._add(op, (), tuple(sorted(attrs.items())), type, name, span)

    def emit(self, op: str, *args: int, name: str = "", span: Span = NO_SPAN, **attrs: Any) -> int:
        """The value of ``op`` on these values; an equal instruction is reused. Raises ShapeError."""
        type = ops.infer(op, [self.instrs[a].type for a in args], attrs, self.order)
        return self._add(op, args, tuple(sorted(attrs.items())), type, name, span)

    def const(self, value: float | int, span: Span = NO_SPAN) -> int:
        return self.emit("const", value=value, span=span)

    def _add(
        self, op: str, args: tuple[int, ...], attrs: tuple[tuple[str, Any], ...], type: Type, name: str, span: Span
    ) -> int:
        guards = (None, self.guard) if self.guard else (None,)
        for guard in guards:  # a value computed at every tick serves a slower clock too
            found = self._known.get(self._key(op, args, attrs, guard))
            if found is not None:
                return found
        if len(self.instrs) >= self.limit:
            raise OverflowError(f"more than {self.limit} instructions")
        self.instrs.append(Instr(op, args, attrs, type, self.guard, name, span))
        self._known[self._key(op, args, attrs, self.guard)] = len(self.instrs) - 1
        return len(self.instrs) - 1

    @staticmethod
    def _key(op: str, args: tuple[int, ...], attrs: tuple[tuple[str, Any], ...], guard: Clock | None) -> Any:
        # 1 and 1.0 and True are equal in Python but not here
        return op, args, tuple((k, v, v.__class__) for k, v in attrs), guard
