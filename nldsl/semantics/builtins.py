"""The built-in functions, one small entry each. An entry gets positional and named arguments and returns a value,
``NotImplemented`` when the arguments do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.dims import Dim, Poly
from nldsl.ir.program import Initializer
from nldsl.semantics.arithmetic import pointwise, real, transposed, where
from nldsl.semantics.builtin_algebra import ALGEBRA
from nldsl.semantics.builtin_grad import constant_for, gradient, straight_through
from nldsl.semantics.context import Context
from nldsl.semantics.scope import Scope
from nldsl.semantics.streams import delayed, next_value, window_buffer, window_mask
from nldsl.semantics.tensors import leaves, map_groups, to_tensor
from nldsl.semantics.values import (
    POISON,
    Builtin,
    Group,
    InitValue,
    ListValue,
    Poison,
    Tensor,
    Unknown,
    Value,
    WindowRange,
    is_static_number,
)
from nldsl.source import Span

Apply = Callable[[Context, Scope, list[Value], dict[str, Value], Span], Value]

UNARY = "exp log log1p expm1 sqrt rsqrt abs sign sin cos tanh arctan sigmoid softplus relu erf floor".split()


def _unary(op: str) -> Apply:
    def apply(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
        if len(args) != 1 or named:
            return NotImplemented
        if is_static_number(args[0]):
            folded = _static_unary(op, args[0])
            if folded is not None:
                return folded
        return map_groups(ctx, span, lambda v: pointwise(ctx, op, span, real(ctx, v, span)), args[0])

    return apply


def _static_unary(op: str, value: Any) -> Value | None:
    import math

    if isinstance(value, (Poly, Unknown)):
        return Unknown("real")
    table: dict[str, Callable[[float], float]] = {
        "exp": math.exp,
        "log": math.log,
        "sqrt": math.sqrt,
        "abs": abs,
        "sin": math.sin,
        "cos": math.cos,
        "tanh": math.tanh,
        "arctan": math.atan,
        "floor": math.floor,
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x)),
    }
    if op not in table:
        return None
    try:
        return table[op](value)
    except (ValueError, OverflowError):
        return None


def _composite(build: Callable[[Context, Value, Span], Value]) -> Apply:
    def apply(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
        if len(args) != 1 or named:
            return NotImplemented
        return map_groups(ctx, span, lambda v: build(ctx, real(ctx, v, span), span), args[0])

    return apply


def _silu(ctx: Context, x: Value, span: Span) -> Value:
    return pointwise(ctx, "mul", span, x, pointwise(ctx, "sigmoid", span, x))


def _gelu(ctx: Context, x: Value, span: Span) -> Value:
    cube = pointwise(ctx, "mul", span, x, pointwise(ctx, "mul", span, x, x))
    inner = pointwise(
        ctx,
        "mul",
        span,
        0.7978845608028654,
        pointwise(ctx, "add", span, x, pointwise(ctx, "mul", span, 0.044715, cube)),
    )
    one = pointwise(ctx, "add", span, 1.0, pointwise(ctx, "tanh", span, inner))
    return pointwise(ctx, "mul", span, pointwise(ctx, "mul", span, 0.5, x), one)


def _gelu_erf(ctx: Context, x: Value, span: Span) -> Value:
    one = pointwise(
        ctx, "add", span, 1.0, pointwise(ctx, "erf", span, pointwise(ctx, "mul", span, x, 0.7071067811865476))
    )
    return pointwise(ctx, "mul", span, pointwise(ctx, "mul", span, 0.5, x), one)


def _extreme(op: str) -> Apply:
    """``min``/``max``: elementwise of two, or over the entries of one."""

    def apply(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
        if len(args) == 2 and not named:
            if all(isinstance(a, (int, float)) for a in args):
                return (max if op == "maximum" else min)(args)
            return map_groups(ctx, span, lambda a, b: pointwise(ctx, op, span, a, b), *args)
        if len(args) != 1:
            return NotImplemented
        if isinstance(args[0], ListValue) and args[0].items and all(isinstance(i, (int, float)) for i in args[0].items):
            return (max if op == "maximum" else min)(args[0].items)
        if op == "maximum":
            return ALGEBRA["max"](ctx, scope, args, named, span)
        negated = map_groups(ctx, span, lambda v: pointwise(ctx, "neg", span, v), args[0])
        return map_groups(
            ctx, span, lambda v: pointwise(ctx, "neg", span, v), ALGEBRA["max"](ctx, scope, [negated], named, span)
        )

    return apply


def _clamp(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    if len(args) != 3:
        return NotImplemented
    low = map_groups(ctx, span, lambda a, b: pointwise(ctx, "maximum", span, a, b), args[0], args[1])
    return map_groups(ctx, span, lambda a, b: pointwise(ctx, "minimum", span, a, b), low, args[2])


def _where(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    if len(args) != 3:
        return NotImplemented
    return map_groups(ctx, span, lambda c, a, b: where(ctx, c, a, b, span), *args)


def _grad(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    return gradient(ctx, args[0], args[1], span) if len(args) == 2 and not named else NotImplemented


def _stop(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    return constant_for(ctx, "stop_grad", args[0], span) if len(args) == 1 else NotImplemented


def _fixed(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    return constant_for(ctx, "fixed", args[0], span) if len(args) == 1 and not named else NotImplemented


def _through(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    return straight_through(ctx, args[0], args[1], span) if len(args) == 2 else NotImplemented


def _prev(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    ticks = args[1] if len(args) == 2 else 1
    if not 1 <= len(args) <= 2 or named:
        return NotImplemented
    if isinstance(ticks, (Poly, Unknown)):
        ticks = 1
    if not isinstance(ticks, int) or ticks < 1 or ticks > 4096:
        return ctx.error("NL0404", span, "`prev(x, n)` takes a number of ticks from 1 to 4096")
    return map_groups(ctx, span, lambda v: delayed(ctx, scope, v, ticks, "value", span), args[0])


def _window(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    size = args[-1] if args else None
    if isinstance(size, Unknown):
        size = 2
    if isinstance(size, bool) or not isinstance(size, (int, Poly)) or (isinstance(size, int) and size < 1):
        return ctx.error("NL0404", span, "`window` needs a positive number of ticks")
    if len(args) == 1:
        return WindowRange(size)
    if len(args) != 2 or named:
        return NotImplemented
    return map_groups(ctx, span, lambda v: window_buffer(ctx, scope, v, size, "value", span), args[0])


def _window_mask(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    if len(args) != 1 or not isinstance(args[0], (int, Poly)):
        return NotImplemented
    return window_mask(ctx, args[0], span)


def _clock(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    if len(args) > 1 or named:
        return NotImplemented
    period: Value = args[0] if args else 0
    from nldsl.semantics.values import LevelValue

    if isinstance(period, LevelValue):
        period = period.period
    if isinstance(period, (Poly, Unknown)):
        period = 2
    if isinstance(period, bool) or not isinstance(period, int) or (args and period < 1):
        return ctx.error("NL0404", span, "`clock(n)` takes a positive number of ticks")
    scale = ctx.guard.period if ctx.guard else ctx.scale
    return ctx.emit("clock", span=span, scale=scale, period=period)


def _next(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    return next_value(ctx, args[0], span) if len(args) == 1 else NotImplemented


def _init(kind: str, count: int) -> Apply:
    def apply(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
        if len(args) != count or named or not all(is_static_number(a) for a in args):
            return NotImplemented
        values = tuple(float(a) if isinstance(a, (int, float)) else 0.02 for a in args)
        return InitValue(Initializer(kind, values))

    return apply


def _range(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    if len(args) != 1 or named:
        return NotImplemented
    if isinstance(args[0], (Poly, Unknown)):
        return ListValue((0,), args[0] if isinstance(args[0], Poly) else None)
    if not isinstance(args[0], int) or args[0] < 0 or args[0] > 4096:
        return ctx.error("NL0221", span, "`range(n)` takes a number from 0 to 4096")
    return ListValue(tuple(range(args[0])))


def _length(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    if len(args) == 1 and isinstance(args[0], (ListValue, Group)):
        count = args[0].count if isinstance(args[0], ListValue) else None
        return len(args[0].items) if count is None else count
    return Unknown("int") if len(args) == 1 and isinstance(args[0], Unknown) else NotImplemented


def _size(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    axis = args[1] if len(args) == 2 else named.get("axis", 0)
    tensor = to_tensor(ctx, args[0], span) if args else POISON
    if isinstance(tensor, Poison):
        return POISON
    if not isinstance(axis, int) or not -len(tensor.type.shape) <= axis < len(tensor.type.shape):
        return ctx.error("NL0305", span, "there is no such axis")
    size: Dim = tensor.type.shape[axis]
    return size


def _rank(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    if len(args) != 1 or named:
        return NotImplemented
    flat = leaves(ctx, args[0], span)
    if isinstance(flat, Poison):
        return POISON
    found = {len(tensor.type.shape) for tensor in flat}
    return found.pop() if len(found) == 1 else ctx.error("NL0304", span, "the fields of this group differ in rank")


def make_builtins() -> dict[str, Builtin]:
    """All built-in names."""
    table: dict[str, Apply] = {op: _unary(op) for op in UNARY}
    table |= {"silu": _composite(_silu), "gelu": _composite(_gelu), "gelu_erf": _composite(_gelu_erf)}
    table |= {"min": _extreme("minimum"), "max": _extreme("maximum"), "clamp": _clamp, "where": _where}
    table |= {"grad": _grad, "stop_grad": _stop, "fixed": _fixed, "straight_through": _through}
    table |= {"prev": _prev, "window": _window, "window_mask": _window_mask, "clock": _clock, "next": _next}
    table |= {
        "normal": _init("normal", 1),
        "uniform": _init("uniform", 2),
        "range": _range,
        "length": _length,
        "size": _size,
        "rank": _rank,
    }
    table |= {name: apply for name, apply in ALGEBRA.items() if name not in table}
    return {name: Builtin(name, apply) for name, apply in table.items()}


__all__ = ["Tensor", "make_builtins", "transposed"]
