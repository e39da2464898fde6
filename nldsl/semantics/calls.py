"""Calls: functions and methods are inlined, templates become instances, blocks are created and applied."""

from __future__ import annotations

from typing import Any

from nldsl.dims import Dim, symbol
from nldsl.frontend import ast
from nldsl.semantics.clocks import clock_period, run_every
from nldsl.semantics.context import Context, path_key
from nldsl.semantics.dispatch import evaluate, evaluates, execute
from nldsl.semantics.scope import Scope
from nldsl.semantics.shapes import bind_argument, check_result
from nldsl.semantics.spelling import closest
from nldsl.semantics.states import allocate_like
from nldsl.semantics.streams import reduce_comprehension
from nldsl.semantics.tensors import map_groups, rvalue, to_tensor
from nldsl.semantics.units import apply_block, block_inputs, instantiate, template_name
from nldsl.semantics.usage import usage
from nldsl.semantics.values import (
    POISON,
    BoundMethod,
    Builtin,
    FunctionValue,
    Group,
    Instance,
    Poison,
    StateRef,
    Template,
    Tensor,
    Unknown,
    Value,
    describe,
)
from nldsl.source import Span

Given = list[tuple[str | None, Value, Span]]


@evaluates(ast.Call)
def call(ctx: Context, scope: Scope, expr: ast.Call) -> Value:
    function = evaluate(ctx, scope, expr.function)
    if isinstance(function, Poison):
        for argument in expr.arguments:  # errors inside the arguments are still worth telling
            if not isinstance(argument.value, ast.Comprehension):
                evaluate(ctx, scope, argument.value)
        return POISON
    if isinstance(function, Builtin) and len(expr.arguments) == 1:
        only = expr.arguments[0].value
        if isinstance(only, ast.Comprehension):
            return reduce_comprehension(ctx, scope, function, only, expr.span)
    given: Given = [(a.name, evaluate(ctx, scope, a.value), a.span) for a in expr.arguments]
    if any(isinstance(v, Poison) for _, v, _ in given):
        return POISON
    with ctx.nested(expr.span), ctx.place(calls=(*ctx.calls, path_key(expr))):
        return apply(ctx, scope, function, given, expr.span)


def apply(ctx: Context, scope: Scope, function: Value, given: Given, span: Span) -> Value:
    if isinstance(function, Builtin):
        return _builtin(ctx, scope, function, given, span)
    if isinstance(function, FunctionValue):
        return call_function(ctx, function, given, span)
    if isinstance(function, BoundMethod):
        return call_method(ctx, function, given, span)
    if isinstance(function, Template):
        return _template(ctx, scope, function, given, span)
    if isinstance(function, Instance) and function.decl.keyword == "block":
        return _apply_instance(ctx, function, given, span)
    hints = ("call one of its methods: `m.read(q)`",) if isinstance(function, Instance) else ()
    return ctx.error("NL0204", span, f"{describe(function)} cannot be called", hints=hints)


def _builtin(ctx: Context, scope: Scope, function: Builtin, given: Given, span: Span) -> Value:
    positional = [v for n, v, _ in given if n is None]
    named = {n: v for n, v, _ in given if n is not None}
    result = function.apply(ctx, scope, positional, named, span)
    if result is NotImplemented:
        return ctx.error(
            "NL0203",
            span,
            f"`{function.name}` does not take these arguments",
            hints=(f"it is written {' or '.join(f'`{form}`' for form in usage(function.name))}",),
        )
    return result


def match_arguments(
    ctx: Context,
    params: tuple[ast.Param, ...],
    given: Given,
    what: str,
    span: Span,
    decl_span: Span,
    partial: bool = False,
) -> dict[str, tuple[Value, Span]] | None:
    """Positional, then named; None after a diagnostic. With ``partial`` missing ones are simply absent."""
    found: dict[str, tuple[Value, Span]] = {}
    names = [p.name for p in params]
    positional = 0
    for name, value, place in given:
        if name is None:
            while positional < len(names) and names[positional] in found:
                positional += 1
            if positional >= len(names):
                ctx.error(
                    "NL0203",
                    place,
                    f"too many arguments: {what} takes {len(names)}",
                    related=((decl_span, f"{what} is declared here"),),
                )
                return None
            name = names[positional]
        elif name not in names:
            close = closest(name, names)
            ctx.error(
                "NL0203",
                place,
                f"{what} has no parameter `{name}`",
                related=((decl_span, f"{what} is declared here"),),
                hints=(f"did you mean `{close}`?",) if close else (f"it takes {', '.join(f'`{n}`' for n in names)}",),
            )
            return None
        if name in found:
            ctx.error("NL0203", place, f"`{name}` is given twice")
            return None
        found[name] = (value, place)
    missing = [p.name for p in params if p.name not in found and p.default is None]
    if missing and not partial:
        shown = ", ".join(f"`{m}`" for m in missing)
        ctx.error("NL0203", span, f"{what} misses {shown}", related=((decl_span, f"{what} is declared here"),))
        return None
    return found


def bind_parameters(
    ctx: Context,
    inner: Scope,
    params: tuple[ast.Param, ...],
    found: dict[str, tuple[Value, Span]],
    span: Span,
) -> bool:
    """Bind each parameter in ``inner``, defaults evaluated there; False after a diagnostic."""
    free: dict[str, Dim | None] = {}
    # static parameters first: tensor shapes refer to them
    for param in sorted(params, key=lambda p: isinstance(p.type, (ast.TensorType, ast.LikeType)) or p.type is None):
        if param.name in found:
            value, place = found[param.name]
        elif param.default is not None:
            value, place = evaluate(ctx, inner, param.default), param.span
        else:
            continue
        value = bind_argument(ctx, inner, param, value, place, free)
        if isinstance(value, Poison):
            return False
        inner.bind(param.name, value, param.span, ctx.guard, argument=True)
    return True


def call_function(ctx: Context, function: FunctionValue, given: Given, span: Span) -> Value:
    decl = function.decl
    if decl in ctx.active:
        return ctx.error(
            "NL0206",
            span,
            f"`{decl.name}` calls itself",
            related=((decl.name_span, "declared here"),),
            hints=("`iterate n { ... }` repeats a step a fixed number of times",),
        )
    what = f"`{decl.name}`"
    found = match_arguments(ctx, decl.params, given, what, span, decl.name_span)
    if found is None:
        return POISON
    group = _grouped(ctx, decl, found, span)
    if group is not None:
        return _call_each(ctx, function, found, group, span)
    inner = function.scope.child()
    with ctx.place(active=(*ctx.active, decl), pure=decl.keyword):
        if not bind_parameters(ctx, inner, decl.params, found, span):
            return POISON
        result = run_body(ctx, inner, decl.body, what, decl.name_span)
    result = check_result(ctx, inner, decl.result, result, what, span)
    if decl.keyword == "objective" and isinstance(result, Tensor) and result.type.shape:
        return ctx.error(
            "NL0601",
            decl.name_span,
            f"the objective {what} does not return a scalar",
            notes=(f"it returns {describe(result)}",),
            hints=("`sum(...)` adds the entries",),
        )
    if decl.keyword == "retention" and decl.params and not isinstance(result, Poison):
        first = inner.find(decl.params[0].name)
        from nldsl.semantics.shapes import same_structure

        if first is not None and not same_structure(ctx, rvalue(ctx, first.value, span), result):
            return ctx.error(
                "NL0602", decl.name_span, f"the retention {what} changes the shape of `{decl.params[0].name}`"
            )
    return result


def _grouped(ctx: Context, decl: ast.Function, found: dict[str, tuple[Value, Span]], span: Span) -> Group | None:
    """The group among the arguments for tensors, if there is one: the function then works field by field."""
    if decl.keyword == "objective":
        return None
    for param in decl.params:
        if isinstance(param.type, ast.TensorType) and param.name in found:
            value = rvalue(ctx, found[param.name][0], span)
            if isinstance(value, Group):
                return value
    return None


def _call_each(
    ctx: Context, function: FunctionValue, found: dict[str, tuple[Value, Span]], group: Group, span: Span
) -> Value:
    """A function of tensors applied to a group, field by field; other arguments are the same for every field."""
    fields = []
    for n in range(len(group.items)):
        given: Given = []
        for name, (value, place) in found.items():
            read = rvalue(ctx, value, place) if isinstance(value, (Group, StateRef, Instance)) else value
            if isinstance(read, Group):
                if len(read.items) != len(group.items):
                    sizes = f"{len(group.items)} and {len(read.items)}"
                    return ctx.error("NL0304", place, f"groups of {sizes} fields do not combine")
                read = read.items[n]
            given.append((name, read, place))
        fields.append(call_function(ctx, function, given, span))
    return POISON if any(isinstance(f, Poison) for f in fields) else Group(tuple(fields), group.names)


def run_body(
    ctx: Context, scope: Scope, body: tuple[ast.Statement, ...], what: str, span: Span, needs: bool = True
) -> Value:
    """Statements up to the ``return``; its value."""
    for n, statement in enumerate(body):
        if isinstance(statement, ast.Return):
            if n + 1 < len(body):
                ctx.bag.warning("NL0216", getattr(body[n + 1], "span", span), "nothing runs after `return`")
            value = evaluate(ctx, scope, statement.value)
            return rvalue(ctx, value, statement.span) if not isinstance(value, Instance) else value
        execute(ctx, scope, statement)
        binding = scope.bindings.pop("return", None)  # a return inside `if`
        if binding is not None:
            return binding.value
    if needs:
        return ctx.error("NL0209", span, f"{what} has no `return`", hints=("end its body with `return y`",))
    return None


# ---------------------------------------------------------------- methods


def call_method(ctx: Context, bound: BoundMethod, given: Given, span: Span) -> Value:
    instance, method = bound.instance, bound.method
    what = f"`{instance.decl.name}.{method.name}`"
    key = (instance.path, method.name)
    if key in ctx.active:
        return ctx.error("NL0206", span, f"{what} calls itself", related=((method.name_span, "declared here"),))
    if ctx.builder is not ctx.body:
        return ctx.error("NL0213", span, "a method cannot be called in an initial value")
    found = match_arguments(ctx, method.params, given, what, span, method.name_span)
    if found is None:
        return POISON
    found = _spread_arguments(ctx, instance, method, found)
    inner = instance.scope.child(instance)
    own = (instance.own_axis,) if instance.own_axis else ()
    lanes = tuple(dict.fromkeys((*ctx.lanes, *own)))
    with ctx.place(active=(*ctx.active, key), lanes=lanes, level=instance.level or ctx.level, unrolled=(), pure=""):
        if not bind_parameters(ctx, inner, method.params, found, span):
            return POISON
        if not allocate_like(ctx, instance, method, inner, span):
            return POISON
        result = _run_method(ctx, inner, instance, method, what, span)
        if result is not None:
            result = check_result(ctx, inner, method.result, result, what, span)
    _probe(ctx, instance, method, inner)
    return collected(ctx, instance, result, span)


def _run_method(ctx: Context, inner: Scope, instance: Instance, method: ast.Method, what: str, span: Span) -> Value:
    needs = method.result is not None
    clock = method.clock
    if clock is None:
        return run_body(ctx, inner, method.body, what, method.name_span, needs)
    if clock.base.rstrip("s") == "tick" and clock.count is None:
        # the caller's clock: inside, `tick` counts calls
        scale = ctx.guard.period if ctx.guard else ctx.scale
        with ctx.place(scale=scale):
            return run_body(ctx, inner, method.body, what, method.name_span, needs)
    period = clock_period(ctx, inner, clock)
    if period is None:
        return POISON
    here = ctx.guard.period if ctx.guard else 1
    if (period % here and here % period) or (here > period):
        return ctx.error(
            "NL0409",
            span,
            f"{what} runs {clock.span.text}, but it is called on the clock `every {here} token`",
            related=((clock.span, "its clock is declared here"),),
        )
    if period == here:
        return run_body(ctx, inner, method.body, what, method.name_span, needs)
    if needs:
        return ctx.error(
            "NL0409",
            method.name_span,
            f"{what} runs on a slower clock than its caller, so it cannot return a value",
            hints=("keep the result in a state",),
        )
    run_every(ctx, inner, period, method.body, method.span)
    return None


def _spread_arguments(
    ctx: Context, instance: Instance, method: ast.Method, found: dict[str, tuple[Value, Span]]
) -> dict[str, tuple[Value, Span]]:
    """For ``n of M``: arguments with one extra leading dimension of n give each copy its own."""
    if instance.own_axis is None or instance.own_axis in ctx.lanes:
        return found
    types = {p.name: p.type for p in method.params}
    spread: dict[str, tuple[Value, Span]] = {}
    for name, (value, place) in found.items():
        type = types.get(name)
        rank = len(type.dims) if isinstance(type, ast.TensorType) and not type.any_shape else None
        spread[name] = (_spread(ctx, instance, value, rank, place), place)
    return spread


def _spread(ctx: Context, instance: Instance, value: Value, rank: int | None, span: Span) -> Value:
    value = rvalue(ctx, value, span)
    if isinstance(value, Group):
        return map_groups(ctx, span, lambda v: _spread(ctx, instance, v, rank, span), value)
    from nldsl.semantics.values import ListValue

    if isinstance(value, ListValue):
        tensor = to_tensor(ctx, value, span)
        return tensor if isinstance(tensor, Poison) else _spread(ctx, instance, tensor, rank, span)
    if not isinstance(value, Tensor) or not value.type.shape or instance.own_axis in value.type.axes:
        return value
    extra = len(value.type.shape) == rank + 1 if rank is not None else value.type.shape[0] == instance.copies
    if not extra or value.type.shape[0] != instance.copies:
        return value
    return ctx.emit("spread", value, span=span, axis=instance.own_axis)


def collected(ctx: Context, instance: Instance, value: Value, span: Span) -> Value:
    """Results of copies get their leading dimension back."""
    if (
        instance.own_axis is None
        or instance.own_axis in ctx.lanes
        or value is None
        or isinstance(value, (Poison, Unknown))
    ):
        return value

    def one(part: Value) -> Value:
        tensor = to_tensor(ctx, part, span)
        if isinstance(tensor, Poison):
            return POISON
        if instance.own_axis not in tensor.type.axes:
            return ctx.emit("broadcast", tensor, span=span, shape=(instance.copies, *tensor.type.shape))
        return ctx.emit("collect", tensor, span=span, axis=instance.own_axis, size=instance.copies)

    return map_groups(ctx, span, one, value)


def _probe(ctx: Context, instance: Instance, method: ast.Method, inner: Scope) -> None:
    """Gates and rates of writes are worth logging."""
    if not any(isinstance(s, ast.Assign) for s in method.body) or len(ctx.probes) > 256:
        return
    for param in method.params:
        binding = inner.bindings.get(param.name)
        if (
            isinstance(param.type, ast.TensorType)
            and not param.type.dims
            and binding
            and isinstance(binding.value, Tensor)
        ):
            ctx.probes.setdefault(f"{instance.path}.{param.name}", binding.value.id)


# ---------------------------------------------------------------- templates and blocks


def _template(ctx: Context, scope: Scope, template: Template, given: Given, span: Span) -> Value:
    decl = template.decl
    what = f"`{decl.name}`"
    if decl.keyword == "model":
        return ctx.error(
            "NL0204", span, f"the model {what} is a whole program, not a part of one", hints=("make it a `block`",)
        )
    bound: dict[str, tuple[Value, Span]] = {n: (v, span) for n, v in template.bound}
    params = tuple(p for p in decl.params if p.name not in bound)
    found = match_arguments(ctx, params, given, what, span, decl.name_span, partial=True)
    if found is None:
        return POISON
    bound.update(found)
    if decl.keyword == "memory":
        return Template(decl, template.scope, tuple((n, v) for n, (v, _) in bound.items()), ctx.level or template.level)
    inputs = block_inputs(decl)
    missing = [p.name for p in decl.params if p.name not in bound and p.default is None and p.name not in inputs]
    if missing:
        if not any(n in bound for n in inputs):
            return Template(
                decl, template.scope, tuple((n, v) for n, (v, _) in bound.items()), ctx.level or template.level
            )
        shown = ", ".join(f"`{m}`" for m in missing)
        return ctx.error("NL0203", span, f"{what} misses {shown}", related=((decl.name_span, "declared here"),))
    owner = scope.instance
    key = (ctx.calls, ctx.unrolled)
    if owner is not None and key in owner.declared:
        instance = owner.declared[key]
        if isinstance(instance, Poison):
            return POISON
    else:
        static = {n: pair for n, pair in bound.items() if n not in inputs}
        with ctx.place(level=template.level or ctx.level):
            instance = instantiate(ctx, Template(decl, template.scope), static, template_name(decl), owner, span)
        if owner is not None:
            owner.declared[key] = instance
        if isinstance(instance, Poison):
            return POISON
    tensors: dict[str, tuple[Value, Span]] = {n: pair for n, pair in bound.items() if n in inputs}
    if not tensors:
        return instance
    absent = [p.name for p in decl.params if p.name in inputs and p.name not in tensors and p.default is None]
    if absent:
        return ctx.error(
            "NL0203",
            span,
            f"{what} misses {', '.join(f'`{a}`' for a in absent)}",
            related=((decl.name_span, "declared here"),),
        )
    return apply_block(ctx, instance, tensors, span)


def _apply_instance(ctx: Context, instance: Instance, given: Given, span: Span) -> Value:
    decl = instance.decl
    inputs = block_inputs(decl)
    params = tuple(p for p in decl.params if p.name in inputs)
    found = match_arguments(ctx, params, given, f"`{decl.name}`", span, decl.name_span)
    if found is None:
        return POISON
    return apply_block(ctx, instance, found, span)


def symbolic(param: ast.Param) -> Any:
    """What a generic check knows of a static parameter without a default."""
    kind = param.type.name if isinstance(param.type, ast.NamedType) else ""
    return symbol(param.name) if kind in ("dim", "int") else Unknown(kind or "real")
