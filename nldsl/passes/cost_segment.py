"""What a tick costs in segments of some length, where a segment is done in one piece: which length is best.

Products of ticks with ticks grow with the length; what is done once for each segment (the new state, its copy for the
way back, the work of starting an operation) is shared by more ticks. In arithmetic operations of a contraction, per
tick of one lane:

    (operations + entries * ENTRY + instructions * START + entries of states * BOUNDARY) / ticks

where of a contraction only the terms that count are counted (``ir/triangular.py``), and what is needed on a clock only
as often as it fires. The numbers are fitted to the fused loops of one CPU with vectors of 64 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.dims import Dim
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.program import Instr, Program
from nldsl.ir.triangular import needs, share, terms, zeros
from nldsl.passes.cost_schedule import LEAVES, VIEWS, Sizes, entries_of, operations_of

ENTRY = 3.0  # reading or writing one entry of a tensor in the cache, most of them fused into other operations
START = 1500.0  # loops around one operation
BOUNDARY = 30.0  # an entry of a state that is kept for the way back: written to memory, read from there
LENGTHS = (32, 64, 128)  # shorter ones cost too much memory for the states that are kept


def best_length(loop: ChunkLoop, program: Program, longest: int) -> int:
    """The length that costs least: ``longest``, or one of ``LENGTHS`` below it. ``longest`` where sizes are symbols."""
    costs = {n: tick_cost(loop, program, n) for n in (*(n for n in LENGTHS if n < longest), longest)}
    known = {n: cost for n, cost in costs.items() if cost is not None}
    return min(known, key=lambda n: known[n]) if len(known) == len(costs) else longest


def tick_cost(loop: ChunkLoop, program: Program, ticks: int) -> float | None:
    """The cost of a tick, or None where a size is known only by its name."""
    sizes = Sizes(program, {a.name: a.size for a in loop.lanes}, ticks)
    total = segment_work(loop.body, [v for _, v in (*loop.carry, *loop.outputs)], sizes)
    if total is None:
        return None
    boundary = 0.0
    for name in loop.states:
        held: Dim = sizes.entries(program.state(name).type)
        if not isinstance(held, int):
            return None
        boundary += held * BOUNDARY
    return (total + boundary) / ticks


def segment_work(body: Sequence[Instr], roots: Sequence[int], sizes: Sizes) -> float | None:
    """What leads to ``roots`` in one segment of ``sizes.ticks`` ticks, or None where a size is known only by its
    name."""
    zero = zeros(body)
    need = needs(body, roots, zero)
    total = 0.0
    for value in sorted(reachable(body, roots)):
        instr = body[value]
        if instr.op in LEAVES or instr.op in VIEWS:
            continue
        operations, moved = operations_of(tuple(body), instr, sizes), entries_of(tuple(body), instr, sizes)
        if not isinstance(operations, int) or not isinstance(moved, int):
            return None
        part = share(terms(instr, zero, need[value])) if instr.op == "einsum" else 1.0
        often = 1.0 if instr.guard is None else min(1.0, sizes.ticks / instr.guard.period)
        total += often * (operations * part + moved * ENTRY + START)
    return total
