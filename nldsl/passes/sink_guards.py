"""What only guarded values need is guarded, too.

    g = product(..); w = add(w0, g) at clock   -->   g = product(..) at clock; w = add(w0, g) at clock

A way back computes the forward values again; of a state that changes on a slow clock it needs the steps of the change
only where the clock fires, though the forward loop needs some of them (a sum that goes on) in every segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from nldsl.ir.program import Instr
from nldsl.ir.types import Clock


def with_guards(body: Sequence[Instr], roots: Iterable[int]) -> tuple[Instr, ...]:
    """The body, in which a value that is used at one clock alone has that clock. ``roots`` are needed always."""
    needed = set(roots)
    uses: dict[int, set[Clock | None]] = {}
    guards: dict[int, Clock] = {}
    for v in reversed(range(len(body))):
        instr = body[v]
        own = uses.get(v, set())
        if instr.guard is None and instr.args and v not in needed and len(own) == 1 and (only := own.pop()) is not None:
            guards[v] = only
        for a in instr.args:
            uses.setdefault(a, set()).add(guards.get(v, instr.guard))
    return tuple(replace(i, guard=guards[v]) if v in guards else i for v, i in enumerate(body))
