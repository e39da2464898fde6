"""Operators: static numbers at compile time, tensors elementwise, groups field by field, matrix products."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from nldsl import dims
from nldsl.dims import Poly
from nldsl.frontend import ast
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate, evaluates
from nldsl.semantics.scope import Scope
from nldsl.semantics.tensors import as_real, map_groups, rvalue, to_tensor
from nldsl.semantics.values import (
    POISON,
    LevelValue,
    ListValue,
    Poison,
    Tensor,
    Unknown,
    Value,
    describe,
    is_static_number,
    show_type,
)
from nldsl.source import Span

ELEMENTWISE = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "%": "mod",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
    "==": "eq",
    "!=": "ne",
    "and": "logical_and",
    "or": "logical_or",
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@evaluates(ast.Unary)
def unary(ctx: Context, scope: Scope, expr: ast.Unary) -> Value:
    value = rvalue(ctx, evaluate(ctx, scope, expr.value), expr.span)
    if isinstance(value, Poison):
        return POISON
    if expr.op == "not":
        if isinstance(value, (bool, int)):
            return not value
        if isinstance(value, Unknown):
            return value
    elif is_static_number(value):
        return value if isinstance(value, Unknown) else -value
    op = "logical_not" if expr.op == "not" else "neg"
    return map_groups(ctx, expr.span, lambda v: pointwise(ctx, op, expr.span, v), value)


@evaluates(ast.Binary)
def binary(ctx: Context, scope: Scope, expr: ast.Binary) -> Value:
    left = rvalue(ctx, evaluate(ctx, scope, expr.left), expr.left.span)
    right = rvalue(ctx, evaluate(ctx, scope, expr.right), expr.right.span)
    if isinstance(left, Poison) or isinstance(right, Poison):
        return POISON
    if is_static_number(left) and is_static_number(right):
        return static_binary(ctx, expr.op, left, right, expr.span)
    if expr.op in ("==", "!=") and (isinstance(left, str) or isinstance(right, str) or isinstance(left, LevelValue)):
        if isinstance(left, Unknown) or isinstance(right, Unknown):
            return Unknown("bool")
        return (left == right) == (expr.op == "==")
    lists = expr.op == "+" and isinstance(left, ListValue) and isinstance(right, ListValue)
    if lists and not all(is_static_number(i) for i in left.items + right.items):
        return ListValue(left.items + right.items)
    if expr.op == "@":
        return matmul(ctx, left, right, expr)
    if expr.op == "^":
        return map_groups(ctx, expr.span, lambda a, b: power(ctx, a, b, expr.span), left, right)
    if expr.op in ("/", "//", "%") and isinstance(right, (int, float)) and right == 0:
        return ctx.error("NL0214", expr.span, "division by zero")
    if expr.op == "//":
        quotient = map_groups(ctx, expr.span, lambda a, b: pointwise(ctx, "div", expr.span, a, b), left, right)
        return map_groups(ctx, expr.span, lambda v: pointwise(ctx, "floor", expr.span, v), quotient)
    op = ELEMENTWISE[expr.op]
    return map_groups(ctx, expr.span, lambda a, b: pointwise(ctx, op, expr.span, a, b), left, right)


def static_binary(ctx: Context, op: str, left: Any, right: Any, span: Span) -> Value:
    if isinstance(left, Unknown) or isinstance(right, Unknown):
        return Unknown("bool" if op in ("<", "<=", ">", ">=", "==", "!=", "and", "or") else "real")
    if isinstance(left, Poly) or isinstance(right, Poly):
        return _symbolic_binary(ctx, op, left, right, span)
    try:
        if op in ("+", "-", "*"):
            result: Any = {"+": operator.add, "-": operator.sub, "*": operator.mul}[op](left, right)
        elif op == "/":
            exact = isinstance(left, int) and isinstance(right, int) and right != 0 and left % right == 0
            result = left // right if exact else left / right
        elif op == "//":
            result = left // right
        elif op == "%":
            result = left % right
        elif op == "^":
            result = _static_power(left, right)
        elif op in _COMPARE:
            return _COMPARE[op](left, right)
        elif op == "==":
            return bool(left == right)
        elif op == "!=":
            return bool(left != right)
        elif op == "and":
            return bool(left) and bool(right)
        elif op == "or":
            return bool(left) or bool(right)
        else:
            return ctx.error("NL0207", span, f"`{op}` needs tensors, found two numbers")
    except ZeroDivisionError:
        return ctx.error("NL0214", span, "division by zero")
    except (OverflowError, ValueError):
        return ctx.error("NL0214", span, "this number is too large")
    if isinstance(result, complex) or (isinstance(result, int) and abs(result) > ctx.limits.magnitude):
        return ctx.error("NL0214", span, "this number is too large or not real")
    return result


def _static_power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and right >= 0:
        if right > 64 and abs(left) > 1:
            raise OverflowError
        return left**right
    return float(left) ** float(right)


def _symbolic_binary(ctx: Context, op: str, left: Any, right: Any, span: Span) -> Value:
    if isinstance(left, float) or isinstance(right, float):
        return Unknown("bool" if op in ("<", "<=", ">", ">=", "==", "!=") else "real")
    if op in ("+", "-", "*"):
        return {"+": operator.add, "-": operator.sub, "*": operator.mul}[op](left, right)
    if op == "/":
        quotient = dims.divide(left, right)
        return Unknown("real") if quotient is None else quotient
    if op == "//":
        return dims.floor_divide(left, right) or Unknown("int")
    if op == "%":
        return dims.symbol(f"({left})%({right})")
    if op == "^":
        if isinstance(right, int) and 0 <= right <= 8 and not isinstance(left, int):
            result: Any = 1
            for _ in range(right):
                result = result * left
            return result
        return Unknown("real")
    if op in ("==", "!=") and left == right:
        return op == "=="
    return Unknown("bool")


def pointwise(ctx: Context, op: str, span: Span, *values: Value) -> Value:
    """A pointwise operation on tensors, lifting numbers; integers take part as reals, except among themselves."""
    tensors: list[Tensor] = []
    for value in values:
        tensor = to_tensor(ctx, value, span)
        if isinstance(tensor, Poison):
            return POISON
        tensors.append(tensor)
    if any(t.type.kind == "real" for t in tensors) or op in ("div", "neg"):
        tensors = [as_real(ctx, t, span) for t in tensors]
    return ctx.emit(op, *tensors, span=span, hints=_sides(tensors))


def _sides(tensors: list[Tensor]) -> tuple[str, ...]:
    """A vector that fits the rows of a matrix, but was given where the columns are scaled."""
    shapes = sorted((t.type.shape for t in tensors), key=len)
    if len(shapes) == 2 and len(shapes[0]) == 1 and len(shapes[1]) == 2 and shapes[0][0] == shapes[1][0]:
        return ("a vector scales the columns (the last axis); `column(a)` scales the rows",)
    return ()


def power(ctx: Context, base: Value, exponent: Value, span: Span) -> Value:
    if isinstance(exponent, (int, float)) and float(exponent) == 2.0:
        tensor = to_tensor(ctx, base, span)
        return POISON if isinstance(tensor, Poison) else pointwise(ctx, "mul", span, tensor, tensor)
    if isinstance(exponent, (int, float)) and float(exponent) == 1.0:
        return base
    if isinstance(exponent, (int, float)) and float(exponent) == 0.5:
        return pointwise(ctx, "sqrt", span, real(ctx, base, span))
    if isinstance(exponent, int):
        exponent = float(exponent)
    return pointwise(ctx, "pow", span, real(ctx, base, span), exponent)


def real(ctx: Context, value: Value, span: Span) -> Value:
    tensor = to_tensor(ctx, value, span)
    return POISON if isinstance(tensor, Poison) else as_real(ctx, tensor, span)


_PRODUCTS = {(2, 1): "ij,j->i", (2, 2): "ij,jk->ik", (1, 2): "i,ij->j", (1, 1): "i,i->"}


def matmul(ctx: Context, left: Value, right: Value, expr: ast.Binary) -> Value:
    a, b = to_tensor(ctx, left, expr.left.span), to_tensor(ctx, right, expr.right.span)
    if isinstance(a, Poison) or isinstance(b, Poison):
        return POISON
    spec = _PRODUCTS.get((len(a.type.shape), len(b.type.shape)))
    if spec is None:
        return ctx.error(
            "NL0301",
            expr.span,
            f"`@` multiplies matrices and vectors, found {show_type(a.type)} and {show_type(b.type)}",
            hints=("`*` multiplies entry by entry",),
        )
    if a.type.shape[-1] != b.type.shape[0]:
        hints: tuple[str, ...] = ()
        if len(a.type.shape) == 2 and a.type.shape[0] == b.type.shape[0]:
            hints = ("transpose the left side with `'`",)
        return ctx.error(
            "NL0301",
            expr.span,
            f"{show_type(a.type)} @ {show_type(b.type)}: {a.type.shape[-1]} is not {b.type.shape[0]}",
            related=(
                (expr.left.span, f"this is {show_type(a.type)}"),
                (expr.right.span, f"this is {show_type(b.type)}"),
            ),
            hints=hints,
        )
    return ctx.emit("einsum", as_real(ctx, a, expr.span), as_real(ctx, b, expr.span), span=expr.span, spec=spec)


@evaluates(ast.Transpose)
def transpose(ctx: Context, scope: Scope, expr: ast.Transpose) -> Value:
    value = evaluate(ctx, scope, expr.value)
    return map_groups(ctx, expr.span, lambda v: transposed(ctx, v, expr.span), value)


def transposed(ctx: Context, value: Value, span: Span) -> Value:
    tensor = to_tensor(ctx, value, span)
    if isinstance(tensor, Poison):
        return POISON
    if len(tensor.type.shape) != 2:
        return ctx.error("NL0301", span, f"only a matrix can be transposed, found {show_type(tensor.type)}")
    return ctx.emit("einsum", as_real(ctx, tensor, span), span=span, spec="ij->ji")


@evaluates(ast.IfExpr)
def if_expression(ctx: Context, scope: Scope, expr: ast.IfExpr) -> Value:
    condition = rvalue(ctx, evaluate(ctx, scope, expr.condition), expr.condition.span)
    if isinstance(condition, Poison):
        return POISON
    if isinstance(condition, (bool, int, float)):
        return evaluate(ctx, scope, expr.then if condition else expr.otherwise)
    if isinstance(condition, (Unknown, Poly)):
        other = evaluate(ctx, scope, expr.otherwise)
        return POISON if isinstance(other, Poison) else evaluate(ctx, scope, expr.then)
    if not isinstance(condition, Tensor):
        return ctx.error(
            "NL0207", expr.condition.span, f"a condition is a bool or a tensor, found {describe(condition)}"
        )
    then, other = evaluate(ctx, scope, expr.then), evaluate(ctx, scope, expr.otherwise)
    return map_groups(ctx, expr.span, lambda a, b: where(ctx, condition, a, b, expr.span), then, other)


def where(ctx: Context, condition: Value, then: Value, other: Value, span: Span) -> Value:
    tensors = [to_tensor(ctx, v, span) for v in (condition, then, other)]
    if any(isinstance(t, Poison) for t in tensors):
        return POISON
    c, a, b = (t for t in tensors if isinstance(t, Tensor))
    if a.type.kind != b.type.kind:
        a, b = as_real(ctx, a, span), as_real(ctx, b, span)
    return ctx.emit("where", c, a, b, span=span)
