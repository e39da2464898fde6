"""What only a model has: inputs, levels, ``minimize``, and the fast weights of levels of tokens."""

from __future__ import annotations

from nldsl.frontend import ast
from nldsl.ir.program import InputDecl
from nldsl.ir.types import BATCH, Clock, Type
from nldsl.semantics.clocks import BASES, hidden_cell
from nldsl.semantics.context import Context, MinimizeInfo
from nldsl.semantics.dispatch import evaluate, executes
from nldsl.semantics.optimizers import optimizer_template, update_of
from nldsl.semantics.scope import Scope
from nldsl.semantics.shapes import tensor_shape
from nldsl.semantics.tensors import as_real, to_tensor
from nldsl.semantics.values import LevelValue, Poison, Tensor, Unknown, describe


@executes(ast.Input)
def input_member(ctx: Context, scope: Scope, member: ast.Input) -> None:
    if scope.instance is not None and scope.instance.decl.keyword != "model":
        ctx.error("NL0223", member.span, "`input` belongs to a model; a block takes its inputs as parameters")
        return
    if not isinstance(member.type, ast.TensorType) or member.type.any_shape:
        ctx.error("NL0302", member.span, "an input has a tensor type: `int[]`, `[d]`")
        return
    shape = tensor_shape(ctx, scope, member.type)
    if shape is None:
        return
    add_input(ctx, scope, member.name, shape, "int" if member.type.integer else "real", member.span)


def add_input(ctx: Context, scope: Scope, name: str, shape: tuple, kind: str, span: object) -> None:  # type: ignore[type-arg]
    from nldsl.source import NO_SPAN, Span

    place = span if isinstance(span, Span) else NO_SPAN
    if name in ctx.inputs:
        ctx.error("NL0202", place, f"the input `{name}` is declared twice")
        return
    type = Type(shape, (BATCH,) if ctx.batched else (), kind)
    ctx.inputs[name] = InputDecl(name, type, "", 0, place)
    scope.bind(name, Tensor(ctx.leaf("input", type, name, place, input=name), ctx.body), place)


@executes(ast.Level)
def level_member(ctx: Context, scope: Scope, member: ast.Level) -> None:
    base, period = member.name.rstrip("s"), 1
    clock = member.clock
    if clock is None:
        if base not in ("step", "token"):
            base = "step"
    else:
        base = clock.base.rstrip("s")
        if clock.base not in BASES or base == "tick":
            ctx.error("NL0403", clock.span, f"a level counts tokens or steps, not `{clock.base}`")
            base = "step"
        if clock.count is not None:
            count = evaluate(ctx, scope, clock.count)
            if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                period = count
            elif not isinstance(count, (Poison, Unknown)) and isinstance(count, (int, float, str)):
                ctx.error("NL0404", clock.count.span, f"a period is a positive integer, found {describe(count)}")
    if member.name in ctx.levels:
        ctx.error("NL0202", member.span, f"the level `{member.name}` is declared twice")
        return
    value = LevelValue(member.name, base, period, member.span)
    ctx.levels[member.name] = value
    scope.bind(member.name, value, member.span)
    if member.optimizer is not None:
        template = optimizer_template(ctx, scope, member.optimizer)
        if template is not None:
            ctx.level_optimizers[member.name] = template


@executes(ast.Minimize)
def minimize(ctx: Context, scope: Scope, member: ast.Minimize) -> None:
    if scope.instance is None or scope.instance.decl.keyword != "model":
        ctx.error("NL0604", member.span, "`minimize` belongs to a model")
        return
    with ctx.place(in_minimize=True):
        value = to_tensor(ctx, evaluate(ctx, scope, member.value), member.value.span, "the loss")
    level = "step"
    if member.level is not None:
        binding = scope.find(member.level)
        if member.level == "step" and binding is None:
            level = "step"
        elif binding is None or not isinstance(binding.value, LevelValue) or binding.value.base != "step":
            ctx.error(
                "NL0403",
                member.span,
                f"`minimize ... at {member.level}` needs a level of steps",
                hints=("declare `level step`",),
            )
            return
        else:
            level = binding.value.name
    if level not in ctx.levels:
        ctx.levels[level] = LevelValue(level, "step", 1, member.span)
    template = optimizer_template(ctx, scope, member.optimizer) if member.optimizer is not None else None
    if isinstance(value, Poison):
        return
    if value.type.shape:
        ctx.error(
            "NL0501",
            member.value.span,
            f"`minimize` takes a scalar, found {describe(value)}",
            hints=("`sum(...)` makes it one",),
        )
        return
    ctx.minimized.append(MinimizeInfo(level, as_real(ctx, value, member.span).id, template, member.span))
    if template is not None:
        ctx.level_optimizers.setdefault(level, template)


def tick_fast_weights(ctx: Context, scope: Scope) -> None:
    """Levels of tokens learn from the task loss: at every n-th tick, w <- w + optimizer(sum of grad(loss, w))."""
    if not ctx.fast_weights:
        return
    if not ctx.minimized:
        ctx.error(
            "NL0604",
            ctx.levels[ctx.fast_weights[0].level].span,
            "parameters on a level of tokens learn from `minimize`, which is missing",
        )
        return
    loss = Tensor(ctx.minimized[0].value, ctx.body)
    for weight in ctx.fast_weights:
        level = ctx.levels[weight.level]
        template = ctx.level_optimizers.get(weight.level) or ctx.minimized[0].optimizer
        if template is None:
            ctx.error(
                "NL0603",
                level.span,
                f"the level `{weight.level}` has no optimizer",
                hints=("write `level x = every n token with SGD(rate = 0.1)`",),
            )
            return
        cell = weight.cell
        value = Tensor(cell.start, ctx.body)
        slope = ctx.emit("grad", loss, value, span=level.span, index=0)
        if isinstance(slope, Poison):
            return
        short = cell.name.rpartition(".")[0]
        total, clock = slope, Clock(level.period) if level.period > 1 else None
        holder = scope.child(weight.instance)
        sums = None
        if clock is not None:
            sums = hidden_cell(ctx, holder, f"sum_grad_{short.rpartition('.')[2]}", slope, level.span)
            total = ctx.emit("add", Tensor(sums.start, ctx.body), slope, span=level.span)
        before = {c.name: c.current for c in ctx.cells.values()}
        with ctx.guarded(clock), ctx.place(scale=level.period, unrolled=(), lanes=weight.instance.axes):
            change = update_of(ctx, template, total, value, f"{short}.optimizer", weight.instance, level.span)
            if isinstance(change, Poison):
                return
            new = ctx.emit("add", value, change, span=level.span)
        if isinstance(new, Poison):
            return
        if clock is None or sums is None:
            cell.current = new.id
            continue
        for other in ctx.cells.values():
            old = before.get(other.name, other.start)
            if other.current != old:
                other.current = ctx.body.emit("when", other.current, old, clock=clock, span=level.span)
                other.clock = clock
        cell.current = ctx.body.emit(
            "when", new.id, cell.start, clock=clock, span=level.span, name=short.rpartition(".")[2]
        )
        cell.clock = clock
        zero = ctx.body.emit("broadcast", ctx.body.const(0.0), shape=sums.type.shape)
        sums.current = ctx.body.emit("when", zero, total.id, clock=clock, span=level.span)
