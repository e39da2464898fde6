"""Turning values into tensors and back: reading states, lifting numbers, lists and groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.dims import Poly
from nldsl.semantics.context import Context
from nldsl.semantics.values import (
    POISON,
    BoundMethod,
    Cell,
    FunctionValue,
    Group,
    Instance,
    ListValue,
    Poison,
    StateRef,
    Tensor,
    Unknown,
    Value,
    WindowIndex,
    describe,
    is_static_number,
)
from nldsl.source import Span


def read_cell(ctx: Context, cell: Cell, span: Span) -> Tensor:
    """The state's value here: of the moment, or at the anchor inside ``at start of``."""
    if ctx.builder is ctx.init:
        value = ctx.init.leaf("state", cell.type, name=cell.name.rpartition(".")[2], span=span, state=cell.name)
        return Tensor(value, ctx.init)
    if ctx.anchor is not None:
        name = cell.name.rpartition(".")[2]
        return Tensor(ctx.leaf("anchor", cell.type, name, span, state=cell.name, period=ctx.anchor), ctx.body)
    return Tensor(cell.current, ctx.body)


def read_state(ctx: Context, ref: StateRef, span: Span) -> Value:
    if isinstance(ref.cells, Cell):
        return read_cell(ctx, ref.cells, span)
    return Group(tuple(read_state(ctx, part, span) for part in ref.cells), ref.names)


def instance_state(instance: Instance) -> StateRef:
    """All visible states of an instance and of those inside it, as one group."""
    refs = [
        b.value
        for b in instance.scope.bindings.values()
        if isinstance(b.value, StateRef) and not all(c.hidden for c in b.value.leaves())
    ]
    refs += [instance_state(child) for child in instance.children if child.decl.keyword == "memory"]
    return StateRef(instance.path, tuple(refs), tuple(r.name for r in refs))


def rvalue(ctx: Context, value: Value, span: Span) -> Value:
    """States and instances are read; other values are what they are."""
    if isinstance(value, StateRef):
        return read_state(ctx, value, span)
    if isinstance(value, Tensor) and ctx.builder is ctx.init and value.builder is ctx.body:
        return _at_reset(ctx, value)
    if isinstance(value, Instance):
        ref = instance_state(value)
        if not ref.cells:
            return ctx.error("NL0207", span, f"{describe(value)} has no states, so it is not a value")
        return read_state(ctx, ref, span)
    return value


def _at_reset(ctx: Context, value: Tensor) -> Tensor:
    """A parameter, read in an initial value; a value of the tick is left as it is, for an error where it is used."""
    instr = ctx.body.instrs[value.id]
    if instr.op != "param":
        return value
    name = instr.attr("param")
    return Tensor(ctx.init.leaf("param", value.type, name=instr.name, span=instr.span, param=name), ctx.init)


def to_tensor(ctx: Context, value: Value, span: Span, what: str = "") -> Tensor | Poison:
    """A single tensor: numbers become constants, lists of numbers constant tensors. Anything else is an error."""
    value = rvalue(ctx, value, span)
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Poison):
        return POISON
    if isinstance(value, bool):
        return ctx.const(1.0 if value else 0.0, span)
    if isinstance(value, (int, float)):
        return ctx.const(value, span)
    if isinstance(value, Poly) or (isinstance(value, Unknown) and is_static_number(value)):
        return ctx.const(1.0, span)  # a generic check knows only that it is a number
    if isinstance(value, ListValue):
        return _list_tensor(ctx, value, span)
    if isinstance(value, WindowIndex):
        from nldsl.semantics.streams import window_place

        return window_place(ctx, value, span)
    if isinstance(value, Group) and len(value.items) == 1:
        return to_tensor(ctx, value.items[0], span, what)
    where = f" for {what}" if what else ""
    hints: tuple[str, ...] = ()
    if isinstance(value, Group) and what:
        hints = ("a parameter of a method without a type takes groups, too",)
    elif isinstance(value, (FunctionValue, BoundMethod)):
        hints = ("call it with its arguments in `( )`",)
    return ctx.error("NL0306", span, f"expected a tensor{where}, found {describe(value)}", hints=hints)


def _list_tensor(ctx: Context, value: ListValue, span: Span) -> Tensor | Poison:
    """Stacks the items along a new first axis."""
    if not value.items:
        return ctx.error("NL0306", span, "an empty list is not a tensor")
    parts: list[Tensor] = []
    for item in value.items:
        tensor = to_tensor(ctx, item, span)
        if isinstance(tensor, Poison):
            return POISON
        parts.append(tensor)
    stacked = stack(ctx, parts, span)
    if value.count is None or isinstance(stacked, Poison):
        return stacked
    return ctx.emit("broadcast", stacked, span=span, shape=(value.count, *stacked.type.shape[1:]))  # type: ignore[no-any-return]


def stack(ctx: Context, parts: list[Tensor], span: Span) -> Tensor | Poison:
    rows = []
    kinds = {p.type.kind for p in parts}
    for part in parts:
        if len(kinds) > 1 and part.type.kind == "int":
            part = ctx.emit("to_real", part, span=span)
        row = ctx.emit("reshape", part, span=span, shape=(1, *part.type.shape))
        if isinstance(row, Poison):
            return POISON
        rows.append(row)
    if len(rows) == 1:
        return rows[0]  # type: ignore[no-any-return]
    return ctx.emit("concat", *rows, span=span, dim=0)  # type: ignore[no-any-return]


def as_real(ctx: Context, value: Tensor, span: Span) -> Tensor:
    """Integers take part in arithmetic as reals."""
    if value.type.kind == "int":
        return ctx.emit("to_real", value, span=span)  # type: ignore[no-any-return]
    return value


def map_groups(ctx: Context, span: Span, apply: Callable[..., Value], *values: Value) -> Value:
    """``apply`` field by field where any operand is a group (scalars and tensors combine with each field)."""
    values = tuple(rvalue(ctx, v, span) for v in values)
    if any(isinstance(v, Poison) for v in values):
        return POISON
    groups = [v for v in values if isinstance(v, Group)]
    if not groups:
        return apply(*values)
    size = len(groups[0].items)
    if any(len(g.items) != size for g in groups):
        sizes = " and ".join(str(len(g.items)) for g in groups)
        return ctx.error("NL0304", span, f"groups of {sizes} fields do not combine")
    fields = [
        map_groups(ctx, span, apply, *(v.items[i] if isinstance(v, Group) else v for v in values)) for i in range(size)
    ]
    if any(isinstance(f, Poison) for f in fields):
        return POISON
    return Group(tuple(fields), groups[0].names)


def leaves(ctx: Context, value: Value, span: Span) -> list[Tensor] | Poison:
    """The tensors of a value, groups flattened in order."""
    value = rvalue(ctx, value, span)
    if isinstance(value, Group):
        flat: list[Tensor] = []
        for item in value.items:
            part = leaves(ctx, item, span)
            if isinstance(part, Poison):
                return POISON
            flat.extend(part)
        return flat
    tensor = to_tensor(ctx, value, span)
    return POISON if isinstance(tensor, Poison) else [tensor]


def rebuild(value: Value, flat: list[Any]) -> Value:
    """The structure of ``value`` (already read) with these leaves, consumed from the front."""
    if isinstance(value, Group):
        return Group(tuple(rebuild(item, flat) for item in value.items), value.names)
    return flat.pop(0)
