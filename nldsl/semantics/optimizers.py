"""Optimizer memories where the compiler applies them: at outer levels (a program of their own) and to fast weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.dims import Dim
from nldsl.frontend import ast
from nldsl.ir.program import Program
from nldsl.limits import Limits
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate
from nldsl.semantics.scope import Scope
from nldsl.semantics.tensors import to_tensor
from nldsl.semantics.units import instantiate
from nldsl.semantics.values import POISON, BoundMethod, Instance, Poison, Template, Tensor, Unknown, describe
from nldsl.source import Span


def optimizer_template(ctx: Context, scope: Scope, expr: ast.Expr) -> Template | None:
    """The memory after ``with``, checked to have a ``learn`` that takes a gradient; None after a diagnostic."""
    value = evaluate(ctx, scope, expr)
    if isinstance(value, (Poison, Unknown)):
        return None
    if not isinstance(value, Template) or value.decl.keyword != "memory":
        ctx.error(
            "NL0603",
            expr.span,
            f"an optimizer is a memory, found {describe(value)}",
            hints=("for example `with AdamW(rate = 3e-4)`",),
        )
        return None
    learn = learn_method(value.decl)
    if learn is None or not learn.params:
        ctx.error(
            "NL0603",
            expr.span,
            f"`{value.decl.name}` has no method `learn(g, ...)`, so it is not an optimizer",
            related=((value.decl.name_span, "declared here"),),
        )
        return None
    return value


def learn_method(decl: ast.Unit) -> ast.Method | None:
    return next((m for m in decl.members if isinstance(m, ast.Method) and m.name == "learn"), None)


def update_of(
    ctx: Context, template: Template, gradient: Tensor, weight: Tensor, name: str, owner: Instance | None, span: Span
) -> Tensor | Poison:
    """The change an optimizer memory makes of a gradient: a new instance, its ``learn`` called here."""
    from nldsl.semantics.calls import call_method

    given = {n: (v, span) for n, v in template.bound}
    with ctx.place(anchor=None):
        instance = instantiate(ctx, template, given, name.rpartition(".")[2], owner, span)
    if isinstance(instance, Poison):
        return POISON
    learn = learn_method(template.decl)
    assert learn is not None
    arguments: list[tuple[str | None, Any, Span]] = [(None, gradient, span)]
    if any(p.name == "weight" for p in learn.params):
        arguments.append(("weight", weight, span))
    change = call_method(ctx, BoundMethod(instance, learn), arguments, span)
    if isinstance(change, Poison):
        return POISON
    if change is None:
        return ctx.error(
            "NL0605",
            learn.name_span,
            f"`{template.decl.name}.learn` returns nothing; an optimizer returns the change to add",
        )
    tensor = to_tensor(ctx, change, span)
    if isinstance(tensor, Tensor) and tensor.type.shape != gradient.type.shape:
        return ctx.error(
            "NL0605",
            learn.name_span,
            f"`{template.decl.name}.learn` returns {describe(tensor)} for a gradient {describe(gradient)}",
        )
    return tensor


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer at an outer level: specialized to the shape of each parameter it trains."""

    template: Template = field(compare=False, repr=False)
    name: str
    limits: Limits = field(default_factory=Limits, compare=False, repr=False)

    def __call__(self, shape: tuple[Dim, ...]) -> Program:
        """The program of one tick: inputs ``g`` and perhaps ``weight``, output ``change``; raises DiagnosticError."""
        from nldsl.semantics.assemble import optimizer_program

        bag = DiagnosticBag(self.limits.diagnostics)
        program = optimizer_program(self.template, tuple(shape), bag, self.limits)
        bag.raise_if_errors()
        assert program is not None
        return program
