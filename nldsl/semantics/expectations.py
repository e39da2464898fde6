"""``expect`` in examples: each becomes an output that the reference interpreter evaluates."""

from __future__ import annotations

from nldsl.frontend import ast
from nldsl.semantics.arithmetic import pointwise
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate, executes
from nldsl.semantics.scope import Scope
from nldsl.semantics.tensors import map_groups, to_tensor
from nldsl.semantics.values import Poison, Value

TOLERANCE = 1e-9


@executes(ast.Expect)
def expect(ctx: Context, scope: Scope, statement: ast.Expect) -> None:
    if scope.instance is None or scope.instance.decl.name != "example":
        ctx.error("NL0226", statement.span, "`expect` belongs to an example")
        return
    value = statement.value
    if isinstance(value, ast.Binary) and value.op == "==":
        left, right = evaluate(ctx, scope, value.left), evaluate(ctx, scope, value.right)
        if isinstance(left, str | bool) or isinstance(right, str | bool):
            holds: Value = 1.0 if left == right else 0.0
        else:
            holds = map_groups(ctx, value.span, lambda a, b: _close(ctx, a, b, statement), left, right)
    else:
        holds = evaluate(ctx, scope, value)
    tensor = to_tensor(ctx, holds, statement.span)
    if not isinstance(tensor, Poison):
        ctx.outputs.append((f"expect {len(ctx.outputs) + 1}", tensor.id))
        ctx.expectations.append(statement)


def _close(ctx: Context, left: Value, right: Value, statement: ast.Expect) -> Value:
    span = statement.span
    difference = pointwise(ctx, "abs", span, pointwise(ctx, "sub", span, left, right))
    scale = pointwise(ctx, "maximum", span, 1.0, pointwise(ctx, "abs", span, right))
    return pointwise(ctx, "le", span, difference, pointwise(ctx, "mul", span, TOLERANCE, scale))
