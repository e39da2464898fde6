"""Which values are needed, and when: what only feeds ``when(it, ...; clock)`` is needed on that clock alone."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence

from nldsl.ir.clocks import implies
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import Clock


def demand(body: Sequence[Instr], values: Sequence[int], roots: Iterable[int]) -> dict[int, Clock | None]:
    """For each of ``values`` (in order) that ``roots`` need: the clock on which, or None for every tick.

    The declared guards are not used: what they promise follows from the uses, and a value that is also used at every
    tick is right to be computed at every tick.
    """
    inside = set(values)
    found: dict[int, Clock | None] = {root: None for root in roots if root in inside}
    for value in sorted(inside, reverse=True):
        if value not in found:
            continue
        own, instr = found[value], body[value]
        for position, arg in enumerate(instr.args):
            if arg not in inside:
                continue
            wanted = own
            if instr.op == "when" and position == 0 and not implies(own, instr.attr("clock")):
                wanted = instr.attr("clock")
            found[arg] = join(found[arg], wanted) if arg in found else wanted
    return found


def join(left: Clock | None, right: Clock | None) -> Clock | None:
    """A clock that fires at least where one of the two does."""
    if implies(left, right):
        return right
    if implies(right, left):
        return left
    return None


def in_order(start: Iterable[int], needs: Callable[[int], Sequence[int]]) -> list[int]:
    """These values and all that they need, each after what it ``needs``, in the order in which that is asked for."""
    order: list[int] = []
    seen: set[int] = set()
    for first in start:
        stack = [(first, False)]
        while stack:
            value, ready = stack.pop()
            if ready:
                order.append(value)
            elif value not in seen:
                seen.add(value)
                stack.append((value, True))
                stack.extend((v, False) for v in reversed(needs(value)))
    return order


def reachable(body: Sequence[Instr], start: Iterable[int], among: Container[int] | None = None) -> set[int]:
    """The values that these are computed from, and these; of ``among`` alone, if it is given."""
    found: set[int] = set()
    stack = list(start)
    while stack:
        value = stack.pop()
        if value not in found and (among is None or value in among):
            found.add(value)
            stack.extend(body[value].args)
    return found


def roots(program: Program) -> list[int]:
    """What a tick is computed for: new states, results, probes."""
    named = (*program.updates, *program.outputs, *program.losses, *program.probes)
    return [value for _, value in named]
