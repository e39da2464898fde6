"""The ticks of two clocks compared: which guard serves which, and when both fire."""

from __future__ import annotations

from math import lcm

from nldsl.ir.types import Clock


def implies(inner: Clock | None, outer: Clock | None) -> bool:
    """Whether ``outer`` fires at every tick of ``inner``; ``None`` is the clock of every tick."""
    if outer is None or outer.period == 1:
        return True
    if inner is None:
        return False
    return inner.start == outer.start and inner.period % outer.period == 0


def meet(left: Clock | None, right: Clock | None) -> Clock | None:
    """The clock of the ticks at which both fire. Raises ValueError where that is no ``Clock``: a clock that fires at
    the start of its period and one that fires at its end."""
    if implies(left, right):
        return left
    if implies(right, left):
        return right
    assert left is not None
    assert right is not None
    if left.start != right.start:
        raise ValueError(f"no clock fires exactly when {left} and {right} do")
    return Clock(lcm(left.period, right.period), left.start)
