"""Kernels whose programs divide the columns of one dim and go through those of another, summing over these.

The cotangents of queries and keys are sums over the columns of the states, and have columns of their own: one kernel
reads the states and their cotangents once for all of them. What has no columns of either dim is left to later
kernels, which find in memory what this one has summed: over the columns that it went through, or, as a part for each
program, over those that are divided. A sum over divided columns that such a kernel itself would need comes before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from nldsl.backends.triton.columns import walks
from nldsl.backends.triton.lower import Place
from nldsl.backends.triton.pressure import ROWS, Pressure
from nldsl.backends.triton.rounds import inside, rounds_of
from nldsl.backends.triton.threads import MOST
from nldsl.backends.triton.tiles import power_of_two
from nldsl.backends.triton.walk import Walk, walk_between, walk_need, walk_peak

WIDTHS, TILES = (64, 32, 16), (64, 32, 16)
# How much more than other kernels one of this form may need: its sums are divided evenly, and nothing else is large.
MORE = 1.4
WITHIN = 0.8  # and of their rounds, where a library function is a part of them
MORE_FROM_REGISTERS = 1.1  # the first of these where products read their operands from registers
FEW = 8  # no more than others where a round has more products than these: what they need is not small


@dataclass(frozen=True)
class Found:
    """``before``: values to be left by kernels before this one, ``left`` those that this one leaves, ``partial`` those
    of them that each program has a part of, ``results`` what it gives, ``rest`` what later kernels give. ``parts`` are
    the places of the divided dim, of which a program has ``width`` columns of ``size``."""

    before: tuple[int, ...]
    left: tuple[int, ...]
    partial: frozenset[int]
    results: tuple[int, ...]
    rest: tuple[int, ...]
    parts: frozenset[Place]
    size: int
    width: int
    walk: Walk


def two_level(pressure: Pressure, results: Sequence[int], stored: Collection[int]) -> Iterator[Found]:
    """The kernels of this form for ``results``, if there are any: for each choice of the two dims."""
    job = pressure.job
    classes = walks(job, results, stored, TILES[-1], False)[:3]
    for through in classes:
        for divided in classes:
            if through is not divided and not through & divided:
                found = _Choice(pressure, results, stored, through, divided).found()
                if found is not None:
                    yield found


class _Choice:
    """The kernel that goes ``through`` one dim, and whose programs divide another."""

    def __init__(
        self,
        pressure: Pressure,
        results: Sequence[int],
        stored: Collection[int],
        through: frozenset[Place],
        divided: frozenset[Place],
    ) -> None:
        self.pressure, self.body = pressure, pressure.job.body
        self.stored = frozenset(stored)
        self.through, self.divided = through, divided
        self.walked, self.split = {v for v, _ in through}, {v for v, _ in divided}
        self.order = pressure.cone(results, self.stored)
        self.roots = list(results)
        # what cannot be had without going through the dim, and sums over divided columns of such values
        self.waits: set[int] = set()
        for value in self.order:
            if value in self.walked or any(a in self.waits for a in self.args(value)):
                self.waits.add(value)

    def args(self, value: int) -> tuple[int, ...]:
        return () if value in self.stored else self.body[value].args

    def sums_over(self, value: int, which: Collection[int]) -> bool:
        return value not in which and any(a in which for a in self.args(value))

    def found(self) -> Found | None:
        own = [v for v in self.roots if v in self.split]
        if not own or not any(v in self.waits and v not in self.walked for v in own):
            return None
        before = self._before(own)
        known = self.stored | set(before)
        own += [v for v in self.roots if self._on_the_way(v, known)]
        rest = [v for v in self.roots if v not in own]
        left, partial = self._boundary(rest, known)
        again = self._before(list(left), known, partial)
        before, known = (*before, *again), known | set(again)
        targets = (*left, *own)
        return self._sized(before, left, partial, tuple(own), tuple(rest), targets, known)

    def _on_the_way(self, value: int, known: Collection[int]) -> bool:
        """Whether a result with the columns that it goes through is computed for the others anyway, or nearly."""
        return value in self.walked and value not in self.split and not self._before([value], known)

    def _before(
        self, targets: list[int], known: Collection[int] = (), partial: Collection[int] = ()
    ) -> tuple[int, ...]:
        """The sums over divided columns that these values need, and that wait for the walk: not the parts of sums that
        are left as such."""
        found: dict[int, None] = {}
        stack, seen = list(targets), set[int]()
        while stack:
            value = stack.pop()
            if value in seen or value in known or value in self.stored:
                continue
            seen.add(value)
            if value in self.waits and self.sums_over(value, self.split) and value not in partial:
                found[self._whole(value)] = None
                continue
            stack += self.args(value)
        return tuple(sorted(found))

    def _whole(self, value: int) -> int:
        """Where a sum is added to others at once: the sum of all of them is what lies in memory."""
        users = [v for v in self.order if value in self.args(v)]
        if len(users) == 1 and self.body[users[0]].op in ("add", "sub") and users[0] not in self.split:
            other = [a for a in self.args(users[0]) if a != value]
            if not any(a in self.split for a in other):
                return users[0]
        return value

    def _boundary(self, rest: Sequence[int], known: Collection[int]) -> tuple[tuple[int, ...], frozenset[int]]:
        """What the kernel leaves for the rest: sums over columns of either dim."""
        left: dict[int, None] = {}
        partial: set[int] = set()
        stack, seen = list(rest), set[int]()
        while stack:
            value = stack.pop()
            if value in seen or value in known or value in self.stored or value not in self.waits:
                continue
            seen.add(value)
            if value in self.split or value in self.walked:
                continue
            divides, sums = self.sums_over(value, self.split), self.sums_over(value, self.walked)
            if divides or sums:
                left[value] = None
                if divides:
                    partial.add(value)
                continue
            stack += self.args(value)
        return tuple(sorted(left)), frozenset(partial)

    def _sized(
        self,
        before: tuple[int, ...],
        left: tuple[int, ...],
        partial: frozenset[int],
        own: tuple[int, ...],
        rest: tuple[int, ...],
        targets: tuple[int, ...],
        known: frozenset[int],
    ) -> Found | None:
        """The widest columns, and then the largest tiles, with which it fits."""
        pressure, job = self.pressure, self.pressure.job
        sizes = [pressure.relations.sizes(v)[d] for v, d in (min(self.through), min(self.divided))]
        size, divided = (int(str(s)) for s in sizes)
        rounds = rounds_of(job, pressure, targets, known, self.walked)
        if rounds is None:
            return None
        # what library functions hold after the rounds leaves no more room than usual for these, and in them less
        cone = [v for v in pressure.cone(targets, known) if v not in known and pressure.dear(v)]
        within = any(a in self.walked for v in cone for a in self.args(v))
        most = pressure.room * (WITHIN if within else 1 if cone else MORE)
        own_work = (inside(job, (*r.sums, *r.written), known, self.walked) for r in rounds)
        many = max(sum(pressure.product(v) for v in work) for work in own_work) > FEW
        room = pressure.room * (1 if many else MORE_FROM_REGISTERS if pressure.operands else MORE)
        few_rows = many and pressure.ticks < ROWS  # products whose operands lie in registers, again in each warp
        for width in WIDTHS:
            for columns in TILES:
                if width > power_of_two(divided) or columns >= size:
                    continue
                more = {v: {d: width} for v, d in self.divided}
                peak = walk_peak(pressure, rounds, targets, known, self.through, columns, more)
                inner = walk_peak(pressure, rounds, (), known, self.through, columns, more)
                if few_rows and walk_need(pressure, rounds, targets, known, self.through, columns, more) > MORE * MOST:
                    continue
                if peak <= room and inner <= most:
                    between = walk_between(pressure, rounds, known, more)
                    walk = Walk(self.through, size, columns, rounds, peak, between)
                    return Found(before, left, partial, own, rest, self.divided, divided, width, walk)
        return None
