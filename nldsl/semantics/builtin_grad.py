"""``grad``, ``stop_grad``, ``fixed`` and ``straight_through``."""

from __future__ import annotations

from nldsl.semantics.context import Context
from nldsl.semantics.tensors import as_real, leaves, map_groups, rebuild, rvalue, to_tensor
from nldsl.semantics.values import POISON, Poison, Tensor, Value, is_static_number, show_type
from nldsl.semantics.zero_gradient import note_gradient
from nldsl.source import Span


def gradient(ctx: Context, loss: Value, wrt: Value, span: Span) -> Value:
    """``grad(loss, x)``: kept as an operation here, expanded by the pass ``derive``."""
    if isinstance(loss, Poison) or isinstance(wrt, Poison):
        return POISON
    scalar = to_tensor(ctx, loss, span, "the loss")
    if isinstance(scalar, Poison):
        return POISON
    if scalar.type.shape:
        return ctx.error(
            "NL0501",
            span,
            f"`grad` differentiates a scalar, the loss is {show_type(scalar.type)}",
            hints=("`sum(...)` makes it one",),
        )
    if is_static_number(wrt):
        return ctx.error("NL0502", span, "`grad` differentiates with respect to a tensor, not a number")
    variables = rvalue(ctx, wrt, span)
    flat = leaves(ctx, variables, span)
    if isinstance(flat, Poison):
        return POISON
    for variable in flat:
        if variable.type.kind == "int":
            return ctx.error("NL0502", span, "an integer has no derivative")
    note_gradient(ctx, scalar, wrt, flat, span)
    found = [ctx.emit("grad", as_real(ctx, scalar, span), *flat, span=span, index=n) for n in range(len(flat))]
    if any(isinstance(f, Poison) for f in found):
        return POISON
    owner = ctx.active_owner()
    if owner and ctx.builder is ctx.body and len(ctx.probes) < 256:
        ctx.probes.setdefault(f"{owner}.loss", scalar.id)
    return rebuild(variables, list(found))


def constant_for(ctx: Context, op: str, value: Value, span: Span) -> Value:
    """The value, with derivative zero: everywhere (``stop_grad``), or for the program's own ``grad`` (``fixed``)."""

    def one(part: Value) -> Value:
        tensor = to_tensor(ctx, part, span)
        return POISON if isinstance(tensor, Poison) else ctx.emit(op, tensor, span=span)

    return map_groups(ctx, span, one, value)


def straight_through(ctx: Context, value: Value, surrogate: Value, span: Span) -> Value:
    """The value of the first with the derivative of the second: ``s + stop_grad(e - s)``."""

    def one(a: Value, b: Value) -> Value:
        exact, smooth = to_tensor(ctx, a, span), to_tensor(ctx, b, span)
        if not isinstance(exact, Tensor) or not isinstance(smooth, Tensor):
            return POISON
        rest = ctx.emit("stop_grad", ctx.emit("sub", exact, smooth, span=span), span=span)
        return ctx.emit("add", smooth, rest, span=span)

    return map_groups(ctx, span, one, value, surrogate)
