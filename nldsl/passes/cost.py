"""What a program costs, from its IR alone: operations per tick, entries of state, parameters; formulas in its sizes.

Needs: a program whose ``grad`` has been expanded. One multiplication or addition is one operation, and so is any other
elementwise function; moving data costs nothing. Costs are those of the sequential definition, per sequence of the
batch: a backend that computes chunks at once does more multiplications and fewer steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.demand import demand, reachable
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import BATCH, TIME, Type
from nldsl.passes.einsum_cost import contraction


@dataclass(frozen=True)
class Cost:
    """``operations``: (period, operations at a tick at which a clock of that period fires), 1 for every tick.

    The other fields are numbers of entries: of the states of a program, of those that the compiler added, of
    anchors (copies of states), and of parameters.
    """

    operations: tuple[tuple[int, Dim], ...]
    state: Dim
    hidden: Dim
    anchored: Dim
    parameters: Dim


def cost(program: Program, states: tuple[str, ...] | None = None) -> Cost:
    """The cost of a program, or of what depends on some of its states."""
    body = program.body
    roots = [v for _, v in (*program.updates, *program.outputs, *program.losses)]
    live = reachable(body, roots)
    if states is not None:
        live &= _dependent(body, set(states))
    needed = demand(body, sorted(live), [r for r in roots if r in live])
    totals: dict[int, Dim] = {}
    for value in sorted(live):
        clock = needed.get(value)
        period = 1 if clock is None else clock.period
        totals[period] = totals.get(period, 0) + operations(program, body[value])
    chosen = [s for s in program.states if states is None or s.name in states]
    anchors = dict.fromkeys((i.attr("state"), i.attr("period")) for i in body if i.op == "anchor")
    names = {s.name for s in chosen}
    return Cost(
        tuple((period, total) for period, total in sorted(totals.items()) if total != 0),
        _total(entries(program, s.type) for s in chosen if not s.hidden),
        _total(entries(program, s.type) for s in chosen if s.hidden),
        _total(entries(program, program.state(name).type) for name, _ in anchors if name in names),
        _total(entries(program, p.type) for p in program.params) if states is None else 0,
    )


def operations(program: Program, instr: Instr) -> Dim:
    """The operations of one instruction at one tick."""
    body = program.body
    if instr.op in ops.LEAVES or instr.op in _FREE:
        return 0
    if instr.op == "einsum":
        shapes = [body[a].type.shape for a in instr.args]
        return contraction(instr.attr("spec"), shapes, _lanes(program, instr.type))
    if instr.op == "solve":
        n = body[instr.args[0]].type.shape[0]
        return n * entries(program, body[instr.args[0]].type) + 2 * n * entries(program, instr.type)
    if instr.op in _REDUCTIONS:
        return entries(program, body[instr.args[0]].type)
    return entries(program, instr.type)


_FREE = frozenset("reshape broadcast concat slice pad take one_hot spread collect when stop_grad to_real".split())
_REDUCTIONS = frozenset("sum max cumsum axis_sum batch_mean scatter_add".split())


def entries(program: Program, type: Type) -> Dim:
    """The entries of a value, for one sequence."""
    return _lanes(program, type) * ops.product(type.shape)


def _lanes(program: Program, type: Type) -> Dim:
    sizes = [program.axis_size(axis) for axis in type.axes if axis not in (BATCH, TIME)]
    return ops.product(tuple(size for size in sizes if size is not None))


def _total(sizes: Iterable[Dim]) -> Dim:
    total: Dim = 0
    for size in sizes:
        total = total + size
    return total


def _dependent(body: tuple[Instr, ...], states: set[str]) -> set[int]:
    found: set[int] = set()
    for number, instr in enumerate(body):
        reads = instr.op in ("state", "anchor") and instr.attr("state") in states
        if reads or any(a in found for a in instr.args):
            found.add(number)
    return found
