"""Gradients that are zero because the loss was not computed from what it is differentiated by: nearly always a mistake
(a wrong name, a state assigned in between, a loss computed outside of its anchor), so that a memory never learns."""

from __future__ import annotations

from collections.abc import Iterable

from nldsl.ir.ancestors import ancestors
from nldsl.ir.program import Instr
from nldsl.semantics.context import Context
from nldsl.semantics.values import Group, Instance, StateRef, Tensor, Value
from nldsl.source import Span


def note_gradient(ctx: Context, loss: Tensor, wrt: Value, flat: list[Tensor], span: Span) -> None:
    """Remember at which places a gradient is zero, and at which one is not: a place may be unrolled many times."""
    if span in ctx.live_gradients or not flat:
        return
    wanted = {tensor.id for tensor in flat}
    used = ancestors(loss.builder.instrs, loss.id, min(wanted))
    if wanted & used:
        ctx.live_gradients.add(span)
        ctx.zero_gradients.pop(span, None)
    elif span not in ctx.zero_gradients:
        ctx.zero_gradients[span] = _why(ctx, loss, wrt, flat)


def report_zero_gradients(ctx: Context) -> None:
    """Warn about the places where every gradient was zero."""
    for span, (name, hints) in ctx.zero_gradients.items():
        shown = f"`{name}`" if name else "what it is differentiated by"
        ctx.bag.warning("NL0504", span, f"this gradient is zero: the loss was not computed from {shown}", hints=hints)


def _why(ctx: Context, loss: Tensor, wrt: Value, flat: list[Tensor]) -> tuple[str, tuple[str, ...]]:
    """The name of the variable, and what to do about it."""
    instrs = loss.builder.instrs
    name = _name(wrt) or (instrs[flat[0].id].name if isinstance(wrt, Tensor) else "")
    if all(instrs[t.id].op == "anchor" for t in flat):
        return name, (
            "values computed outside of `at start of` are what they are: write the loss inside of `grad(...)`",
        )
    used = ancestors(instrs, loss.id, 0)
    if isinstance(wrt, (StateRef, Instance)) and _reads(instrs, used, _states(ctx, wrt)):
        return name, (f"`{name}` was assigned after the loss was computed: take the gradient before",)
    return name, ()


def _name(wrt: Value) -> str:
    if isinstance(wrt, StateRef):
        return wrt.name
    return "" if isinstance(wrt, Group) else str(getattr(wrt, "path", "")).rpartition(".")[2]


def _states(ctx: Context, wrt: StateRef | Instance) -> set[str]:
    if isinstance(wrt, StateRef):
        return {cell.name for cell in wrt.leaves()}
    return {name for name in ctx.cells if name.startswith(f"{wrt.path}.")}


def _reads(instrs: list[Instr], values: Iterable[int], states: set[str]) -> bool:
    return any(instrs[v].op in ("state", "anchor") and instrs[v].attr("state") in states for v in values)
