"""How values lie in tensors: mapped axes in canonical order, then logical dims; and how operands are lined up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nldsl.backends.torch.names import short_names
from nldsl.backends.torch.target_ast import ATOM, Expr, tuple_of
from nldsl.dims import Dim
from nldsl.ir.program import Program
from nldsl.ir.types import BATCH, TIME, Type, axis_order

_SYMBOLS = {"ticks": "T"}  # ``TICKS`` of ir/chunk.py: in the function of a segment, T is its length


@dataclass(frozen=True)
class Layout:
    """The axes of a program. ``batch`` and ``time`` have their sizes in the variables ``B`` and ``T``. ``autocast``:
    products may come in half precision, and a call with several operands may take all of them so. ``wide``: values of
    the program that are at least float32."""

    program: Program
    autocast: bool = True
    wide: frozenset[int] = frozenset()

    @cached_property
    def roles(self) -> dict[int, str]:
        """Names for values after what becomes of them: the new value of a state, an output, a loss."""
        program = self.program
        states = short_names([s.name for s in program.states])
        found = {value: "loss" for _, value in program.losses}
        found |= {value: name for name, value in (*program.probes, *program.outputs)}
        found |= {value: states[name] for name, value in program.updates}
        return {value: program.body[value].name or name for value, name in found.items()}

    def order(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return axis_order(names, self.program.axis_names())

    def dim(self, size: Dim) -> str:
        """A size as an expression; it may contain the number of ticks of a segment."""
        if isinstance(size, int):
            return str(size)
        text = ""
        for monomial, coefficient in size.terms:
            factors = [_SYMBOLS[name] for name, power in monomial for _ in range(power)]
            if abs(coefficient) != 1 or not factors:
                factors.insert(0, str(abs(coefficient)))
            sign = "-" if coefficient < 0 else "+" if text else ""
            text += (f" {sign} " if text else sign) + " * ".join(factors)
        return text

    def axis_size(self, axis: str) -> str:
        known = {BATCH: "B", TIME: "T"}.get(axis)
        if known is None:
            size = self.program.axis_size(axis)
            known = str(size) if size is None else self.dim(size)
        return known

    def sizes(self, type: Type) -> list[str]:
        return [self.axis_size(a) for a in type.axes] + [self.dim(s) for s in type.shape]

    def with_axis(self, type: Type, *axes: str) -> Type:
        return Type(type.shape, self.order((*type.axes, *axes)), type.kind)

    def describe(self, type: Type) -> str:
        """For comments: ``[batch, time, 4]``."""
        return "[" + ", ".join((*type.axes, *map(str, type.shape))) + "]" + (" int" if type.kind == "int" else "")


def view(expr: Expr, target: Type) -> str:
    """An expression that broadcasts with tensors laid out as ``target``; logical dims are aligned from the right."""
    if expr.is_literal:
        return expr.text
    missing = len(target.shape) - len(expr.type.shape)
    keep = [axis in expr.type.axes for axis in target.axes] + [False] * missing + [True] * len(expr.type.shape)
    return indexed(expr, keep)


def indexed(expr: Expr, keep: Sequence[bool]) -> str:
    """The tensor with a dimension of length 1 wherever ``keep`` is false."""
    first = next((i for i, kept in enumerate(keep) if kept), len(keep))
    rest = list(keep[first:])  # leading dimensions of length 1 need not be written
    if all(rest):
        return expr.text
    last = len(rest) - rest[::-1].index(True)
    if all(rest[:last]):
        return f"{expr.at(ATOM)}[..., {', '.join(['None'] * (len(rest) - last))}]"
    tokens = [":" if kept else "None" for kept in rest]
    while tokens[-1] == ":":
        tokens.pop()
    return f"{expr.at(ATOM)}[{', '.join(tokens)}]"


def is_view(expr: Expr, target: Type) -> bool:
    """Whether ``view`` adds an index, so that the result binds like an atom."""
    return view(expr, target) != expr.text


def dims(indices: Sequence[int], rank: int) -> str:
    """Logical dims as an argument, counted from the end."""
    found = [str(i - rank) for i in indices]
    return found[0] if len(found) == 1 else tuple_of(found)


def subscript(position: int, rank: int, item: str) -> str:
    """``item`` at one logical dim: ``..., 1:3, :``."""
    behind = [":"] * (rank - position - 1)
    return ", ".join(["...", item, *behind])


def regrouped(old: Sequence[Dim], new: Sequence[Dim]) -> tuple[str, int, Sequence[Dim]] | None:
    """A reshape that adds or drops a dim of length 1, splits one dim or joins several: the method, where, sizes."""
    for i in range(len(new)):
        if new[i] == 1 and [*new[:i], *new[i + 1 :]] == list(old):
            return "unsqueeze", i - len(new), ()
    for i in range(len(old)):
        if old[i] == 1 and [*old[:i], *old[i + 1 :]] == list(new):
            return "squeeze", i - len(old), ()
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    before, after = old[start : len(old) - end], new[start : len(new) - end]
    if len(before) == 1 and len(after) > 1:
        return "unflatten", start - len(old), after
    if len(before) > 1 and len(after) == 1:
        return "flatten", start - len(old), (-1 - end,)
    return None
