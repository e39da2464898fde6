"""Sequences that lie one after the other in one row: modules whose loops take them so.

``state["@cuts"]`` are the places where they begin, and the end: ``[1, time, ..]`` holds ticks ``cuts[i]`` to
``cuts[i + 1]`` of sequence ``i``, the states have a row for each sequence. What is computed tick by tick does not care;
the number of a tick and a value of the tick before do, by the functions here, which emitted modules copy.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re

import torch

from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Instr
from nldsl.ir.schedule import Delay, Parallel, Scan, Schedule
from nldsl.ir.types import BATCH

CUTS = "@cuts"
IMPORTS = ("import functools", "import itertools")


def packable(schedule: Schedule) -> bool:
    """Whether all but the loops of a schedule can work on packed sequences: every state has a row for each sequence,
    and what is computed for all ticks at once reads no such row as it is."""
    program, fixed = schedule.program, {s.name for s in schedule.program.states}
    for phase in schedule.all_phases():
        if not isinstance(phase, (Parallel, Delay, ChunkLoop, Scan)):
            return False
        states = (phase.state,) if isinstance(phase, Delay) else getattr(phase, "states", ())
        if any(BATCH not in program.state(name).type.axes for name in states):
            return False
        if isinstance(phase, Delay) and BATCH not in program.body[phase.value].type.axes:
            return False
        fixed -= set(states)

    def is_row(instr: Instr) -> bool:
        return instr.op in ("state", "anchor") and instr.attr("state") in fixed and BATCH in instr.type.axes

    read = [v for _, v in (*program.outputs, *program.losses, *program.probes)]
    for phase in schedule.all_phases():
        if isinstance(phase, Parallel):
            read += [a for v in phase.values for a in program.body[v].args]
    return not any(is_row(program.body[v]) for v in read)


def packed_sources(text: str) -> list[str]:
    """The source of every function here that ``text`` calls, and that those call."""
    called = [f for f in (packed_ticks, packed_delay) if re.search(rf"\b{f.__name__}\(", text)]
    return [inspect.getsource(f) for f in ([packed_ends] if packed_delay in called else []) + called]


@functools.lru_cache(maxsize=64)
def packed_ticks(t: int, T: int, cuts: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """[T]: the number of each tick, after ``t`` ticks of every sequence."""
    if not cuts:
        return torch.arange(t + 1, t + T + 1, device=device)
    parts = [torch.arange(t + 1, t + 1 + end - begin) for begin, end in itertools.pairwise(cuts)]
    return torch.cat(parts).to(device)


@functools.lru_cache(maxsize=64)
def packed_ends(cuts: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the sequences that have a tick: their numbers, their first places and their last ones."""
    found = [(n, begin, end - 1) for n, (begin, end) in enumerate(itertools.pairwise(cuts)) if begin < end]
    rows, first, last = (torch.tensor(x, device=device) for x in zip(*found, strict=True))
    return rows, first, last


def packed_delay(x: torch.Tensor, before: torch.Tensor, cuts: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, T, ..] a tick later, ``before`` [B, ..] at the first one; and the value of the last tick."""
    if not cuts:
        return torch.cat([before.unsqueeze(1), x[:, :-1]], 1), x[:, -1].to(before.dtype)
    rows, first, last = packed_ends(cuts, x.device)
    moved = torch.cat([x[:, :1], x[:, :-1]], 1)
    moved = moved.index_copy(1, first, before[rows].unsqueeze(0).to(x.dtype))
    return moved, before.index_copy(0, rows, x[0, last].to(before.dtype))
