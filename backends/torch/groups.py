"""The order of a tick's values: those of one slow clock next to each other, so that one ``if`` holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from nldsl.ir.clocks import implies
from nldsl.ir.demand import demand
from nldsl.ir.program import Instr
from nldsl.ir.types import Clock


@dataclass
class Group:
    """Values needed on one clock. ``selects``: the ``when`` among them whose value is needed at the other ticks too."""

    clock: Clock | None
    members: list[int] = field(default_factory=list)
    selects: set[int] = field(default_factory=set)


def by_clock(body: Sequence[Instr], values: Sequence[int], kept: Sequence[int]) -> list[Group]:
    """Values in an order that respects their operands, in runs that are needed on the same clock.

    A ``when`` that selects is in the run of its own clock. Values that nothing needs are left out.
    """
    needed = tick_demand(body, values, kept)
    order = [v for v in values if v in needed]
    clocks = {v: _clock_of(body[v], needed[v]) for v in order}
    waiting = {v: {a for a in body[v].args if a in needed} for v in order}
    users: dict[int, list[int]] = {v: [] for v in order}
    for value in order:
        for arg in waiting[value]:
            users[arg].append(value)
    ready: dict[Clock | None, list[int]] = {}
    for value in order:
        if not waiting[value]:
            heappush(ready.setdefault(clocks[value], []), value)
    groups: list[Group] = []
    while any(ready.values()):
        clock = None if ready.get(None) else min((q[0], c) for c, q in ready.items() if q and c is not None)[1]
        group = Group(clock)
        while ready.get(clock):
            value = heappop(ready[clock])
            group.members.append(value)
            if clocks[value] != needed[value]:
                group.selects.add(value)
            for user in users[value]:
                waiting[user].discard(value)
                if not waiting[user]:
                    heappush(ready.setdefault(clocks[user], []), user)
        groups.append(group)
    return groups


def tick_demand(body: Sequence[Instr], values: Sequence[int], kept: Sequence[int]) -> dict[int, Clock | None]:
    """As ``demand``, but a ``when`` that really selects between two values is needed at every tick."""
    roots = list(kept)
    while True:
        needed = demand(body, values, roots)
        mixed = [
            v
            for v, clock in needed.items()
            if body[v].op == "when" and clock is not None and not implies(clock, body[v].attr("clock"))
        ]
        if not mixed:
            return needed
        roots += mixed


def _clock_of(instr: Instr, needed: Clock | None) -> Clock | None:
    if instr.op == "when" and not implies(needed, instr.attr("clock")):
        clock: Clock = instr.attr("clock")
        return clock
    return needed
