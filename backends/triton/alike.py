"""What the way back computes as the forward run does: where that run's kernels run again, it is there already."""

from __future__ import annotations

from nldsl.backends.triton.host import Written
from nldsl.backends.triton.job import Job
from nldsl.backends.triton.narrow import Narrow
from nldsl.backends.triton.workspaces import Slot
from nldsl.ir.stages import STEP

Numbering = dict[tuple[object, ...], int]


def left_alike(forward: Written, back: Job) -> dict[int, Slot]:
    """Values of the way back that STEP of the forward run leaves in memory, in a type that they may have there.

    Only STEP's: what PREPARE leaves the way back has for its own loop, before it needs any state.
    """
    if forward.job.lanes != back.lanes:
        return {}
    known: Numbering = {}
    numbers = numbered(forward.job, known)
    where: dict[int, int] = {}
    for value, number in enumerate(numbered(back, known)):
        if back.stages[value] is not None:
            where.setdefault(number, value)
    may = Narrow(back).values
    found: dict[int, Slot] = {}
    for value, slot in forward.spaces.values.items():
        same = where.get(numbers[value])
        if same is None or forward.job.stages[value] != STEP or slot.parts:
            continue
        if not slot.narrow or same in may:
            found[same] = slot
    return found


def numbered(job: Job, known: Numbering) -> list[int]:
    """A number for each value of a body: the same for the same operation on the same values. States, and what was kept
    of them at the beginning of the segment, are the same."""
    numbers: list[int] = []
    for value, instr in enumerate(job.body):
        held = job.boundaries.get(value) or (job.carried.get(value) if not job.reverse else None)
        key: tuple[object, ...] = ("begin", held)
        if held is None:
            operands = tuple(numbers[a] for a in instr.args)
            key = (instr.op, repr(instr.attrs), repr(instr.type), repr(instr.guard), operands)
        numbers.append(known.setdefault(key, len(known)))
    return numbers
