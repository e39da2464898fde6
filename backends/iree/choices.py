"""What only a slow clock needs, put into branches that are taken at its ticks.

A value that feeds nothing but the first operand of ``when(it, ...; clock)`` is needed where the clock fires. The
choices of one clock are made in one branch, as late as their results allow: a branch costs a loop of one round or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nldsl.ir.clocks import implies
from nldsl.ir.demand import reachable
from nldsl.ir.program import Instr
from nldsl.ir.types import Clock

# Operations that are more than a pass over their operands; few others are done sooner than a branch is taken.
HEAVY = frozenset(
    "einsum solve solve_triangular segprod cumprod decay_gram decay_gram_grad linear_scan matrix_scan two_sided_scan"
    " take scatter_add".split()
)
MANY = 24


@dataclass(frozen=True)
class Branch:
    """``inside`` is computed where ``clock`` fires, and gives each of ``whens`` its new value; all in order."""

    clock: Clock
    whens: tuple[int, ...]
    inside: tuple[int, ...]


def planned(
    body: Sequence[Instr], values: Sequence[int], kept: Iterable[int], taken: Clock | None
) -> list[int | Branch]:
    """The order in which ``values`` are computed. ``taken``: the clock of the branch that this is in."""
    plan = _Plan(body, list(values), taken)
    plan.find(set(kept))
    found = plan.order() if plan.slow else []
    return found if any(isinstance(item, Branch) for item in found) else list(values)


@dataclass
class _Plan:
    body: Sequence[Instr]
    values: list[int]
    taken: Clock | None
    slow: dict[int, Clock] = field(default_factory=dict)
    waiting: dict[Clock, list[int]] = field(default_factory=dict)
    items: list[int | Branch] = field(default_factory=list)

    def clock(self, v: int) -> Clock | None:
        """The clock of a choice that is open here."""
        instr = self.body[v]
        if instr.op != "when" or implies(self.taken, instr.attr("clock")):
            return None
        found: Clock = instr.attr("clock")
        return found

    def find(self, kept: set[int]) -> None:
        """The values that are needed at one clock alone."""
        here = set(self.values)
        uses: dict[int, set[Clock | None]] = {}
        for v in reversed(self.values):
            own = uses.get(v, {None})
            if v not in kept and self.body[v].args and len(own) == 1 and (only := next(iter(own))) is not None:
                self.slow[v] = only
            for position, a in enumerate(self.body[v].args):
                if a in here:
                    at = self.slow.get(v)
                    uses.setdefault(a, set()).add(self.clock(v) if at is None and position == 0 else at)

    def order(self) -> list[int | Branch]:
        for v in self.values:
            if v in self.slow:
                continue
            args, clock = self.body[v].args, self.clock(v)
            if clock is None or args[0] not in self.slow:
                self.before(args, None)
                self.items.append(v)
                continue
            self.before([a for i in self.inside([v]) for a in self.body[i].args], clock)
            self.before(args[1:], None)
            self.waiting.setdefault(clock, []).append(v)
        for clock in list(self.waiting):
            self.flush(clock)
        return self.items

    def inside(self, whens: Sequence[int]) -> list[int]:
        """What the new values of these choices are made of in the branch."""
        return sorted(reachable(self.body, [self.body[w].args[0] for w in whens], self.slow))

    def before(self, args: Iterable[int], own: Clock | None) -> None:
        """Choices that these values need are made now; those of the branch itself are known in it."""
        needed = set(args)
        for clock in [c for c, whens in self.waiting.items() if c != own and needed.intersection(whens)]:
            self.flush(clock)

    def flush(self, clock: Clock) -> None:
        whens = self.waiting.pop(clock)
        inside = self.inside(whens)
        if len(inside) > MANY or any(self.body[v].op in HEAVY for v in inside):
            self.items.append(Branch(clock, tuple(whens), tuple(inside)))
        else:
            self.items += sorted([*inside, *whens])
