"""Past values: ``prev``, ``window``, comprehensions over windows, and ``next``."""

from __future__ import annotations

from nldsl.dims import Dim, Poly
from nldsl.frontend import ast
from nldsl.ir.ancestors import ancestors
from nldsl.ir.program import InputDecl
from nldsl.ir.types import BATCH
from nldsl.semantics.clocks import hidden_cell
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate, evaluates
from nldsl.semantics.scope import Scope
from nldsl.semantics.tensors import as_real, map_groups, rvalue, to_tensor
from nldsl.semantics.values import (
    POISON,
    Builtin,
    Group,
    ListValue,
    Poison,
    Tensor,
    Unknown,
    Value,
    WindowIndex,
    WindowRange,
    describe,
    is_static_number,
    show_type,
)
from nldsl.source import Span

SHORT_WINDOW = 8


def delayed(ctx: Context, scope: Scope, value: Value, ticks: int, label: str, span: Span) -> Value:
    """``prev(x, n)``: the value n ticks before, zero before the beginning."""
    if isinstance(value, Poison):
        return POISON
    tensor = to_tensor(ctx, value, span)
    if isinstance(tensor, Poison):
        return POISON
    label = _label(tensor, label)
    for _ in range(ticks):
        key = ("prev", tensor.id, ctx.guard)
        cell = ctx.delays.get(key)
        if cell is None:
            cell = hidden_cell(
                ctx, scope, f"prev_{label}", tensor, span, initial=0 if tensor.type.kind == "int" else 0.0
            )
            cell.current = _hold(ctx, tensor.id, cell.start, span)
            cell.clock = ctx.guard
            ctx.delays[key] = cell
        tensor = Tensor(cell.start, ctx.body)
    return tensor


def window_buffer(ctx: Context, scope: Scope, value: Value, size: Dim, label: str, span: Span) -> Value:
    """``window(x, n)``: [n, ...], the current value last, zeros before the beginning."""
    if isinstance(value, Poison):
        return POISON
    tensor = to_tensor(ctx, value, span)
    if isinstance(tensor, Poison):
        return POISON
    label = _label(tensor, label)
    newest = ctx.emit("reshape", tensor, span=span, shape=(1, *tensor.type.shape))
    if isinstance(newest, Poison):
        return POISON
    if size == 1:
        return newest
    if isinstance(size, int) and size <= SHORT_WINDOW:
        return _short_window(ctx, scope, tensor, newest, size, label, span)
    key = ("window", tensor.id, size, ctx.guard)
    cell = ctx.delays.get(key)
    if cell is None:
        kind = tensor.type.kind
        old = ctx.emit("broadcast", tensor, span=span, shape=(size - 1, *tensor.type.shape))
        cell = hidden_cell(ctx, scope, f"window_{label}", old, span, initial=0 if kind == "int" else 0.0)
        ctx.delays[key] = cell
    start = Tensor(cell.start, ctx.body)
    buffer = ctx.emit("concat", start, newest, span=span, name=f"window_{label}", dim=0)
    tail = ctx.emit("slice", buffer, span=span, dim=0, start=1, stop=size)
    cell.current = _hold(ctx, tail.id, cell.start, span)
    cell.clock = ctx.guard
    return buffer


def _label(tensor: Tensor, label: str) -> str:
    """The program's name of a stream, where it has one."""
    return tensor.builder.instrs[tensor.id].name or label if label == "value" else label


def _short_window(
    ctx: Context, scope: Scope, tensor: Tensor, newest: Tensor, size: int, label: str, span: Span
) -> Value:
    """A few single delays: a delay needs no loop over the tokens, and several windows share theirs."""
    places = [newest]
    for _ in range(size - 1):
        before = delayed(ctx, scope, tensor, 1, label, span)
        if isinstance(before, Poison):
            return POISON
        tensor = before
        places.insert(0, ctx.emit("reshape", tensor, span=span, shape=newest.type.shape))
    return ctx.emit("concat", *places, span=span, name=f"window_{label}", dim=0)


def _hold(ctx: Context, new: int, old: int, span: Span) -> int:
    """The new value at the ticks of the guard, the old one otherwise."""
    guard = ctx.guard
    if guard is None:
        return new
    with ctx.guarded(None):
        return ctx.body.emit("when", new, old, clock=guard, span=span)


def window_mask(ctx: Context, size: Dim, span: Span) -> Value:
    """[n]: 1 where the window holds a value: the last min(t, n) places."""
    tick = ctx.emit("clock", span=span, scale=ctx.guard.period if ctx.guard else ctx.scale, period=0)
    place = ctx.emit("iota", span=span, n=size)
    first = ctx.emit("sub", ctx.const(size if isinstance(size, int) else 2), tick, span=span)
    return ctx.emit("ge", place, first, span=span)


def window_value(ctx: Context, scope: Scope, expr: ast.Index, key: WindowIndex) -> Value:
    """``k[i]`` inside ``for i in window(n)``: one lane per place in the window. Of what is the same at every tick it is
    entry ``i``: a weight for each place."""
    label = expr.value.id if isinstance(expr.value, ast.Name) else "value"
    with ctx.place(lanes=tuple(a for a in ctx.lanes if a != key.axis)):
        value = rvalue(ctx, evaluate(ctx, scope, expr.value), expr.value.span)
    if isinstance(value, Poison):
        return POISON

    named = scope.find(expr.value.id) if isinstance(expr.value, ast.Name) else None
    argument = named is not None and named.argument  # a stream, whatever the caller has given

    def lane(part: Value) -> Value:
        if not argument and isinstance(part, Tensor) and part.type.shape and _is_weights(part):
            return _entry(ctx, part, key, expr.span)
        buffer = window_buffer(ctx, scope, part, key.size, label, expr.span)
        return POISON if isinstance(buffer, Poison) else ctx.emit("spread", buffer, span=expr.span, axis=key.axis)

    return map_groups(ctx, expr.span, lane, value)


def _is_weights(tensor: Tensor) -> bool:
    """Whether it is made of parameters, and of numbers besides: the same at every tick."""
    instrs = tensor.builder.instrs
    if BATCH in tensor.type.axes:
        return False
    leaves = {instrs[v].op for v in ancestors(instrs, tensor.id) if not instrs[v].args}
    return "param" in leaves and leaves <= {"param", "const", "iota"}


def _entry(ctx: Context, tensor: Tensor, key: WindowIndex, span: Span) -> Value:
    if tensor.type.shape[0] != key.size:
        return ctx.error(
            "NL0305",
            span,
            f"the window has {key.size} places, {show_type(tensor.type)} has {tensor.type.shape[0]} entries",
            notes=("of what is the same at every tick, `w[i]` is the entry for the place `i` back",),
        )
    rows = ctx.emit("take", tensor, _places_back(ctx, key, span), span=span)
    return POISON if isinstance(rows, Poison) else ctx.emit("spread", rows, span=span, axis=key.axis)


def _places_back(ctx: Context, key: WindowIndex, span: Span) -> Tensor:
    """[n]: n - 1, ..., 1, 0, since the current value is the last one of a window."""
    last = ctx.const(key.size - 1 if isinstance(key.size, int) else 1, span)
    places: Tensor = ctx.emit("sub", last, ctx.emit("iota", span=span, n=key.size), span=span)
    return places


def window_place(ctx: Context, key: WindowIndex, span: Span) -> Tensor:
    """``i`` as a number: how many places back. A real one, so that ``k[i + 1]`` is no index of entries."""
    return as_real(ctx, ctx.emit("spread", _places_back(ctx, key, span), span=span, axis=key.axis), span)


@evaluates(ast.Comprehension)
def comprehension(ctx: Context, scope: Scope, expr: ast.Comprehension) -> Value:
    """Outside a call: a list over static values, a stacked tensor over a window."""
    over = evaluate(ctx, scope, expr.over)
    if isinstance(over, Poison):
        return POISON
    if isinstance(over, WindowRange):
        lanes = window_lanes(ctx, scope, expr, over)
        if isinstance(lanes, Poison):
            return POISON
        value, _, axis = lanes
        return ctx.emit("collect", value, span=expr.span, axis=axis, size=over.size)
    over = rvalue(ctx, over, expr.over.span)
    items = tuple(unrolled_items(ctx, scope, expr, over))
    if isinstance(over, Group):
        return POISON if any(isinstance(i, Poison) for i in items) else Group(items, over.names)
    return ListValue(items, over.count if isinstance(over, ListValue) else None)


def unrolled_items(ctx: Context, scope: Scope, expr: ast.Comprehension, over: Value) -> list[Value]:
    if isinstance(over, (Unknown, Poly)):
        items: tuple[Value, ...] = (0,)
    elif isinstance(over, (ListValue, Group)):
        items = over.items
    else:
        ctx.error(
            "NL0207", expr.over.span, f"`for` goes over a list, `range(n)` or `window(n)`, found {describe(over)}"
        )
        return [POISON]
    ctx.count_expansion(len(items), expr.span)
    found = []
    for n, item in enumerate(items):
        inner = scope.child()
        inner.bind(expr.variable, item, expr.span)
        with ctx.place(unrolled=(*ctx.unrolled, f"{expr.variable}.{n}")):
            found.append(rvalue(ctx, evaluate(ctx, inner, expr.value), expr.value.span))
    return found


def window_lanes(
    ctx: Context, scope: Scope, expr: ast.Comprehension, over: WindowRange
) -> tuple[Tensor, Tensor, str] | Poison:
    """The body once per place of the window (a mapped axis), zero where the window has no value; and the mask."""
    axis = ctx.new_axis("window", over.size)
    inner = scope.child()
    inner.bind(expr.variable, WindowIndex(axis, over.size), expr.span)
    with ctx.place(lanes=(*ctx.lanes, axis)):
        value = to_tensor(ctx, evaluate(ctx, inner, expr.value), expr.value.span)
    if isinstance(value, Poison):
        return POISON
    value = as_real(ctx, value, expr.span)
    mask = ctx.emit("spread", window_mask(ctx, over.size, expr.span), span=expr.span, axis=axis)
    kept = ctx.emit("where", mask, value, ctx.const(0.0), span=expr.span)
    return (kept, mask, axis) if isinstance(kept, Tensor) else POISON


def reduce_comprehension(ctx: Context, scope: Scope, builtin: Builtin, expr: ast.Comprehension, span: Span) -> Value:
    """``sum(e for i in ...)``, ``mean(...)``, ``max(...)``."""
    over = evaluate(ctx, scope, expr.over)
    if isinstance(over, Poison):
        return POISON
    if isinstance(over, WindowRange) and builtin.name in ("sum", "mean"):
        lanes = window_lanes(ctx, scope, expr, over)
        if isinstance(lanes, Poison):
            return POISON
        value, mask, axis = lanes
        total = ctx.emit("axis_sum", value, span=span, axis=axis)
        if builtin.name == "sum":
            return total
        return ctx.emit("div", total, ctx.emit("axis_sum", mask, span=span, axis=axis), span=span)
    if isinstance(over, WindowRange):
        stacked = comprehension(ctx, scope, expr)
        return builtin.apply(ctx, scope, [stacked], {}, span) if not isinstance(stacked, Poison) else POISON
    items = unrolled_items(ctx, scope, expr, over)
    if any(isinstance(i, Poison) for i in items):
        return POISON
    if builtin.name in ("sum", "mean") and items:
        return _fold(ctx, items, builtin.name == "mean", span)
    return builtin.apply(ctx, scope, [ListValue(tuple(items))], {}, span)


def _fold(ctx: Context, items: list[Value], average: bool, span: Span) -> Value:
    from nldsl.semantics.arithmetic import pointwise, static_binary

    total = items[0]
    for item in items[1:]:
        if is_static_number(total) and is_static_number(item):
            total = static_binary(ctx, "+", total, item, span)
        else:
            total = map_groups(ctx, span, lambda a, b: pointwise(ctx, "add", span, a, b), total, item)
    if not average:
        return total
    if is_static_number(total):
        return static_binary(ctx, "/", total, len(items), span)
    return map_groups(ctx, span, lambda a: pointwise(ctx, "div", span, a, float(len(items))), total)


def next_value(ctx: Context, value: Value, span: Span) -> Value:
    """``next(x)`` of an input, only in what a model minimizes."""
    if isinstance(value, Poison):
        return POISON
    if not ctx.in_minimize:
        return ctx.error(
            "NL0408",
            span,
            "`next` looks at the following token, which only `minimize` may do",
            hints=("`prev(x)` is the past",),
        )
    instr = ctx.body.instrs[value.id] if isinstance(value, Tensor) and value.builder is ctx.body else None
    if instr is None or instr.op != "input":
        return ctx.error("NL0408", span, f"`next` takes an input of the model, found {describe(value)}")
    source = instr.attr("input")
    name = f"next_{source}"
    while name in ctx.inputs and ctx.inputs[name].source != source:
        name += "_"
    ctx.inputs[name] = InputDecl(name, instr.type, source, 1, span)
    return Tensor(ctx.leaf("input", instr.type, name, span, input=name), ctx.body)
