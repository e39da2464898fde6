"""From a declaration to a program: run the elaboration and collect what it left in the context."""

from __future__ import annotations

from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.dims import Dim
from nldsl.frontend import ast
from nldsl.ir.program import Axis, Level, MemoryInfo, Program, StateDecl
from nldsl.ir.types import BATCH, Type
from nldsl.limits import Limits
from nldsl.semantics import arithmetic, expectations, names, statements, streams, units  # noqa: F401  (they register handlers)
from nldsl.semantics.calls import call_method, run_body, symbolic
from nldsl.semantics.context import Context, TooMuchError
from nldsl.semantics.model import add_input, tick_fast_weights
from nldsl.semantics.optimizers import OptimizerSpec, learn_method, update_of
from nldsl.semantics.scope import Scope
from nldsl.semantics.shapes import bind_argument, tensor_shape
from nldsl.semantics.tensors import leaves
from nldsl.semantics.units import bind_methods, block_inputs, instantiate
from nldsl.semantics.unused import report_unused
from nldsl.semantics.values import (
    BoundMethod,
    Group,
    Instance,
    ListValue,
    Poison,
    Template,
    Tensor,
    Unknown,
    Value,
    describe,
)
from nldsl.semantics.zero_gradient import report_zero_gradients
from nldsl.source import Span


def unit_program(
    decl: ast.Unit, scope: Scope, given: dict[str, Any], bag: DiagnosticBag, limits: Limits, generic: bool = False
) -> Program | None:
    """The program of a model, a block, or a memory with a ``step`` method; None after diagnostics.

    ``given``: static arguments. With ``generic`` missing sizes are symbols and loops over unknown counts run once.
    """
    ctx = Context(bag, limits, generic=generic)
    try:
        result = _root(ctx, decl, scope, given, generic)
    except TooMuchError:
        return None
    if bag.has_errors:
        return None
    report_zero_gradients(ctx)
    program = collect(ctx, decl.name, result)
    static = [p for p in decl.params if p.name not in block_inputs(decl)]
    report_unused(program, decl, any(p.name not in given and p.default is None for p in static), bag)
    return program


def _root(ctx: Context, decl: ast.Unit, scope: Scope, given: dict[str, Any], generic: bool) -> Value:
    inner = scope.child()
    root = Instance("", decl, inner, ())
    inner.instance = root
    bind_methods(root)
    ctx.instances.append(root)
    if not _static_parameters(ctx, inner, decl, given, generic):
        return None
    with ctx.place(active=(decl,)):
        if decl.keyword == "memory":
            return _memory_root(ctx, root, decl, generic)
        for param in decl.params:
            if param.name in block_inputs(decl):
                _declare_input(ctx, inner, param)
        body = tuple(m for m in decl.members if not isinstance(m, ast.Method))
        needs = decl.keyword == "block" or not any(isinstance(m, ast.Minimize) for m in decl.members)
        result = _model_body(ctx, inner, body, decl, needs)
        tick_fast_weights(ctx, inner)
    return result


def _model_body(ctx: Context, scope: Scope, body: tuple[ast.Statement, ...], decl: ast.Unit, needs: bool) -> Value:
    """``minimize`` may stand after ``return``; levels are declared before anything uses them."""
    early = tuple(m for m in body if isinstance(m, ast.Level))
    late = tuple(m for m in body if isinstance(m, ast.Minimize))
    rest = tuple(m for m in body if not isinstance(m, (ast.Level, ast.Minimize)))
    from nldsl.semantics.dispatch import execute

    for member in early:
        execute(ctx, scope, member)
    result = run_body(ctx, scope, rest, f"`{decl.name}`", decl.name_span, needs)
    for last in late:
        execute(ctx, scope, last)
    return result


def _static_parameters(ctx: Context, scope: Scope, decl: ast.Unit, given: dict[str, Any], generic: bool) -> bool:
    from nldsl.semantics.dispatch import evaluate

    inputs = block_inputs(decl) if decl.keyword != "memory" else set()
    ok = True
    for param in decl.params:
        if param.name in inputs:
            continue
        if param.name in given:
            value: Value = _given_value(given[param.name])
        elif param.default is not None:
            value = evaluate(ctx, scope, param.default)
        elif generic:
            value = _generic_value(ctx, scope, param)
        else:
            ctx.error(
                "NL0203",
                param.span,
                f"`{param.name}` of `{decl.name}` has no value",
                hints=(f"give it: `--set {param.name}=...`, or a default in the program",),
            )
            ok = False
            continue
        value = bind_argument(ctx, scope, param, value, param.span, {})
        scope.bind(param.name, value, param.span)
    return ok


def _given_value(value: Any) -> Value:
    """A static argument from outside: Python's lists are the language's."""
    return ListValue(tuple(_given_value(v) for v in value)) if isinstance(value, (list, tuple)) else value


def _generic_value(ctx: Context, scope: Scope, param: ast.Param) -> Value:
    if isinstance(param.type, ast.TensorType) and not param.type.any_shape:
        shape = tensor_shape(ctx, scope, param.type)
        if shape is not None and not shape:
            return Unknown("real")
    if isinstance(param.type, ast.NamedType) and param.type.name in ("fn", "memory", "block", "level", "init"):
        from nldsl.semantics.values import POISON

        return POISON  # nothing is known of it: whatever uses it is checked where it is given
    if isinstance(param.type, ast.ListType):
        from nldsl.semantics.values import POISON

        return POISON
    return symbolic(param)


def _declare_input(ctx: Context, scope: Scope, param: ast.Param) -> None:
    if isinstance(param.type, ast.TensorType) and not param.type.any_shape:
        for expr in param.type.dims:
            if isinstance(expr, ast.Name) and scope.find(expr.id) is None:
                from nldsl.dims import symbol

                scope.bind(expr.id, symbol(expr.id), expr.span)
        shape = tensor_shape(ctx, scope, param.type)
        if shape is not None:
            add_input(ctx, scope, param.name, shape, "int" if param.type.integer else "real", param.span)
            return
    from nldsl.semantics.values import POISON

    scope.bind(param.name, POISON, param.span)


def _memory_root(ctx: Context, root: Instance, decl: ast.Unit, generic: bool) -> Value:
    """A memory by itself: its ``step``; in a generic check each method in turn, on fresh inputs."""
    from nldsl.semantics.dispatch import execute

    for member in decl.members:
        if not isinstance(member, ast.Method):
            execute(ctx, root.scope, member)
    methods = [m for m in decl.members if isinstance(m, ast.Method)]
    step = next((m for m in methods if m.name == "step"), None)
    if not generic:
        if step is None:
            names = ", ".join(f"`{m.name}`" for m in methods)
            return ctx.error(
                "NL0224",
                decl.name_span,
                f"the memory `{decl.name}` has no `step`, so the order of its reads and writes is not known",
                notes=(f"it has {names}",) if names else (),
                hints=("add `step(...)`, or use the memory in a model",),
            )
        methods = [step]
    result: Value = None
    order = sorted(methods, key=lambda m: m.name != "learn")  # ``like g`` states get their shape from learn
    for method in order:
        result = _call_on_inputs(ctx, root, method, "" if method is step else f"{method.name}_", generic)
    return result


def _call_on_inputs(ctx: Context, root: Instance, method: ast.Method, prefix: str, generic: bool) -> Value:
    inner = root.scope.child(root)
    arguments: list[tuple[str | None, Any, Span]] = []
    shapes: dict[str, tuple[tuple[Dim, ...], str]] = {}
    for param in method.params:
        if isinstance(param.type, ast.LikeType) and param.type.name in shapes:
            shape, kind = shapes[param.type.name]
        elif not isinstance(param.type, ast.TensorType) or param.type.any_shape:
            if param.default is not None and not isinstance(param.type, ast.LikeType):
                continue
            if generic and param.type is None and method.name != "learn":
                return None  # nothing is known of it: the method is checked where it is called
            shape, kind = (3, 2) if generic else (), "real"
            if not generic:
                return ctx.error(
                    "NL0302",
                    param.span,
                    f"the shape of `{param.name}` is not known here",
                    hints=(f"write it: `{param.name}: [n]`, or `{param.name}: []` for a number",),
                )
            if isinstance(param.type, ast.NamedType):
                arguments.append((param.name, symbolic(param), param.span))
                continue
        else:
            for expr in param.type.dims:
                if isinstance(expr, ast.Name) and inner.find(expr.id) is None:
                    from nldsl.dims import symbol

                    inner.bind(expr.id, symbol(expr.id), expr.span)
            found = tensor_shape(ctx, inner, param.type)
            if found is None:
                return None
            shape, kind = found, "int" if param.type.integer else "real"
        shapes[param.name] = shape, kind
        holder = Scope()
        add_input(ctx, holder, f"{prefix}{param.name}", shape, kind, param.span)
        binding = holder.find(f"{prefix}{param.name}")
        if binding is None:
            return None
        arguments.append((param.name, binding.value, param.span))
    return call_method(ctx, BoundMethod(root, method), arguments, method.name_span)


def optimizer_program(template: Template, shape: tuple[Dim, ...], bag: DiagnosticBag, limits: Limits) -> Program | None:
    """One tick of an optimizer memory for a parameter of this shape: inputs g (and weight), output change."""
    ctx = Context(bag, limits, batched=False)
    span = template.decl.name_span
    holder = Scope()
    learn = learn_method(template.decl)
    assert learn is not None
    add_input(ctx, holder, "g", shape, "real", span)
    if any(p.name == "weight" for p in learn.params):
        add_input(ctx, holder, "weight", shape, "real", span)
    try:
        gradient = holder.bindings["g"].value
        weight = holder.bindings["weight"].value if "weight" in holder.bindings else gradient
        change = update_of(ctx, template, gradient, weight, "optimizer", None, span)
    except TooMuchError:
        return None
    if isinstance(change, Poison) or bag.has_errors:
        return None
    ctx.outputs.append(("change", change.id))
    return collect(ctx, template.decl.name, None)


def collect(ctx: Context, name: str, result: Value) -> Program:
    """The program of what a context has collected."""
    outputs = list(ctx.outputs) + _outputs(ctx, result)
    states = tuple(
        StateDecl(c.name, c.type, c.init, c.reset, c.owner, c.shared, c.hidden, c.clock, c.span)
        for c in ctx.cells.values()
    )
    updates = tuple((c.name, c.current) for c in ctx.cells.values() if c.current != c.start)
    default = ctx.minimized[0].level if ctx.minimized else ""
    from dataclasses import replace

    params = tuple(replace(p, level=p.level or default) for p in ctx.params.values())
    return Program(
        name,
        ((Axis(BATCH, None),) if ctx.batched else ()) + tuple(ctx.axes),
        tuple(ctx.inputs.values()),
        params,
        states,
        tuple(ctx.body.instrs),
        updates,
        tuple(outputs),
        tuple((m.level, m.value) for m in ctx.minimized),
        tuple(sorted(ctx.probes.items())),
        tuple(ctx.init.instrs),
        _levels(ctx, default),
        tuple(_memory_info(i) for i in ctx.instances if i.path or i.cells or i.params),
    )


def _levels(ctx: Context, default: str) -> tuple[Level, ...]:
    found = []
    fallback = ctx.level_optimizers.get(default) or (ctx.minimized[0].optimizer if ctx.minimized else None)
    for value in ctx.levels.values():
        template = ctx.level_optimizers.get(value.name) or fallback
        spec = OptimizerSpec(template, template.decl.name, ctx.limits) if template is not None else None
        found.append(Level(value.name, value.base, value.period, spec, spec.name if spec else "", value.span))
    return tuple(found)


def _memory_info(instance: Instance) -> MemoryInfo:
    return MemoryInfo(
        instance.path,
        instance.decl.name,
        instance.decl.keyword,
        tuple(c.name for c in instance.cells),
        tuple(instance.params),
        instance.level or "",
        instance.copies,
        instance.decl.name_span,
    )


def _outputs(ctx: Context, result: Value) -> list[tuple[str, int]]:
    if result is None or isinstance(result, Poison):
        return []
    if isinstance(result, Tensor):
        return [("y", result.id)]
    if isinstance(result, Group):
        found = []
        for n, item in enumerate(result.items):
            label = result.names[n] if n < len(result.names) and result.names[n] else f"y{n}"
            flat = leaves(ctx, item, ctx.body.instrs[0].span) if ctx.body.instrs else []
            if isinstance(flat, Poison):
                continue
            found += [(label if len(flat) == 1 else f"{label}.{k}", t.id) for k, t in enumerate(flat)]
        return found
    ctx.error("NL0306", ctx.instances[0].decl.name_span, f"a program returns tensors, found {describe(result)}")
    return []


__all__ = ["Type", "collect", "instantiate", "optimizer_program", "unit_program"]
