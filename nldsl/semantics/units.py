"""Instances of memories and blocks: their parameters, states and parts, and how a block is applied."""

from __future__ import annotations

from typing import Any

from nldsl.dims import Dim, Poly
from nldsl.frontend import ast
from nldsl.ir.program import Initializer, ParamDecl, Reset
from nldsl.ir.types import Clock, Type
from nldsl.semantics.context import Context, FastWeight, path_key
from nldsl.semantics.dispatch import evaluate, execute, executes
from nldsl.semantics.scope import Scope
from nldsl.semantics.shapes import dimension, tensor_shape
from nldsl.semantics.tensors import rvalue
from nldsl.semantics.values import (
    POISON,
    BoundMethod,
    Builtin,
    Cell,
    InitValue,
    Instance,
    LevelValue,
    ListValue,
    Poison,
    StateRef,
    Template,
    Tensor,
    Unknown,
    Value,
    article,
    describe,
    is_static_number,
    show_type,
)
from nldsl.source import Span


def template_name(decl: ast.Unit) -> str:
    """The name of an unnamed instance: the block's, in lower case with underscores."""
    out = ""
    for n, c in enumerate(decl.name):
        if c.isupper() and n and not decl.name[n - 1].isupper():
            out += "_"
        out += c.lower()
    return out


def block_inputs(decl: ast.Unit) -> set[str]:
    """The parameters that are tensors: a block's inputs."""
    return {p.name for p in decl.params if isinstance(p.type, (ast.TensorType, ast.LikeType)) or p.type is None}


def _unique_path(ctx: Context, owner: Instance | None, name: str) -> str:
    parts = [p for p in ((owner.path if owner else ""), *ctx.unrolled, name) if p]
    path, n = ".".join(parts), 2
    taken = {i.path for i in ctx.instances}
    while path in taken:
        path, n = ".".join([*parts[:-1], f"{name}_{n}"]), n + 1
    return path


def instantiate(
    ctx: Context,
    template: Template,
    given: dict[str, tuple[Value, Span]],
    name: str,
    owner: Instance | None,
    span: Span,
    copies: Dim | None = None,
) -> Instance | Poison:
    """A new instance with its own states and parameters. A memory's members are made now, a block's when applied."""
    from nldsl.semantics.calls import bind_parameters

    decl = template.decl
    if decl in ctx.active:
        return ctx.error("NL0206", span, f"`{decl.name}` contains itself", related=((decl.name_span, "declared here"),))
    if ctx.pure:
        return ctx.error(
            "NL0217",
            span,
            f"{article(ctx.pure)} is pure: it cannot contain `{decl.name}`",
            hints=("make it a `block`",),
        )
    scope = template.scope.child()
    path = _unique_path(ctx, owner, name)
    axes = owner.axes if owner else ()
    own_axis = None
    if copies is not None:
        own_axis = ctx.new_axis(name, copies)
        axes = (*axes, own_axis)
    instance = Instance(path, decl, scope, axes, own_axis, copies, ctx.level or template.level, span)
    scope.instance = instance
    bind_methods(instance)
    ctx.instances.append(instance)
    if owner is not None:
        owner.children.append(instance)
    static = tuple(p for p in decl.params if decl.keyword == "memory" or p.name not in block_inputs(decl))
    missing = [p for p in static if p.name not in given and p.default is None]
    if missing:
        shown = ", ".join(f"`{p.name}`" for p in missing)
        return ctx.error("NL0203", span, f"`{decl.name}` misses {shown}", related=((decl.name_span, "declared here"),))
    with ctx.place(active=(*ctx.active, decl), lanes=axes, unrolled=(), guard_free=True, anchor=None):
        before = ctx.builder
        if not bind_parameters(ctx, scope, static, given, span):
            return POISON
        if decl.keyword == "memory":
            with ctx.guarded(None):
                for member in decl.members:
                    if not isinstance(member, ast.Method):
                        execute(ctx, scope, member)
        ctx.builder = before
    return instance


def bind_methods(instance: Instance) -> None:
    """Methods are names inside their unit: ``read(k)``."""
    for member in instance.decl.members:
        if isinstance(member, ast.Method):
            instance.scope.bind(member.name, BoundMethod(instance, member), member.name_span)


def apply_block(ctx: Context, instance: Instance, tensors: dict[str, tuple[Value, Span]], span: Span) -> Value:
    from nldsl.semantics.calls import bind_parameters, collected, run_body

    decl = instance.decl
    if decl in ctx.active:
        return ctx.error("NL0206", span, f"`{decl.name}` contains itself", related=((decl.name_span, "declared here"),))
    inner = instance.scope.child(instance)
    params = tuple(p for p in decl.params if p.name in block_inputs(decl))
    with ctx.place(active=(*ctx.active, decl), unrolled=(), level=instance.level or ctx.level, calls=()):
        if not bind_parameters(ctx, inner, params, tensors, span):
            return POISON
        body = tuple(m for m in decl.members if not isinstance(m, ast.Method))
        result = run_body(ctx, inner, body, f"`{decl.name}`", decl.name_span)
    return collected(ctx, instance, result, span)


# ---------------------------------------------------------------- members


@executes(ast.Method)
def method(ctx: Context, scope: Scope, member: ast.Method) -> None:
    """Methods are looked up by name when called."""


def member_key(ctx: Context, member: Any) -> tuple[Any, ...]:
    """What an instance remembers the names of one of its members under."""
    return path_key(member), ctx.unrolled


def bound_again(ctx: Context, scope: Scope, member: Any) -> bool:
    """Whether the instance has executed this member before: its names then mean what they meant."""
    owner = scope.instance
    made = None if owner is None else owner.declared.get(member_key(ctx, member))
    if made is None:
        return False
    for name, value in made.items():
        scope.bind(name, value, member.span)
    return True


@executes(ast.Instance)
def instance_member(ctx: Context, scope: Scope, member: ast.Instance) -> None:
    if bound_again(ctx, scope, member):
        return
    owner = scope.instance
    made: dict[str, Value] = {}
    value = evaluate(ctx, scope, member.template)
    copies: Dim | None = None
    if member.copies is not None:
        copies = dimension(ctx, scope, member.copies)
        if copies is None:
            value = POISON
    for name in member.names:
        if isinstance(value, Template) and value.decl.keyword in ("memory", "block"):
            given = {n: (v, member.span) for n, v in value.bound}
            with ctx.place(level=value.level or ctx.level):
                made[name] = instantiate(ctx, value, given, name, owner, member.span, copies)
        elif (
            isinstance(value, Instance) and value.decl.keyword == "block" and len(member.names) == 1 and copies is None
        ):
            made[name] = value
        elif isinstance(value, (Poison, Unknown)):
            made[name] = POISON
        else:
            made[name] = ctx.error(
                "NL0207",
                member.template.span,
                f"`{member.keyword}` makes an instance of a memory, found {describe(value)}",
            )
    target = owner.scope if owner is not None and owner.decl.keyword == "memory" else scope
    for name, one in made.items():
        target.bind(name, one, member.span)
    if owner is not None:
        owner.declared[member_key(ctx, member)] = made


@executes(ast.Parameter)
def parameter(ctx: Context, scope: Scope, member: ast.Parameter) -> None:
    if bound_again(ctx, scope, member):
        return
    owner = scope.instance
    if ctx.pure:
        ctx.error("NL0217", member.span, f"{article(ctx.pure)} is pure: it cannot own a parameter")
    made: dict[str, Value] = {}
    for name in member.names:
        made[name] = _one_parameter(ctx, scope, member, name)
        scope.bind(name, made[name], member.span)
    if owner is not None:
        owner.declared[member_key(ctx, member)] = made


def _one_parameter(ctx: Context, scope: Scope, member: ast.Parameter, name: str) -> Value:
    initial = POISON if member.initial is None else evaluate(ctx, scope, member.initial)
    if isinstance(initial, Poison) and member.initial is not None:
        return POISON
    shape = declared_shape(ctx, scope, member.type, None if member.initial is None else initial, member.span)
    if shape is None:
        return POISON
    if member.initial is None:
        fan = shape[-1] if shape else 1
        initial = InitValue(Initializer("normal", (float(fan) ** -0.5 if isinstance(fan, int) else 0.02,)))
    initializer = to_initializer(ctx, initial, shape, member.span)
    if initializer is None:
        return POISON
    level: str | None = ctx.level
    if member.level is not None:
        binding = scope.find(member.level)
        if binding is None or not isinstance(binding.value, (LevelValue, Unknown)):
            return ctx.error("NL0403", member.span, f"`{member.level}` is not a level")
        level = binding.value.name if isinstance(binding.value, LevelValue) else None
    return make_parameter(ctx, scope, name, shape, initializer, level, member.span)


def make_parameter(
    ctx: Context,
    scope: Scope,
    name: str,
    shape: tuple[Dim, ...],
    initializer: Initializer,
    level: str | None,
    span: Span,
) -> Value:
    """Register a learned tensor; on a level of tokens it becomes a fast weight."""
    owner = scope.instance
    axes = owner.axes if owner else ()
    path = full_name(ctx, owner, name)
    known = ctx.levels.get(level or "")
    fast = known is not None and known.base == "token"
    type = Type(shape, ctx.body.order(axes))
    around = ctx.around if fast else None
    trainer = level if not fast else around.name if around is not None and around.base == "step" else ""
    ctx.params[path] = ParamDecl(path, type, initializer, trainer or "", owner.path if owner else "", span)
    if owner is not None:
        owner.params.append(path)
    if not fast:
        return Tensor(ctx.leaf("param", type, name, span, param=path), ctx.body)
    init = ctx.init.leaf("param", type, name=name, span=span, param=path)
    reset = Reset("clock", Clock(around.period)) if around is not None and around.base == "token" else Reset()
    cell = Cell(path + ".fast", ctx.state_type(shape, axes, False), init, owner.path if owner else "", span, reset)
    ctx.add_cell(cell)
    if owner is not None:
        owner.cells.append(cell)
        ctx.fast_weights.append(FastWeight(cell, level or "", owner))
    return StateRef(name, cell)


def full_name(ctx: Context, owner: Instance | None, name: str) -> str:
    path = ".".join(p for p in ((owner.path if owner else ""), *ctx.unrolled, name) if p)
    candidate, n = path, 2
    while candidate in ctx.params or candidate in ctx.cells:
        candidate, n = f"{path}_{n}", n + 1
    return candidate


def declared_shape(
    ctx: Context, scope: Scope, type: ast.TypeExpr | None, initial: Value, span: Span
) -> tuple[Dim, ...] | None:
    if isinstance(type, ast.TensorType) and not type.any_shape:
        return tensor_shape(ctx, scope, type)
    if isinstance(type, ast.LikeType):
        binding = scope.find(type.name)
        value = rvalue(ctx, binding.value, span) if binding else None
        if isinstance(value, Tensor):
            return value.type.shape
    if type is None and is_static_number(initial):
        return ()
    if type is None and isinstance(initial, ListValue):
        values = _nested(initial)
        if values is not None:
            return _nested_shape(values)
    if type is None and isinstance(initial, Tensor):
        return initial.type.shape
    ctx.error("NL0302", span, "the shape is not known here", hints=("write it: `: [dv, dk]`",))
    return None


def to_initializer(ctx: Context, value: Value, shape: tuple[Dim, ...], span: Span) -> Initializer | None:
    if isinstance(value, InitValue):
        if value.initializer.kind == "identity" and len(shape) != 2:
            ctx.error("NL0302", span, "`identity` starts a matrix")
            return None
        return value.initializer
    if isinstance(value, (bool, int, float)):
        return Initializer("constant", (float(value),))
    if isinstance(value, Builtin) and value.name in ("zeros", "ones"):
        return Initializer("constant", (1.0 if value.name == "ones" else 0.0,))
    if isinstance(value, (Poly, Unknown)):
        return Initializer("constant", (0.0,))
    if isinstance(value, ListValue):
        values = _nested(value)
        if values is not None:
            actual = _nested_shape(values)
            if actual != shape and not ctx.generic:
                ctx.error(
                    "NL0303", span, f"the initial values have the shape {list(actual)}, the declaration {list(shape)}"
                )
                return None
            return Initializer("values", (values,))
    if not isinstance(value, Poison):
        ctx.error(
            "NL0207",
            span,
            "an initializer is a number, a list of numbers, zeros, ones, normal(std), uniform(low, high) "
            f"or identity(scale); found {describe(value)}",
        )
    return None


def _nested(value: ListValue) -> tuple[Any, ...] | None:
    out: list[Any] = []
    for item in value.items:
        if isinstance(item, ListValue):
            part = _nested(item)
            if part is None:
                return None
            out.append(part)
        elif isinstance(item, (int, float)):
            out.append(float(item))
        elif isinstance(item, (Poly, Unknown)):
            out.append(0.0)
        else:
            return None
    return tuple(out)


def _nested_shape(values: Any) -> tuple[Dim, ...]:
    return (len(values), *_nested_shape(values[0])) if isinstance(values, tuple) and values else ()


__all__ = ["apply_block", "block_inputs", "instantiate", "show_type", "template_name"]
