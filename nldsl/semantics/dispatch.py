"""Which function elaborates which kind of node. Modules register their handlers; ``elaborate.py`` imports them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from nldsl.frontend import ast
from nldsl.semantics.context import Context
from nldsl.semantics.scope import Scope
from nldsl.semantics.values import Value

Handler = TypeVar("Handler", bound=Callable[..., Any])

_EVALUATE: dict[type, Callable[[Context, Scope, Any], Value]] = {}
_EXECUTE: dict[type, Callable[[Context, Scope, Any], Any]] = {}


def evaluates(node: type) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _EVALUATE[node] = handler
        return handler

    return register


def executes(node: type) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _EXECUTE[node] = handler
        return handler

    return register


def evaluate(ctx: Context, scope: Scope, expr: ast.Expr) -> Value:
    """The value of an expression; POISON when it caused a diagnostic."""
    return _EVALUATE[type(expr)](ctx, scope, expr)


def execute(ctx: Context, scope: Scope, statement: ast.Statement) -> None:
    """Carry out one statement."""
    _EXECUTE[type(statement)](ctx, scope, statement)
