"""The parts of a segment's body: what can be done for all segments at once, and what has to wait for the states.

PREPARE needs no state: it can run for many segments of equal length together, with one more mapped axis, ``SEGMENT``.
STEP leads from the states of one segment to those of the next: the only sequential part. FINISH needs the states, but
nothing later needs it: it can run for many segments together when the loop is done.
"""

from __future__ import annotations

from nldsl.ir.chunk import ChunkLoop

SEGMENT = "segment"
PREPARE, STEP, FINISH = range(3)


def stages(loop: ChunkLoop) -> tuple[int | None, ...]:
    """The stage of every value of the body; None for what nothing needs."""
    body = loop.body
    needed = _reach(loop, [v for _, v in (*loop.carry, *loop.outputs)])
    choices = [v for v in needed if body[v].op == "when"]  # made at the end of each segment
    sequential = _reach(loop, [*(v for _, v in loop.carry), *choices])
    late: list[bool] = []
    found: list[int | None] = []
    for value, instr in enumerate(body):
        late.append(instr.op in ("state", "anchor", "when") or any(late[a] for a in instr.args))
        if value not in needed:
            found.append(None)
        elif not late[value]:
            found.append(PREPARE)
        else:
            found.append(STEP if value in sequential or instr.op in ("state", "anchor") else FINISH)
    return tuple(found)


def _reach(loop: ChunkLoop, roots: list[int]) -> set[int]:
    found: set[int] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            stack.extend(loop.body[value].args)
    return found
