"""Literals, names, members, indices and the small expression forms."""

from __future__ import annotations

from nldsl.dims import Poly
from nldsl.frontend import ast
from nldsl.ir.types import Clock
from nldsl.semantics.clocks import varies_faster
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate, evaluates
from nldsl.semantics.scope import Scope
from nldsl.semantics.spelling import closest, standard_module
from nldsl.semantics.streams import window_value
from nldsl.semantics.tensors import as_real, leaves, map_groups, rvalue, to_tensor
from nldsl.semantics.usage import METHODS_ELSEWHERE, NAMES_ELSEWHERE, usage
from nldsl.semantics.values import (
    POISON,
    BoundMethod,
    Builtin,
    FunctionValue,
    Group,
    InitValue,
    Instance,
    LevelValue,
    ListValue,
    Namespace,
    Poison,
    StateRef,
    Template,
    Tensor,
    Unknown,
    Value,
    WindowIndex,
    describe,
    show_type,
)


@evaluates(ast.Number)
def number(ctx: Context, scope: Scope, expr: ast.Number) -> Value:
    value = expr.value
    if isinstance(value, int) and value > ctx.limits.magnitude:
        return ctx.error("NL0214", expr.span, "this number is too large")
    return value


@evaluates(ast.Text)
def text(ctx: Context, scope: Scope, expr: ast.Text) -> Value:
    return expr.value


@evaluates(ast.Bool)
def boolean(ctx: Context, scope: Scope, expr: ast.Bool) -> Value:
    return expr.value


@evaluates(ast.Paren)
def paren(ctx: Context, scope: Scope, expr: ast.Paren) -> Value:
    return evaluate(ctx, scope, expr.value)


@evaluates(ast.ListExpr)
def list_expression(ctx: Context, scope: Scope, expr: ast.ListExpr) -> Value:
    items = tuple(evaluate(ctx, scope, item) for item in expr.items)
    return POISON if any(isinstance(i, Poison) for i in items) else ListValue(items)


@evaluates(ast.GroupExpr)
def group_expression(ctx: Context, scope: Scope, expr: ast.GroupExpr) -> Value:
    items = tuple(rvalue(ctx, evaluate(ctx, scope, item), item.span) for item in expr.items)
    names = tuple(item.id if isinstance(item, ast.Name) else "" for item in expr.items)
    return POISON if any(isinstance(i, Poison) for i in items) else Group(items, names)


@evaluates(ast.Name)
def name(ctx: Context, scope: Scope, expr: ast.Name) -> Value:
    binding = scope.find(expr.id)
    if binding is None:
        return unknown_name(ctx, scope, expr)
    value = binding.value
    slower = ctx.guard is not None and ctx.builder is ctx.body and scope.crosses(expr.id)
    if slower and isinstance(value, (Tensor, Group, StateRef)) and varies_faster(ctx, value, scope, expr.id):
        return _crossing(ctx, expr, value, binding.span)
    return value


def _crossing(ctx: Context, expr: ast.Name, value: Value, bound: object) -> Value:
    from nldsl.source import NO_SPAN, Span

    where = bound if isinstance(bound, Span) else NO_SPAN
    clock: Clock | None = ctx.guard
    return ctx.error(
        "NL0401",
        expr.span,
        f"`{expr.id}` changes at every tick, but this runs `every {ctx.every_text}`"
        if ctx.every_text
        else f"`{expr.id}` changes at every tick, but this runs {clock}",
        label="used on the slower clock",
        related=((where, f"`{expr.id}` gets a new value at every tick here"),) if where is not NO_SPAN else (),
        hints=(f"say how it is reduced: `sum of {expr.id}`, `mean of`, `last of` or `max of`",),
    )


def unknown_name(ctx: Context, scope: Scope, expr: ast.Name) -> Value:
    instance = scope.instance
    if instance is not None and expr.id in instance.deferred:
        like = instance.deferred[expr.id]
        return ctx.error(
            "NL0215",
            expr.span,
            f"the shape of `{expr.id}` is not known yet",
            related=((like.span, "it is like a value that no call has given so far"),),
            hints=("call the method that takes that value first",),
        )
    close = closest(expr.id, scope.names())
    module = standard_module(expr.id)
    hints = (f"did you mean `{close}`?",) if close else ()
    if module:
        hints = (f'the standard library has it: `from "{module}" import {expr.id}`',)
    if expr.id in NAMES_ELSEWHERE:
        hints = (f"write {NAMES_ELSEWHERE[expr.id]}",)
    return ctx.error("NL0201", expr.span, f"unknown name `{expr.id}`", hints=hints)


@evaluates(ast.Member)
def member(ctx: Context, scope: Scope, expr: ast.Member) -> Value:
    value = evaluate(ctx, scope, expr.value)
    if isinstance(value, Poison):
        return POISON
    if isinstance(value, Namespace):
        binding = value.scope.bindings.get(expr.name)
        if binding is not None:
            return binding.value
        return _no_member(ctx, expr, value, list(value.scope.bindings))
    if isinstance(value, Instance):
        for method in value.decl.members:
            if isinstance(method, ast.Method) and method.name == expr.name:
                return BoundMethod(value, method)
        binding = value.scope.bindings.get(expr.name)
        if binding is not None and not isinstance(binding.value, (int, float, str, bool, Poly, Unknown)):
            return binding.value
        known = [m.name for m in value.decl.members if isinstance(m, ast.Method)] + list(value.scope.bindings)
        return _no_member(ctx, expr, value, known)
    if isinstance(value, (Group, StateRef)) and expr.name in value.names:
        items = value.items if isinstance(value, Group) else value.cells
        return items[value.names.index(expr.name)]
    if isinstance(value, LevelValue) and expr.name == "period":
        return value.period
    return _no_member(ctx, expr, value, [])


def _no_member(ctx: Context, expr: ast.Member, value: Value, known: list[str]) -> Value:
    known = list(dict.fromkeys(known))
    close = closest(expr.name, known)
    if not known and (forms := METHODS_ELSEWHERE.get(expr.name) or usage(expr.name)):
        written = expr.value.span.text if isinstance(expr.value, ast.Name) else "x"
        return ctx.error(
            "NL0205",
            expr.span,
            f"{describe(value)} has no `{expr.name}`",
            hints=(f"write {' or '.join(f'`{form}`' for form in forms)}".replace("{}", written),),
        )
    return ctx.error(
        "NL0205",
        expr.span,
        f"{describe(value)} has no `{expr.name}`",
        hints=(f"did you mean `{close}`?",)
        if close
        else (f"it has {', '.join(f'`{k}`' for k in known[:8])}",)
        if known
        else (),
    )


@evaluates(ast.Index)
def index(ctx: Context, scope: Scope, expr: ast.Index) -> Value:
    key = evaluate(ctx, scope, expr.index)
    if isinstance(key, Poison):
        return POISON
    if isinstance(key, WindowIndex):
        return window_value(ctx, scope, expr, key)
    value = rvalue(ctx, evaluate(ctx, scope, expr.value), expr.value.span)
    if isinstance(value, Poison):
        return POISON
    if isinstance(value, (ListValue, Group)) and isinstance(key, int):
        if not -len(value.items) <= key < len(value.items):
            return ctx.error("NL0305", expr.index.span, f"index {key} of {describe(value)} of {len(value.items)}")
        return value.items[key]
    if isinstance(value, ListValue) and isinstance(key, (Poly, Unknown)) and value.items:
        return value.items[0]
    return map_groups(ctx, expr.span, lambda v: _pick(ctx, v, key, expr), value)


def _pick(ctx: Context, value: Value, key: Value, expr: ast.Index) -> Value:
    tensor = to_tensor(ctx, value, expr.value.span)
    if isinstance(tensor, Poison):
        return POISON
    shape = tensor.type.shape
    if not shape:
        return ctx.error("NL0305", expr.span, "a scalar cannot be indexed")
    if isinstance(key, int) and not isinstance(key, bool):
        size = shape[0]
        start = key if key >= 0 else size + key
        if isinstance(size, int) and not 0 <= start < size:  # type: ignore[operator]
            return ctx.error("NL0305", expr.index.span, f"index {key} is outside {show_type(tensor.type)}")
        row = ctx.emit("slice", tensor, span=expr.span, dim=0, start=start, stop=start + 1)
        return POISON if isinstance(row, Poison) else ctx.emit("reshape", row, span=expr.span, shape=shape[1:])
    if isinstance(key, (Poly, Unknown)):
        row = ctx.emit("slice", tensor, span=expr.span, dim=0, start=0, stop=1)
        return POISON if isinstance(row, Poison) else ctx.emit("reshape", row, span=expr.span, shape=shape[1:])
    at = to_tensor(ctx, key, expr.index.span, "the index")
    if isinstance(at, Poison):
        return POISON
    if at.type.kind != "int":
        return ctx.error(
            "NL0305",
            expr.index.span,
            "an index is an integer",
            hints=("`clock()`, `iota(n)` and int inputs are integers",),
        )
    return ctx.emit("take", tensor, at, span=expr.span)


@evaluates(ast.Slice)
def slice_expression(ctx: Context, scope: Scope, expr: ast.Slice) -> Value:
    value = rvalue(ctx, evaluate(ctx, scope, expr.value), expr.value.span)
    if isinstance(value, Poison):
        return POISON
    bounds = [None if b is None else evaluate(ctx, scope, b) for b in (expr.start, expr.stop)]
    if any(isinstance(b, Poison) for b in bounds):
        return POISON
    for given, node in zip(bounds, (expr.start, expr.stop), strict=False):
        if given is not None and (isinstance(given, bool) or not isinstance(given, (int, Poly))) and node is not None:
            return ctx.error("NL0305", node.span, f"a slice bound is an integer, found {describe(given)}")
    start, stop = bounds
    if (
        isinstance(value, (ListValue, Group))
        and isinstance(start, (int, type(None)))
        and isinstance(stop, (int, type(None)))
    ):
        return type(value)(value.items[start:stop]) if isinstance(value, ListValue) else Group(value.items[start:stop])
    return map_groups(ctx, expr.span, lambda v: _cut(ctx, v, start, stop, expr), value)


def _cut(ctx: Context, value: Value, start: Value, stop: Value, expr: ast.Slice) -> Value:
    tensor = to_tensor(ctx, value, expr.value.span)
    if isinstance(tensor, Poison):
        return POISON
    if not tensor.type.shape:
        return ctx.error("NL0305", expr.span, "a scalar cannot be sliced")
    size = tensor.type.shape[0]
    first = 0 if start is None else size + start if isinstance(start, int) and start < 0 else start
    last = size if stop is None else size + stop if isinstance(stop, int) and stop < 0 else stop
    return ctx.emit("slice", tensor, span=expr.span, code="NL0305", dim=0, start=first, stop=last)


@evaluates(ast.Anchor)
def anchor(ctx: Context, scope: Scope, expr: ast.Anchor) -> Value:
    period = evaluate(ctx, scope, expr.period)
    if isinstance(period, Poison):
        return POISON
    if isinstance(period, LevelValue):
        if period.base != "token":
            return ctx.error(
                "NL0406", expr.period.span, f"`{period.name}` is a level of {period.base}s, an anchor counts tokens"
            )
        ticks: Value = period.period
    else:
        ticks = period
    if isinstance(ticks, (Poly, Unknown)):
        ticks = 2  # a generic check: any period
    if isinstance(ticks, bool) or not isinstance(ticks, int) or ticks < 1:
        return ctx.error(
            "NL0406", expr.period.span, f"an anchor period is a positive integer, found {describe(period)}"
        )
    with ctx.place(anchor=ticks * (1 if isinstance(period, LevelValue) else ctx.scale)):
        return rvalue(ctx, evaluate(ctx, scope, expr.value), expr.span)


@evaluates(ast.AtLevel)
def at_level(ctx: Context, scope: Scope, expr: ast.AtLevel) -> Value:
    binding = scope.find(expr.level)
    value = binding.value if binding else None
    if isinstance(value, (Poison, Unknown)):
        return evaluate(ctx, scope, expr.value)
    if not isinstance(value, LevelValue):
        close = closest(expr.level, scope.names())
        return ctx.error(
            "NL0403", expr.span, f"`{expr.level}` is not a level", hints=(f"did you mean `{close}`?",) if close else ()
        )
    outer = ctx.levels.get(ctx.level or "")
    nested = value.base == "token" and outer is not None and outer.name != value.name
    with ctx.place(level=value.name, around=outer if nested else ctx.around):
        return evaluate(ctx, scope, expr.value)


def static_value(ctx: Context, scope: Scope, expr: ast.Expr, what: str, kinds: tuple[type, ...]) -> Value:
    """A static value of one of these kinds; Unknown passes in generic checks."""
    value = evaluate(ctx, scope, expr)
    if isinstance(value, (Poison, Unknown, kinds)):
        return value
    return ctx.error("NL0207", expr.span, f"{what} is needed here, found {describe(value)}")


__all__ = ["Builtin", "FunctionValue", "InitValue", "Template", "as_real", "leaves", "static_value"]
