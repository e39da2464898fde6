"""Checking declarations for all sizes: each is elaborated with symbols for the static parameters it leaves open."""

from __future__ import annotations

from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.dims import symbol
from nldsl.frontend import ast
from nldsl.ir.types import Type
from nldsl.limits import Limits
from nldsl.semantics.assemble import unit_program
from nldsl.semantics.calls import apply, symbolic
from nldsl.semantics.context import Context, TooMuchError
from nldsl.semantics.dispatch import execute
from nldsl.semantics.scope import Scope
from nldsl.semantics.shapes import tensor_shape
from nldsl.semantics.values import POISON, FunctionValue, Instance, Tensor, Value


def check_declarations(file: ast.File, scope: Scope, bag: DiagnosticBag, limits: Limits) -> None:
    """Report the mistakes of every declaration of a file."""
    for declaration in file.declarations:
        if bag.is_full:
            return
        if isinstance(declaration, ast.Unit):
            _check_self(declaration, bag)
            unit_program(declaration, scope, {}, bag, limits, generic=True)
        elif isinstance(declaration, ast.Function):
            _check_function(declaration, scope, bag, limits)
        elif isinstance(declaration, ast.Example):
            _check_example(declaration, scope, bag, limits)


def _check_self(decl: ast.Unit, bag: DiagnosticBag) -> None:
    """`step(self, x: [d])`."""
    for method in decl.members:
        if isinstance(method, ast.Method) and method.params and method.params[0].name in ("self", "this"):
            first = method.params[0]
            hint = "states and methods of the memory are named as they are: `S`, `read(q)`"
            bag.error("NL0115", first.span, f"`{first.name}` is not written", hints=(hint,))


def _check_function(decl: ast.Function, scope: Scope, bag: DiagnosticBag, limits: Limits) -> None:
    ctx = Context(bag, limits, generic=True)
    holder = scope.child()
    given: list[tuple[str | None, Value, object]] = []
    for param in decl.params:
        if param.default is not None:
            continue
        value = _symbolic_argument(ctx, holder, param)
        if value is POISON:
            return  # it takes a function or memory: checked where it is called
        given.append((param.name, value, param.span))
    try:
        apply(ctx, scope, FunctionValue(decl, scope), given, decl.name_span)  # type: ignore[arg-type]
    except TooMuchError:
        return


def _symbolic_argument(ctx: Context, scope: Scope, param: ast.Param) -> Value:
    if isinstance(param.type, ast.NamedType):
        if param.type.name in ("dim", "int", "real", "bool", "text"):
            value = symbolic(param)
            scope.bind(param.name, value, param.span)
            return value
        return POISON
    if isinstance(param.type, ast.TensorType) and not param.type.any_shape:
        for expr in param.type.dims:
            if isinstance(expr, ast.Name) and scope.find(expr.id) is None:
                scope.bind(expr.id, symbol(expr.id), expr.span)
        shape = tensor_shape(ctx, scope, param.type)
        if shape is None:
            return POISON
        type = Type(shape, (), "int" if param.type.integer else "real")
        return Tensor(ctx.leaf("input", type, param.name, param.span, input=param.name), ctx.body)
    if isinstance(param.type, ast.TensorType):
        shape = (symbol("n"),)
        return Tensor(ctx.leaf("input", Type(shape), param.name, param.span, input=param.name), ctx.body)
    return POISON


def elaborate_example(decl: ast.Example, scope: Scope, bag: DiagnosticBag, limits: Limits) -> Context | None:
    """The one tick of an example; its expectations are the outputs ``expect 1``, ``expect 2``, ..."""
    ctx = Context(bag, limits, batched=False)
    unit = ast.Unit("block", "example", (), decl.body, "", decl.span, decl.span)
    inner = scope.child()
    root = Instance("", unit, inner, ())
    inner.instance = root
    ctx.instances.append(root)
    try:
        for statement in decl.body:
            execute(ctx, inner, statement)
    except TooMuchError:
        return None
    return ctx


def _check_example(decl: ast.Example, scope: Scope, bag: DiagnosticBag, limits: Limits) -> None:
    elaborate_example(decl, scope, bag, limits)
