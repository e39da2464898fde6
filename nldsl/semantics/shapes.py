"""Declared types: evaluating them, and matching arguments against them (shape variables are bound, sizes unified)."""

from __future__ import annotations

from typing import Any

from nldsl.dims import Dim, Poly, solve_linear, substitute
from nldsl.frontend import ast
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate
from nldsl.semantics.scope import Scope
from nldsl.semantics.tensors import as_real, rvalue, to_tensor
from nldsl.semantics.values import (
    POISON,
    Builtin,
    FunctionValue,
    Group,
    InitValue,
    Instance,
    LevelValue,
    ListValue,
    Poison,
    Template,
    Tensor,
    Unknown,
    Value,
    article,
    describe,
    show_type,
)
from nldsl.source import Span

STATIC_KINDS: dict[str, tuple[type, ...]] = {
    "dim": (int, Poly),
    "int": (int, Poly),
    "real": (int, float, Poly),
    "bool": (bool,),
    "text": (str,),
    "level": (LevelValue,),
    "fn": (FunctionValue, Builtin),
    "memory": (Template, Instance),
    "block": (Template, Instance),
    "init": (InitValue, int, float),
}


def dimension(ctx: Context, scope: Scope, expr: ast.Expr) -> Dim | None:
    """The size an expression stands for; None after a diagnostic."""
    value = rvalue(ctx, evaluate(ctx, scope, expr), expr.span)
    if isinstance(value, Poison):
        return None
    if isinstance(value, Unknown) and value.kind in ("int", "real"):
        from nldsl.dims import symbol

        # a parameter without a type that is used as a size is the same size everywhere
        return symbol(expr.id if isinstance(expr, ast.Name) else f"size@{expr.span.start}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, Poly)):
        hints = ("the sizes do not divide exactly",) if isinstance(value, float) else ()
        shown = f"{value}" if isinstance(value, float) else describe(value)
        ctx.error("NL0302", expr.span, f"a dimension is a positive integer, found {shown}", hints=hints)
        return None
    if isinstance(value, int) and value < 1:
        ctx.error("NL0302", expr.span, f"a dimension is a positive integer, found {value}")
        return None
    return value


def tensor_shape(ctx: Context, scope: Scope, type: ast.TensorType) -> tuple[Dim, ...] | None:
    found = [dimension(ctx, scope, d) for d in type.dims]
    return None if any(d is None for d in found) else tuple(d for d in found if d is not None)


def bind_argument(
    ctx: Context, scope: Scope, param: ast.Param, value: Value, span: Span, free: dict[str, Dim | None]
) -> Value:
    """Check an argument against its declared type; bind new shape variables in ``scope``; ``free``: those so far."""
    if isinstance(value, Poison):
        return POISON
    type = param.type
    if isinstance(type, ast.TensorType):
        return _tensor_argument(ctx, scope, param, type, value, span, free)
    if isinstance(type, ast.NamedType):
        return _static_argument(ctx, param, type.name, value, span)
    if isinstance(type, ast.ListType):
        if isinstance(value, (Unknown, ListValue)):
            return value
        return ctx.error("NL0308", span, f"`{param.name}` is a list of {type.item}s, found {describe(value)}")
    if isinstance(type, ast.LikeType):
        return _like_argument(ctx, scope, param, type, value, span)
    return rvalue(ctx, value, span) if not isinstance(value, Instance) else value


def _static_argument(ctx: Context, param: ast.Param, kind: str, value: Value, span: Span) -> Value:
    allowed = STATIC_KINDS.get(kind)
    if allowed is None:
        assert param.type is not None
        return ctx.error(
            "NL0308",
            getattr(param.type, "span", span),
            f"unknown type `{kind}`",
            hints=("the static types are dim, int, real, bool, text, level, fn, memory, block, init and list[..]",),
        )
    if isinstance(value, Unknown):
        return value
    hints = ("the sizes do not divide exactly",) if kind in ("dim", "int") and isinstance(value, float) else ()
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind != "bool"):
        return ctx.error("NL0308", span, f"`{param.name}` is {article(kind)}, found {describe(value)}", hints=hints)
    if kind == "dim" and isinstance(value, int) and value < 1:
        return ctx.error("NL0302", span, f"`{param.name}` is a dimension, a positive integer, found {value}")
    return value


def _tensor_argument(
    ctx: Context,
    scope: Scope,
    param: ast.Param,
    type: ast.TensorType,
    value: Value,
    span: Span,
    free: dict[str, Dim | None],
) -> Value:
    tensor = to_tensor(ctx, value, span, f"`{param.name}`")
    if isinstance(tensor, Poison):
        return POISON
    if not type.integer:
        tensor = as_real(ctx, tensor, span)
    elif tensor.type.kind != "int":
        return ctx.error("NL0303", span, f"`{param.name}` is an integer tensor, found {show_type(tensor.type)}")
    if type.any_shape:
        return tensor
    if len(type.dims) != len(tensor.type.shape):
        return _mismatch(ctx, scope, param, type, tensor, span, free)
    for expr, actual in zip(type.dims, tensor.type.shape, strict=False):
        if isinstance(expr, ast.Name) and scope.find(expr.id) is None:
            scope.bind(expr.id, actual, expr.span)
            free[expr.id] = actual
            continue
        declared = dimension(ctx, scope, expr)
        if declared is None:
            return POISON
        if declared != actual:
            return _mismatch(ctx, scope, param, type, tensor, span, free)
    return tensor


def _mismatch(
    ctx: Context,
    scope: Scope,
    param: ast.Param,
    type: ast.TensorType,
    tensor: Tensor,
    span: Span,
    free: dict[str, Dim | None],
) -> Value:
    known = [f"{n} = {d}" for n, d in free.items()]
    return ctx.error(
        "NL0303",
        span,
        f"`{param.name}` is {show_declared(type)}, found {show_type(tensor.type)}",
        label=f"this is {show_type(tensor.type)}",
        related=((param.span, "declared here"),),
        notes=(f"with {', '.join(known)} from the other arguments",) if known else (),
    )


def show_declared(type: ast.TensorType) -> str:
    if type.any_shape:
        return "[...]"
    texts = [d.span.text for d in type.dims]
    return ("int" if type.integer else "") + "[" + ", ".join(texts) + "]"


def _like_argument(ctx: Context, scope: Scope, param: ast.Param, type: ast.LikeType, value: Value, span: Span) -> Value:
    binding = scope.find(type.name)
    value = rvalue(ctx, value, span)
    if binding is None:
        return ctx.error("NL0201", type.span, f"unknown name `{type.name}`")
    if isinstance(value, Poison) or not same_structure(ctx, rvalue(ctx, binding.value, span), value):
        if isinstance(value, Poison):
            return POISON
        return ctx.error(
            "NL0303",
            span,
            f"`{param.name}` is like `{type.name}`, which has another shape",
            related=((param.span, "declared here"),),
        )
    return value


def same_structure(ctx: Context, left: Value, right: Value) -> bool:
    if isinstance(left, Poison) or isinstance(right, Poison):
        return True
    if isinstance(left, Group) and isinstance(right, Group):
        return len(left.items) == len(right.items) and all(
            same_structure(ctx, a, b) for a, b in zip(left.items, right.items, strict=False)
        )
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.type.shape == right.type.shape
    return not isinstance(left, (Group, Tensor)) or not isinstance(right, (Group, Tensor))


def check_result(ctx: Context, scope: Scope, type: ast.TypeExpr | None, value: Value, what: str, span: Span) -> Value:
    """A function's or method's result against its declared type; result-only sizes are bound."""
    if type is None or isinstance(value, Poison):
        return value
    if isinstance(type, ast.LikeType):
        binding = scope.find(type.name)
        if binding is None:
            return ctx.error("NL0201", type.span, f"unknown name `{type.name}`")
        expected = rvalue(ctx, binding.value, span)
        value = rvalue(ctx, value, span)
        if isinstance(expected, Tensor) and not isinstance(value, (Tensor, Group, Poison)):
            value = to_tensor(ctx, value, span)
        if not same_structure(ctx, expected, value) or isinstance(expected, Group) != isinstance(value, Group):
            shown = f", found {describe(value)}"
            return ctx.error(
                "NL0307",
                span,
                f"the result of {what} is like `{type.name}`{shown}",
                related=((type.span, "declared here"),),
            )
        return value
    if isinstance(type, ast.TensorType):
        tensor = to_tensor(ctx, value, span, f"the result of {what}")
        if isinstance(tensor, Poison):
            return POISON
        if not type.integer:
            tensor = as_real(ctx, tensor, span)
        if type.any_shape:
            return tensor
        if not _shape_fits(ctx, scope, type, tensor):
            return ctx.error(
                "NL0307",
                span,
                f"the result of {what} is {show_declared(type)}, found {show_type(tensor.type)}",
                related=((type.span, "declared here"),),
            )
        return tensor
    return value


def _shape_fits(ctx: Context, scope: Scope, type: ast.TensorType, tensor: Tensor) -> bool:
    if len(type.dims) != len(tensor.type.shape):
        return False
    for expr, actual in zip(type.dims, tensor.type.shape, strict=False):
        if isinstance(expr, ast.Name) and scope.find(expr.id) is None:
            scope.bind(expr.id, actual, expr.span)
            continue
        declared = dimension(ctx, scope, expr)
        if declared is not None and declared != actual:
            return False
    return True


__all__: list[Any] = [
    "bind_argument",
    "check_result",
    "dimension",
    "same_structure",
    "show_declared",
    "solve_linear",
    "substitute",
    "tensor_shape",
]
