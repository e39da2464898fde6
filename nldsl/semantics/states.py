"""The states of instances: their cells, first values and resets."""

from __future__ import annotations

from nldsl.dims import Dim
from nldsl.frontend import ast
from nldsl.ir.program import Initializer, ParamDecl, Reset
from nldsl.ir.types import Clock, Type
from nldsl.semantics.clocks import clock_period, names_in
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate, executes
from nldsl.semantics.scope import Scope
from nldsl.semantics.tensors import rvalue, to_tensor
from nldsl.semantics.units import bound_again, declared_shape, full_name, member_key, to_initializer
from nldsl.semantics.values import (
    POISON,
    Builtin,
    Cell,
    Group,
    InitValue,
    Instance,
    Poison,
    StateRef,
    Tensor,
    Value,
    article,
)
from nldsl.source import Span


@executes(ast.State)
def state(ctx: Context, scope: Scope, member: ast.State) -> None:
    if bound_again(ctx, scope, member):
        return
    owner = scope.instance
    if ctx.pure:
        ctx.error("NL0217", member.span, f"{article(ctx.pure)} is pure: it cannot own a state")
        return
    methods = [m for m in owner.decl.members if isinstance(m, ast.Method)] if owner is not None else []
    if owner is not None and any(_tells_shape(m, scope, member) for m in methods):
        for name in member.names:
            owner.deferred[name] = member
        return
    made: dict[str, Value] = {}
    for name in member.names:
        made[name] = declare_state(ctx, scope, member, name)
        scope.bind(name, made[name], member.span)
    if owner is not None:
        owner.declared[member_key(ctx, member)] = made


def _tells_shape(method: ast.Method, scope: Scope, member: ast.State) -> bool:
    """Whether a method's parameters tell the shape: of ``like g`` its g, of ``[m, m]`` its ``g: [m, n]``."""
    if isinstance(member.type, ast.LikeType):
        known = {p.name for p in method.params}
        wanted = {member.type.name}
    elif isinstance(member.type, ast.TensorType):
        types = [p.type for p in method.params if isinstance(p.type, ast.TensorType)]
        known = {d.id for t in types for d in t.dims if isinstance(d, ast.Name)}
        wanted = names_in(member.type.dims)
    else:
        return False
    unknown = {name for name in wanted if scope.find(name) is None}
    return bool(unknown) and unknown <= known


def declare_state(ctx: Context, scope: Scope, member: ast.State, name: str, like: Value = None) -> Value:
    """The cells of one state; ``like`` is the value whose structure it takes."""
    if isinstance(member.type, ast.LikeType) and like is None:
        binding = scope.find(member.type.name)
        like = rvalue(ctx, binding.value, member.span) if binding else None
    reset = _reset(ctx, scope, member)
    if reset is None:
        return POISON
    if isinstance(like, Group):
        parts = []
        for n, item in enumerate(like.items):
            label = like.names[n] if n < len(like.names) and like.names[n] else str(n)
            part = declare_state(ctx, scope, member, f"{name}.{label}", item)
            if isinstance(part, Poison):
                return POISON
            parts.append(part)
        return StateRef(name, tuple(parts), like.names)
    return _cell_for(ctx, scope, member, name, like, reset)


def _cell_for(ctx: Context, scope: Scope, member: ast.State, name: str, like: Value, reset: Reset) -> Value:
    owner = scope.instance
    axes = owner.axes if owner else ()
    initial: Value = 0
    if member.initial is not None:
        with ctx.place(builder=ctx.init, anchor=None), ctx.guarded(None):
            initial = evaluate(ctx, scope, member.initial)
            initial = rvalue(ctx, initial, member.span)
        if isinstance(initial, Poison):
            return POISON
    shape = (
        like.type.shape if isinstance(like, Tensor) else declared_shape(ctx, scope, member.type, initial, member.span)
    )
    if shape is None:
        return POISON
    type = ctx.state_type(shape, axes, member.shared)
    init = _initial_value(ctx, scope, member, name, initial, shape)
    if init is None:
        return POISON
    cell = Cell(full_name(ctx, owner, name), type, init, owner.path if owner else "", member.span, reset, member.shared)
    ctx.add_cell(cell)
    if owner is not None:
        owner.cells.append(cell)
    return StateRef(name, cell)


def _initial_value(
    ctx: Context, scope: Scope, member: ast.State, name: str, initial: Value, shape: tuple[Dim, ...]
) -> int | None:
    span = member.span
    if member.learned:
        initializer = to_initializer(ctx, initial, shape, span)
        if initializer is None:
            return None
        owner = scope.instance
        path = full_name(ctx, owner, f"{name}_0")
        type = Type(shape, ctx.body.order(owner.axes if owner else ()))
        ctx.params[path] = ParamDecl(
            path, type, initializer, ctx.level_name(ctx.level), owner.path if owner else "", span
        )
        if owner is not None:
            owner.params.append(path)
        return ctx.init.leaf("param", type, name=f"{name}_0", span=span, param=path)
    with ctx.place(builder=ctx.init):
        if isinstance(initial, Builtin) and initial.name in ("zeros", "ones"):
            initial = 1.0 if initial.name == "ones" else 0.0
        if isinstance(initial, InitValue):
            value = _fixed_initial(ctx, initial.initializer, shape, span)
        else:
            value = to_tensor(ctx, initial, span, f"the initial value of `{name}`")
        if isinstance(value, Poison):
            return None
        if value.type.kind == "int":
            value = ctx.emit("to_real", value, span=span)
        if value.type.shape != shape:
            value = ctx.emit("broadcast", value, span=span, code="NL0304", shape=shape)
            if isinstance(value, Poison):
                return None
    return int(value.id)


def _fixed_initial(ctx: Context, initializer: Initializer, shape: tuple[Dim, ...], span: Span) -> Tensor | Poison:
    if initializer.kind == "constant":
        return ctx.const(float(initializer.values[0]), span)
    if initializer.kind == "identity" and len(shape) == 2:
        rows = ctx.emit("reshape", ctx.emit("iota", n=shape[0]), shape=(shape[0], 1))
        equal = ctx.emit("eq", rows, ctx.emit("iota", n=shape[1]), span=span)
        return ctx.emit("mul", equal, ctx.const(float(initializer.values[0])), span=span)  # type: ignore[no-any-return]
    return ctx.error(
        "NL0218",
        span,
        "a random initial state must be `learned`",
        hints=("write `= learned normal(...)`: an outer level trains it",),
    )


def _reset(ctx: Context, scope: Scope, member: ast.State) -> Reset | None:
    reset = member.reset
    if reset is None or (reset.kind == "per" and reset.base == "sequence"):
        return Reset()
    if reset.kind == "never":
        return Reset("never")
    if reset.kind == "per":
        ctx.error(
            "NL0410",
            reset.span,
            f"a state is reset `per sequence`, not per `{reset.base}`",
            hints=("or `every n token`, `at LEVEL`, `never`",),
        )
        return None
    period = clock_period(ctx, scope, ast.Clock(reset.count, reset.base, reset.span))
    return None if period is None else Reset("clock", Clock(period))


def allocate_like(ctx: Context, instance: Instance, method: ast.Method, inner: Scope, span: Span) -> bool:
    """States whose shape a method's parameters tell are made when it is first called; False after a diagnostic."""
    for name, member in list(instance.deferred.items()):
        if not _tells_shape(method, instance.scope, member):
            continue
        value: Value = None
        if isinstance(member.type, ast.LikeType):
            binding = inner.find(member.type.name)
            value = rvalue(ctx, binding.value, span) if binding else None
            if not isinstance(value, (Tensor, Group)):
                value = to_tensor(ctx, value, span, f"`{member.type.name}`")
                if isinstance(value, Poison):
                    return False
        del instance.deferred[name]
        with ctx.guarded(None):
            made = declare_state(ctx, inner, member, name, value)
        instance.scope.bind(name, made, member.span)
        if isinstance(made, Poison):
            return False
    return True
