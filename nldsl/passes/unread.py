"""What nothing can read is not computed, and what is only logged is not differentiated.

A program names values for logs (``Program.probes``: inner losses, gates, rates). They are given back with the loss of
``minimize``; a program without one gives outputs and states alone, and the inner loss of a memory would cost it a
product or two in each tick, and their derivatives.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.program import Program
from nldsl.passes.simplify import without_dead


def without_unread(program: Program) -> Program:
    """The program without probes that nobody can ask for, and without what only they need."""
    if program.losses or not program.probes:
        return program
    return without_dead(replace(program, probes=()))


def logged_only(program: Program, loop: ChunkLoop) -> frozenset[int]:
    """The outputs of a loop that end in probes alone: no gradient arrives at them."""
    named = {v for _, v in (*program.outputs, *program.losses)}
    elsewhere = {v for s, v in program.updates if s not in loop.states}
    outside = reachable(program.body, [*named, *(v for _, v in program.updates)]) - set(loop.scan.values)
    read = named | elsewhere | {a for v in outside for a in program.body[v].args}
    return frozenset(v for v, _ in loop.outputs) - read
