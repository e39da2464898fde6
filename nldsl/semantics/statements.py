"""Statements of bodies: bindings, state assignments, and the loops that unroll."""

from __future__ import annotations

from nldsl.dims import Poly
from nldsl.frontend import ast
from nldsl.ir.types import BATCH
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate, execute, executes
from nldsl.semantics.scope import Scope
from nldsl.semantics.shapes import dimension, show_declared, tensor_shape
from nldsl.semantics.spelling import closest
from nldsl.semantics.tensors import as_real, instance_state, rvalue, to_tensor
from nldsl.semantics.values import (
    POISON,
    Cell,
    Group,
    Instance,
    ListValue,
    Poison,
    StateRef,
    Tensor,
    Unknown,
    Value,
    article,
    describe,
    show_type,
)
from nldsl.source import Span


@executes(ast.Bind)
def bind(ctx: Context, scope: Scope, statement: ast.Bind) -> None:
    value = evaluate(ctx, scope, statement.value)
    value = value if isinstance(value, (Instance, StateRef)) else rvalue(ctx, value, statement.span)
    if isinstance(value, StateRef) or (isinstance(value, Instance) and value.decl.keyword == "memory"):
        value = rvalue(ctx, value, statement.span)  # a name is a value of the moment, not the state itself
    target = statement.target
    if value is None:
        value = ctx.error("NL0209", statement.value.span, "this call returns nothing")
    if statement.type is not None and not isinstance(value, Poison):
        value = _annotated(ctx, scope, statement, value)
    if target.group:
        _destructure(ctx, scope, target, value)
        return
    if len(target.names) > 1:
        ctx.error("NL0208", target.span, "only a state of an instance can be set from outside: use `<-`")
        return
    name = target.names[0]
    holder = scope.find(name)
    if holder is not None and isinstance(holder.value, StateRef):
        ctx.error(
            "NL0208",
            target.span,
            f"`{name}` is a state; `=` would hide it behind a new name",
            hints=(f"to change the state write `{name} <- ...`",),
        )
        return
    if isinstance(value, Tensor) and value.builder is ctx.body and not ctx.body.instrs[value.id].name:
        _name_value(ctx, value, name)
    scope.bind(name, value, target.span, ctx.guard)


def _name_value(ctx: Context, value: Tensor, name: str) -> None:
    """Give the instruction the program's name, so that every printed form uses it."""
    from dataclasses import replace

    instr = ctx.body.instrs[value.id]
    if instr.op not in ("const", "input", "param", "state", "anchor"):
        ctx.body.instrs[value.id] = replace(instr, name=name)


def _annotated(ctx: Context, scope: Scope, statement: ast.Bind, value: Value) -> Value:
    if not isinstance(statement.type, ast.TensorType):
        return value
    tensor = to_tensor(ctx, value, statement.span)
    shape = tensor_shape(ctx, scope, statement.type)
    if isinstance(tensor, Poison) or shape is None or statement.type.any_shape:
        return tensor
    if tensor.type.shape == shape:
        return tensor
    if not tensor.type.shape:
        return ctx.emit("broadcast", tensor, span=statement.span, shape=shape)
    return ctx.error(
        "NL0303",
        statement.value.span,
        f"`{statement.target.names[0]}` is {show_declared(statement.type)}, found {show_type(tensor.type)}",
        related=((statement.type.span, "declared here"),),
    )


def _destructure(ctx: Context, scope: Scope, target: ast.Target, value: Value) -> None:
    items: tuple[Value, ...]
    if isinstance(value, (Group, ListValue)):
        items = value.items
    elif isinstance(value, Poison):
        items = (POISON,) * len(target.names)
    else:
        ctx.error("NL0304", target.span, f"a group is needed on the right side, found {describe(value)}")
        items = (POISON,) * len(target.names)
    if len(items) != len(target.names):
        ctx.error("NL0304", target.span, f"{len(target.names)} names for a group of {len(items)}")
        items = (POISON,) * len(target.names)
    for name, item in zip(target.names, items, strict=False):
        scope.bind(name, item, target.span, ctx.guard)


# ---------------------------------------------------------------- states


@executes(ast.Assign)
def assign(ctx: Context, scope: Scope, statement: ast.Assign) -> None:
    if ctx.pure:
        ctx.error("NL0217", statement.span, f"{article(ctx.pure)} is pure: it cannot change a state")
        return
    if ctx.anchor is not None:
        ctx.error(
            "NL0405",
            statement.span,
            "a state cannot be changed inside `at start of`",
            hints=("anchor the gradient, not the write",),
        )
        return
    refs = _targets(ctx, scope, statement.target)
    value = rvalue(ctx, evaluate(ctx, scope, statement.value), statement.value.span)
    if refs is None or isinstance(value, Poison):
        return
    if value is None:
        ctx.error("NL0209", statement.value.span, "this call returns nothing")
        return
    if statement.target.group:
        if isinstance(value, Group) and len(value.items) == len(refs):
            for ref, item in zip(refs, value.items, strict=False):
                _store(ctx, ref, item, statement)
            return
        if isinstance(value, Group):
            ctx.error("NL0304", statement.span, f"{len(refs)} states take a group of {len(value.items)}")
            return
    for ref in refs:
        _store(ctx, ref, value, statement)


def _targets(ctx: Context, scope: Scope, target: ast.Target) -> list[StateRef] | None:
    if target.group:
        found = [_state(ctx, scope, name, target.span) for name in target.names]
        return None if any(f is None for f in found) else [f for f in found if isinstance(f, StateRef)]
    first = _state(ctx, scope, target.names[0], target.span, allow_instance=len(target.names) > 1)
    if len(target.names) == 1:
        return None if first is None or isinstance(first, Instance) else [first]
    if not isinstance(first, Instance):
        if first is not None:
            ctx.error("NL0205", target.span, f"the state `{target.names[0]}` has no parts to assign")
        return None
    binding = first.scope.bindings.get(target.names[1])
    if binding is None or not isinstance(binding.value, StateRef):
        close = closest(target.names[1], list(first.scope.bindings))
        ctx.error(
            "NL0208",
            target.span,
            f"{describe(first)} has no state `{target.names[1]}`",
            hints=(f"did you mean `{close}`?",) if close else (),
        )
        return None
    return [binding.value]


def _state(
    ctx: Context, scope: Scope, name: str, span: Span, allow_instance: bool = False
) -> StateRef | Instance | None:
    binding = scope.find(name)
    value = binding.value if binding else None
    if isinstance(value, StateRef):
        return value
    if isinstance(value, Instance):
        return value if allow_instance else instance_state(value)
    if isinstance(value, Poison):
        return None
    if binding is None and scope.instance is not None and name in scope.instance.deferred:
        ctx.error(
            "NL0215",
            span,
            f"the shape of `{name}` is not known yet",
            hints=("it is set by the first call of the method whose parameter it is like",),
        )
        return None
    close = closest(name, [n for n in scope.names() if isinstance(getattr(scope.find(n), "value", None), StateRef)])
    what = f"`{name}` is {describe(value)}, not a state" if binding else f"there is no state `{name}`"
    hints = (
        (f"did you mean `{close}`?",)
        if close
        else (f"`{name} = ...` names a value; `state {name} ...` declares a state",)
    )
    ctx.error("NL0208", span, what, hints=hints)
    return None


def _store(ctx: Context, ref: StateRef | Instance, value: Value, statement: ast.Assign) -> None:
    if isinstance(ref, Instance):
        ref = instance_state(ref)
    if not isinstance(ref.cells, Cell):
        if isinstance(value, Group) and len(value.items) != len(ref.cells):
            ctx.error(
                "NL0304", statement.span, f"`{ref.name}` has {len(ref.cells)} parts, the value {len(value.items)}"
            )
            return
        for n, part in enumerate(ref.cells):
            _store(ctx, part, value.items[n] if isinstance(value, Group) else value, statement)
        return
    _store_cell(ctx, ref.cells, value, statement)


def _store_cell(ctx: Context, cell: Cell, value: Value, statement: ast.Assign) -> None:
    span = statement.value.span
    tensor = to_tensor(ctx, value, span)
    if isinstance(tensor, Poison):
        return
    tensor = as_real(ctx, tensor, span)
    if tensor.type.shape != cell.type.shape:
        if len(tensor.type.shape) > 0:
            ctx.error(
                "NL0309",
                span,
                f"the state `{cell.name.rpartition('.')[2]}` is {show_type(cell.type)}, "
                f"the new value {show_type(tensor.type)}",
                label=f"this is {show_type(tensor.type)}",
                related=((cell.span, "the state is declared here"),),
            )
            return
        tensor = ctx.emit("broadcast", tensor, span=span, shape=cell.type.shape)
    extra = set(tensor.type.axes) - set(cell.type.axes)
    if cell.shared:
        extra -= {BATCH}
    if extra:
        ctx.error(
            "NL0219",
            span,
            f"`{cell.name}` exists once, but every copy assigns its own value",
            hints=("reduce over the copies first",),
        )
        return
    if cell.shared and BATCH in tensor.type.axes:
        old = Tensor(cell.current, ctx.body)
        change = ctx.emit("batch_mean", ctx.emit("sub", tensor, old, span=span), span=span)
        tensor = ctx.emit("add", old, change, span=span)
    cell.current = tensor.id
    if ctx.guard is None:
        cell.written = True


# ---------------------------------------------------------------- control


@executes(ast.Return)
def return_statement(ctx: Context, scope: Scope, statement: ast.Return) -> None:
    """A ``return`` inside ``if``: picked up by the body that contains it."""
    scope.bind("return", rvalue(ctx, evaluate(ctx, scope, statement.value), statement.span), statement.span)


@executes(ast.ExprStatement)
def expression_statement(ctx: Context, scope: Scope, statement: ast.ExprStatement) -> None:
    before = {cell.current for cell in ctx.cells.values()}
    value = evaluate(ctx, scope, statement.value)
    if value is None or isinstance(value, Poison):
        return
    hints = ("name it with `=`, assign it with `<-`, or `return` it",)
    if not isinstance(statement.value, (ast.Call, ast.AtLevel)):
        ctx.error("NL0220", statement.span, "this value is not used", hints=hints)
    elif all(cell.current in before or cell.current == cell.start for cell in ctx.cells.values()):
        ctx.bag.warning("NL0506", statement.span, "this call changes no state, and its value is not used", hints=hints)


def _rounds(ctx: Context, scope: Scope, count: ast.Expr, keyword: str) -> int:
    value = evaluate(ctx, scope, count)
    if isinstance(value, Poison):
        return 0
    if isinstance(value, (Poly, Unknown)):
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        ctx.error("NL0221", count.span, f"`{keyword}` needs a number of rounds, found {describe(value)}")
        return 0
    return min(value, 1) if ctx.generic else value


@executes(ast.Repeat)
def repeat(ctx: Context, scope: Scope, statement: ast.Repeat) -> None:
    rounds = _rounds(ctx, scope, statement.count, "repeat")
    ctx.count_expansion(rounds * max(1, len(statement.body)), statement.span)
    label = statement.count.id if isinstance(statement.count, ast.Name) else "repeat"
    for n in range(rounds):
        with ctx.place(unrolled=(*ctx.unrolled, f"{label}.{n}")):
            for inner in statement.body:
                execute(ctx, scope, inner)


@executes(ast.Iterate)
def iterate(ctx: Context, scope: Scope, statement: ast.Iterate) -> None:
    rounds = _rounds(ctx, scope, statement.count, "iterate")
    ctx.count_expansion(rounds * max(1, len(statement.body)), statement.span)
    for _ in range(rounds):
        for inner in statement.body:
            execute(ctx, scope, inner)


@executes(ast.For)
def for_statement(ctx: Context, scope: Scope, statement: ast.For) -> None:
    over = evaluate(ctx, scope, statement.over)
    if isinstance(over, Poison):
        return
    if isinstance(over, (Group, ListValue)):
        items: tuple[Value, ...] = over.items
    elif isinstance(over, (Unknown, Poly)):
        items = (Unknown("level"),)
    else:
        ctx.error("NL0207", statement.over.span, f"`for` goes over a list or `range(n)`, found {describe(over)}")
        return
    ctx.count_expansion(len(items) * max(1, len(statement.body)), statement.span)
    before = scope.bindings.get(statement.variable)
    for n, item in enumerate(items):
        scope.bind(statement.variable, item, statement.span, ctx.guard)
        with ctx.place(unrolled=(*ctx.unrolled, f"{statement.variable}.{n}")):
            for inner in statement.body:
                execute(ctx, scope, inner)
    if before is None:
        scope.bindings.pop(statement.variable, None)
    else:
        scope.bindings[statement.variable] = before


@executes(ast.If)
def if_statement(ctx: Context, scope: Scope, statement: ast.If) -> None:
    condition = rvalue(ctx, evaluate(ctx, scope, statement.condition), statement.condition.span)
    if isinstance(condition, Poison):
        return
    if isinstance(condition, (Tensor, Group)):
        ctx.error(
            "NL0222",
            statement.condition.span,
            "`if` selects statements when the program is compiled; this depends on the data",
            hints=(
                "`if c then a else b` selects entry by entry",
                "`every n token { ... }` runs statements at some ticks",
            ),
        )
        return
    if isinstance(condition, (Unknown, Poly)):
        condition = not isinstance(condition, Unknown) or not statement.otherwise
    for inner in statement.then if condition else statement.otherwise:
        execute(ctx, scope, inner)
        if "return" in scope.bindings:
            return


__all__ = ["dimension"]
