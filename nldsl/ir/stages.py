"""The parts of a segment's body: what can be done for all segments at once, and what has to wait for the states.

PREPARE needs no state: it can run for many segments of equal length together, with one more mapped axis, ``SEGMENT``.
STEP leads from the states of one segment to those of the next: the only sequential part. FINISH needs the states, but
nothing later needs it: it can run for many segments together when the loop is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.program import Instr

SEGMENT = "segment"
PREPARE, STEP, FINISH = range(3)


def stages(loop: ChunkLoop, together: bool = True) -> tuple[int | None, ...]:
    """The stage of every value of the body; None for what nothing needs. Without ``loop.hoist`` all is STEP.

    ``together``: PREPARE and FINISH run for segments of equal length as one, and no clock can be asked there whether it
    fires at the end of a segment."""
    results = [v for _, v in loop.outputs]
    found = _stages(loop.body, [v for _, v in loop.carry], results, ("state", "anchor"), together)
    if loop.hoist:
        return found
    leaf = [not i.args and i.op not in ("state", "anchor") for i in loop.body]
    return tuple(None if s is None else PREPARE if leaf[v] else STEP for v, s in enumerate(found))


def backward_stages(loop: BackwardLoop) -> tuple[int | None, ...]:
    """The stage of every value of a backward body."""
    results = [v for _, v in (*loop.outputs, *loop.sums)]
    return _stages(loop.body, [v for _, v in loop.carry], results, ("cotangent",))


def _stages(
    body: Sequence[Instr], carry: list[int], results: list[int], carried: tuple[str, ...], together: bool = True
) -> tuple[int | None, ...]:
    """``carried``: the leaves that are known only when the loop arrives at the segment."""
    needed = reachable(body, [*carry, *results])
    choices = [v for v in needed if together and body[v].op == "when"]  # made at the end of each segment
    sequential = reachable(body, [*carry, *choices])
    late: list[bool] = []
    found: list[int | None] = []
    for value, instr in enumerate(body):
        choice = together and instr.op == "when"
        late.append(instr.op in carried or choice or any(late[a] for a in instr.args))
        if value not in needed:
            found.append(None)
        elif not late[value]:
            found.append(PREPARE)
        else:
            found.append(STEP if value in sequential or instr.op in carried else FINISH)
    return tuple(found)
