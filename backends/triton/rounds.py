"""The rounds in which a program goes through the columns of a dim (``walk.py``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from nldsl.backends.triton.job import Job
from nldsl.backends.triton.pressure import Pressure
from nldsl.ir.demand import in_order


@dataclass(frozen=True)
class Round:
    """``before``: values without columns to have before the tiles are gone through, ``sums`` what is summed over the
    tiles, ``written`` the values with columns of which each tile is written, ``read`` those that it reads as earlier
    rounds have left them."""

    before: tuple[int, ...]
    sums: tuple[int, ...]
    written: tuple[int, ...]
    read: frozenset[int] = frozenset()
    level: int = 0


Fits = Callable[[Round, Collection[int]], bool]  # whether there is room for a round, beside these sums


def rounds_of(
    job: Job,
    pressure: Pressure,
    targets: Sequence[int],
    known: Collection[int],
    with_columns: Collection[int],
    late: Collection[int] = (),
    left: Collection[int] = (),
    together: Sequence[Collection[int]] = (),
    fits: Fits | None = None,
) -> tuple[Round, ...] | None:
    """The rounds of a walk, None where it has none; what is ``late`` is written in the last one, what is ``left`` lies
    in memory from then on. With ``fits`` a level has as many rounds as it takes for all of them to do so;
    what stands ``together`` is then written in one.
    """
    body = job.body
    order = pressure.cone(targets, known)
    level: dict[int, int] = {}
    sums: list[int] = []
    for value in order:
        args = () if value in known else body[value].args
        level[value] = max((level[a] for a in args), default=0)
        if value not in with_columns and any(a in with_columns for a in args):
            level[value] += 1
            sums.append(value)
    last_round = max([level[v] for v in order if v in with_columns], default=0)
    rounds: list[Round] = []
    for at in range(last_round + 1):
        own = [v for v in sums if level[v] == at + 1]
        written = [
            v for v in dict.fromkeys(targets) if v in with_columns and (last_round if v in late else level[v]) == at
        ]
        work = _Level(job, at, known, with_columns, left, tuple(rounds))
        if fits is None:
            rounds += [work.round(tuple(own), tuple(written), ())] if own or written else []
            continue
        alone = [v for v in written if not any(v in group for group in together)]
        groups = [tuple(v for v in group if v in written) for group in together]
        rounds += work.divided([(v,) for v in own], [*((v,) for v in alone), *(g for g in groups if g)], fits)
    return tuple(rounds) if rounds else None


@dataclass(frozen=True)
class _Level:
    """The rounds of a level, after ``earlier`` ones."""

    job: Job
    number: int
    known: Collection[int]
    with_columns: Collection[int]
    left: Collection[int]
    earlier: tuple[Round, ...]

    def round(self, sums: tuple[int, ...], written: tuple[int, ...], before: Sequence[Round]) -> Round:
        """The round that computes these; ``before`` are those of the level that come before it."""
        there = frozenset(v for r in (*self.earlier, *before) for v in r.written if v in self.left)
        work = inside(self.job, (*sums, *written), {*self.known, *there}, self.with_columns)
        outside: dict[int, None] = {}
        for value in work:
            args = () if value in self.known or value in there else self.job.body[value].args
            outside |= {a: None for a in args if a not in self.with_columns}
        return Round(tuple(outside), sums, written, there.intersection(work), self.number)

    def divided(self, sums: Sequence[tuple[int]], written: Sequence[tuple[int, ...]], fits: Fits) -> list[Round]:
        """Each sum and each group of values in the first round that has room for it, and not before what it reads."""
        rounds: list[Round] = []
        place: dict[int, int] = {}
        every = [v for (v,) in sums]
        for group in sorted([*sums, *written], key=max):
            work = inside(self.job, group, self.known, self.with_columns)
            first = max((place[v] for v in work if v in place and v in self.left), default=0)
            for at in range(first, len(rounds) + 1):
                old = rounds[at] if at < len(rounds) else Round((), (), ())
                own = tuple(v for v in group if v in every)
                found = self.round((*old.sums, *own), (*old.written, *(v for v in group if v not in own)), rounds[:at])
                if at == len(rounds) or fits(found, [v for v in every if v not in found.sums]):
                    rounds[at : at + 1] = [found]
                    place |= dict.fromkeys(group, at)
                    break
        for at, round_ in enumerate(rounds):  # with all that those before it have left
            rounds[at] = self.round(round_.sums, round_.written, rounds[:at])
        return rounds


def products_again(
    pressure: Pressure, rounds: Sequence[Round], known: Collection[int], with_columns: Collection[int]
) -> list[int]:
    """The products with columns that more than one round computes."""
    job = pressure.job
    count: dict[int, int] = {}
    for round_ in rounds:
        for value in inside(job, (*round_.sums, *round_.written), {*known, *round_.read}, with_columns):
            if value in with_columns and value not in known and value not in round_.read:
                count[value] = count.get(value, 0) + (pressure.contracts(value) or pressure.dear(value))
    return sorted(v for v, n in count.items() if n > 1)


def inside(job: Job, roots: Iterable[int], known: Collection[int], with_columns: Collection[int]) -> list[int]:
    """What a round computes for a tile, in order: its sums and what it writes, and values with columns for them."""
    body = job.body
    return in_order(roots, lambda v: () if v in known else [a for a in body[v].args if a in with_columns])
