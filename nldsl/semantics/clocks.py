"""The clock calculus: periods, ``every`` blocks, and the one way a value may cross to a slower clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from nldsl.dims import Poly
from nldsl.frontend import ast
from nldsl.ir.types import Clock
from nldsl.semantics.context import Context
from nldsl.semantics.dispatch import evaluate, evaluates, execute, executes
from nldsl.semantics.scope import Scope
from nldsl.semantics.spelling import closest
from nldsl.semantics.tensors import as_real, map_groups, rvalue, to_tensor
from nldsl.semantics.values import (
    POISON,
    Cell,
    Group,
    LevelValue,
    Poison,
    StateRef,
    Tensor,
    Unknown,
    Value,
    describe,
)
from nldsl.source import Span

BASES = ("token", "tokens", "step", "steps", "tick", "ticks")


def clock_period(ctx: Context, scope: Scope, clock: ast.Clock) -> int | None:
    """The period in base ticks of ``every ...`` inside a tick; None after a diagnostic."""
    count: Value = 1
    if clock.count is not None:
        count = evaluate(ctx, scope, clock.count)
        if isinstance(count, Poison):
            return None
        if isinstance(count, (Poly, Unknown)):
            count = 2  # a generic check: any slower clock
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            ctx.error("NL0404", clock.count.span, f"a period is a positive integer, found {describe(count)}")
            return None
    if clock.base in BASES:
        base = clock.base.rstrip("s")
        if base == "step":
            ctx.error(
                "NL0407",
                clock.span,
                "training steps tick outside the sequence",
                hints=("use `token` or `tick` here; a level of steps trains parameters: `param w at slow`",),
            )
            return None
        return int(count) * (ctx.scale if base == "tick" else 1)
    binding = scope.find(clock.base)
    value = binding.value if binding else None
    if isinstance(value, Unknown):
        return 2
    if isinstance(value, LevelValue):
        if value.base == "step":
            ctx.error(
                "NL0407", clock.span, f"`{value.name}` is a level of training steps, which tick outside the sequence"
            )
            return None
        return int(count) * value.period
    if not isinstance(value, Poison):
        close = closest(clock.base, [*BASES, *scope.names()])
        ctx.error(
            "NL0403",
            clock.span,
            f"`{clock.base}` is not a clock or level",
            hints=(f"did you mean `{close}`?",)
            if close
            else ("the clocks are `token`, `tick` and the program's levels",),
        )
    return None


@executes(ast.Every)
def every(ctx: Context, scope: Scope, statement: ast.Every) -> None:
    period = clock_period(ctx, scope, statement.clock)
    with ctx.place(every_text=statement.clock.span.text):
        run_every(ctx, scope, 1 if period is None else period, statement.body, statement.span)


def run_every(ctx: Context, scope: Scope, period: int, body: tuple[ast.Statement, ...], span: Span) -> None:
    """Elaborate a body that runs at every ``period``-th base tick; states keep their value in between."""
    outer = ctx.guard
    combined = math.lcm(period, outer.period if outer else 1)
    if combined == (outer.period if outer else 1):
        inner = scope.child()
        for statement in body:
            execute(ctx, inner, statement)
        return
    guard = Clock(combined)
    before = {cell.name: cell.current for cell in ctx.cells.values()}
    inner = scope.child(slower=True)
    accumulators: list[Cell] = []
    around = {name: getattr(ctx, name) for name in ("accumulators", "outer_guard", "outer_scope", "outer_place")}
    with (
        ctx.guarded(guard),
        ctx.place(accumulators=accumulators, outer_guard=outer, outer_scope=scope, outer_place=around),
    ):
        for statement in body:
            execute(ctx, inner, statement)
    counted = [*accumulators, *_accumulators_around(around)]
    for cell in list(ctx.cells.values()):
        old = before.get(cell.name, cell.start)
        if cell.current != old and cell not in counted:
            cell.current = ctx.body.emit(
                "when", cell.current, old, clock=guard, span=span, name=cell.name.rpartition(".")[2]
            )
            cell.clock = cell.clock or guard
    for cell in accumulators:
        reset = ctx.body.emit("broadcast", ctx.body.const(_neutral(cell)), shape=cell.type.shape)
        cell.current = ctx.body.emit("when", reset, cell.current, clock=guard, span=span)


def _accumulators_around(place: dict[str, Any]) -> Iterator[Cell]:
    """Those of the ``every`` blocks around a block: they go on at the ticks of those."""
    while place:
        yield from place["accumulators"]
        place = place["outer_place"]


def _neutral(cell: Cell) -> float:
    return float("-inf") if cell.name.rpartition(".")[2].startswith("max_") else 0.0


@evaluates(ast.Reduce)
def reduce(ctx: Context, scope: Scope, expr: ast.Reduce) -> Value:
    """``sum of g``: evaluated on the faster clock, accumulated since the block last ran.

    Where the block stands in another one and ``g`` is faster than that too, the reduction of the block around is
    reduced: a sum of sums, a mean of means of the same number of ticks, the last of the last ones.
    """
    kinds = ("sum", "mean", "last", "max")
    if ctx.guard is None and ctx.every_text and expr.kind in kinds:  # a period of one: this tick is all there is
        return rvalue(ctx, evaluate(ctx, scope, expr.value), expr.span)
    if ctx.guard is None or ctx.outer_scope is None:
        return ctx.error(
            "NL0402",
            expr.span,
            f"`{expr.kind} of` brings a value to a slower clock, but this runs at every tick",
            hints=("write it inside `every n token { ... }`", f"`{expr.kind}(x)` reduces over the entries of a tensor"),
        )
    if expr.kind not in kinds:
        return ctx.error("NL0402", expr.span, f"`{expr.kind} of` is not a reduction", hints=("sum, mean, last or max",))
    guard, outer = ctx.guard, ctx.outer_guard
    scope_around = ctx.outer_scope
    with ctx.guarded(outer):
        if outer is not None and _crosses(ctx, scope_around, expr.value):
            with ctx.place(**ctx.outer_place):
                value = reduce(ctx, scope_around, expr)
        else:
            value = rvalue(ctx, evaluate(ctx, scope_around, expr.value), expr.span)
        if isinstance(value, Poison) or expr.kind == "last":
            return value
        ticks = guard.period // (outer.period if outer else 1)
        return map_groups(ctx, expr.span, lambda v: _accumulate(ctx, v, expr, scope, ticks), value)


def names_in(node: object) -> set[str]:
    """The names in an expression, or in several."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, tuple):
        return {name for part in node for name in names_in(part)}
    if isinstance(node, ast.Node):
        return {name for part in vars(node).values() for name in names_in(part)}
    return set()


def _crosses(ctx: Context, scope: Scope, expr: ast.Expr) -> bool:
    """Whether an expression names something that is faster than the guard, from outside of its block."""
    for name in names_in(expr):
        binding = scope.find(name)
        if binding is not None and scope.crosses(name) and varies_faster(ctx, binding.value, scope, name):
            return True
    return False


def _accumulate(ctx: Context, value: Value, expr: ast.Reduce, scope: Scope, ticks: int) -> Value:
    tensor = to_tensor(ctx, value, expr.span)
    if isinstance(tensor, Poison):
        return POISON
    tensor = as_real(ctx, tensor, expr.span)
    label = expr.value.id if isinstance(expr.value, ast.Name) else "value"
    kind = "max" if expr.kind == "max" else "sum"
    cell = hidden_cell(
        ctx, scope, f"{kind}_{label}", tensor, expr.span, initial=float("-inf") if kind == "max" else 0.0
    )
    start = Tensor(cell.start, ctx.body)
    total = ctx.emit("maximum" if kind == "max" else "add", start, tensor, span=expr.span, name=f"{kind}_{label}")
    cell.current = total.id
    ctx.accumulators.append(cell)
    if expr.kind == "mean":
        return ctx.emit("div", total, ctx.const(float(ticks)), span=expr.span)
    return total


def hidden_cell(ctx: Context, scope: Scope, label: str, like: Tensor, span: Span, initial: float | int = 0.0) -> Cell:
    """A state added by the compiler, with the type of ``like``."""
    owner = scope.instance.path if scope.instance else ""
    init = ctx.init.emit("broadcast", ctx.init.const(initial), shape=like.type.shape)
    name = f"{owner}.{label}" if owner else label
    cell = Cell(name, like.type, init, owner, span, hidden=True)
    return ctx.add_cell(cell)


def varies_faster(ctx: Context, value: Value, scope: Scope, name: str) -> bool:
    """Whether a value may change between two ticks of the current guard."""
    if isinstance(value, StateRef):
        return any(_cell_varies(ctx, cell, scope, name) for cell in value.leaves())
    if isinstance(value, Group):
        return any(varies_faster(ctx, item, scope, name) for item in value.items)
    return isinstance(value, Tensor) and value.builder is ctx.body and _value_varies(ctx, value.id)


def _cell_varies(ctx: Context, cell: Cell, scope: Scope, name: str) -> bool:
    if cell.clock is not None:
        return ctx.guard is not None and ctx.guard.period % cell.clock.period != 0
    if cell.written:
        return True
    instance = scope.instance
    return instance is not None and name in assigned_each_tick(instance.decl)


def assigned_each_tick(unit: ast.Unit) -> set[str]:
    """Names of states that a method or block of the unit assigns outside every ``every`` block."""
    found: set[str] = set()
    work: list[ast.Statement] = list(unit.members)
    while work:
        statement = work.pop()
        if isinstance(statement, ast.Assign):
            found.update(statement.target.names)
        elif isinstance(statement, ast.Method):
            if statement.clock is None or (statement.clock.count is None and statement.clock.base in BASES):
                work.extend(statement.body)
        elif isinstance(statement, (ast.Repeat, ast.Iterate, ast.For)):
            work.extend(statement.body)
        elif isinstance(statement, ast.If):
            work.extend(statement.then + statement.otherwise)
    return found


def _value_varies(ctx: Context, value: int) -> bool:
    instrs = ctx.body.instrs
    seen: set[int] = set()
    work = [value]
    guard = ctx.guard
    while work:
        i = work.pop()
        if i in seen:
            continue
        seen.add(i)
        instr = instrs[i]
        if instr.op in ("input", "clock"):
            return True
        if instr.op in ("state", "anchor"):
            cell = ctx.cells[instr.attr("state")]
            if cell.clock is None and (cell.written or cell.hidden):
                return True
            if cell.clock is not None and guard is not None and guard.period % cell.clock.period != 0:
                return True
        if instr.op == "when" and guard is not None and guard.period % instr.attr("clock").period == 0:
            continue
        work.extend(instr.args)
    return False
