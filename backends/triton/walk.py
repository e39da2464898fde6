"""A program that goes through the columns of a dim in tiles, and sums over it as it goes.

The hidden layer of a deep memory has more columns than registers have room for, and its outputs sum over them: no
program can have only some. So one program takes them a tile at a time, in *rounds*. What has no columns has a level:
how many sums over columns it is away from what is read. Round ``l`` computes, tile by tile, the sums that need only
what has levels up to ``l``; values with columns are computed again in each round that needs them, but for those that
the kernel has left in memory in an earlier round: it leaves products for that. Where a level has more work than there
is room for, it takes several rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nldsl.backends.triton.columns import walks
from nldsl.backends.triton.job import Job
from nldsl.backends.triton.lower import Place
from nldsl.backends.triton.pressure import DEAR, INSIDE, Pressure
from nldsl.backends.triton.rounds import Round, inside, products_again, rounds_of
from nldsl.backends.triton.threads import MOST, need

TILES = (64, 32, 16)
NARROW = (32, 16)  # where there are many: what makes up a wider one takes more registers than the entries that it has
# How much of the room a walk in a loop over segments may have, and the tiles that a round of any walk reads: the
# compiler reads ahead, and keeps addresses from round to round.
IN_A_LOOP, READ = 3 / 4, 3 / 4
NOTHING: Mapping[int, Mapping[int, int]] = MappingProxyType({})


@dataclass(frozen=True)
class Walk:
    """``columns`` at a time of ``size``; ``places`` are where values have the columns. ``peak``: the entries that live
    at once in a round, ``between`` those while what a round needs is computed before it. ``left``: values that it
    leaves for rounds of its own. ``full``: it has so many tiles that the compiler must not keep their places."""

    places: frozenset[Place]
    size: int
    columns: int
    rounds: tuple[Round, ...]
    peak: int
    between: int
    left: tuple[int, ...] = ()
    full: bool = False


def walk_of(
    job: Job,
    pressure: Pressure,
    targets: Sequence[int],
    stored: Collection[int],
    left: Collection[int],
    step: bool = False,
    many: bool = False,
) -> Walk | None:
    """The best walk for a kernel that computes ``targets``, if there is one: the largest tiles that fit, else the walk
    that comes nearest. ``left``: those of them that it leaves in memory. ``step``: the kernel is a loop over segments
    whose carried values lie in memory. Such a one, and one with ``many`` products in a round, may have more rounds than
    it needs, so that each fits by what its threads hold.
    """
    again = set(targets)
    known = {v for v in stored if v not in again}
    best: Walk | None = None
    least = 0.0
    divides = step or many
    for places in walks(job, targets, stored, TILES[-1], step)[:3]:
        value, dim = next(iter(places))
        size = pressure.relations.sizes(value)[dim]
        assert isinstance(size, int)
        tiles = [n for n in (NARROW if divides else TILES) if n < size]
        for columns, divided in [*((n, False) for n in tiles), *((n, True) for n in tiles if divides)]:
            form = _form(job, pressure, targets, known, places, columns, left, step, divided)
            if form is None:
                continue
            rounds, more = form
            rough = walk_peak(pressure, rounds, targets, known, places, columns, step=step)
            full = walk_need(pressure, rounds, targets, known, places, columns) / MOST if divides else 0.0
            peak = max(rough, int(min(1.0, full) * pressure.room))
            between = walk_between(pressure, rounds, known)
            found = Walk(places, size, columns, rounds, peak, between, more, divides)
            full = max(full, rough / (pressure.room * (IN_A_LOOP if step else 1)))
            if full <= 1:
                return found
            if best is None or full < least:
                best, least = found, full
    return best


def _form(
    job: Job,
    pressure: Pressure,
    targets: Sequence[int],
    known: Collection[int],
    places: frozenset[Place],
    columns: int,
    left: Collection[int],
    step: bool,
    divided: bool,
) -> tuple[tuple[Round, ...], tuple[int, ...]] | None:
    """The rounds that a walk has, and what it leaves for itself: as few rounds as there may be or, ``divided``, as many
    as it takes for each to fit."""
    with_columns = {v for v, _ in places}
    states: dict[str, list[int]] = {}
    for (state, _), value in job.carry if step else ():
        states.setdefault(state, []).append(value)
    late = {v for _, v in job.carry} if step and any(p for _, p in job.variables) else set[int]()
    room = pressure.room * (IN_A_LOOP if step else 1)

    def fits(round_: Round, beside: Collection[int]) -> bool:
        own = walk_peak(pressure, (round_,), (), known, places, columns, step=step)
        if own + sum(pressure.entries(v, {}, 0) for v in beside) > room:
            return False
        return need(pressure, round_, beside, known, _split(places, columns)) <= MOST

    def rounds_with(more: Sequence[int]) -> tuple[Round, ...] | None:
        wanted, kept = [*targets, *more], {*left, *more}
        test = fits if divided else None
        return rounds_of(job, pressure, wanted, known, with_columns, late, kept, tuple(states.values()), test)

    rounds = rounds_with([])
    more = products_again(pressure, rounds, known, with_columns) if rounds else []
    if more:
        again = rounds_with(more) or ()
        more = [v for v in more if any(v in r.read for r in again)]
        rounds = rounds_with(more)
    return (rounds, tuple(more)) if rounds else None


def walk_peak(
    pressure: Pressure,
    rounds: Sequence[Round],
    targets: Sequence[int],
    known: Collection[int],
    places: Collection[Place],
    columns: int,
    parts: Mapping[int, Mapping[int, int]] = NOTHING,
    step: bool = False,
) -> int:
    """The most entries that live at once: in a round what its tile needs, the sums, and all that outlives it.
    ``parts``: of other dims of values, by number, the columns that a program has. In a ``step`` what products along
    ticks hold counts; elsewhere kernels fit without."""
    job, body = pressure.job, pressure.job.body
    split = _split(places, columns, parts)
    most = 0
    for at, round_ in enumerate(rounds):
        outer = _outer(rounds, at, targets, split) | set(round_.before)
        there = {*known, *round_.read}
        cone = inside(job, (*round_.sums, *round_.written), there, split)
        held = sum(pressure.entries(v, parts, 0) for v in outer if body[v].op not in ("const", "iota"))
        held += sum(pressure.entries(v, parts, 0) for v in round_.sums)
        most = max(most, held + _inner(pressure, cone, there, split, columns, step))
        read = [v for v in cone if v in split and (v in there or not body[v].args)]
        most = max(most, int(sum(pressure.entries(v, split, columns) for v in read) / READ))
    sums = {v for r in rounds for v in r.sums}
    outside = [v for v in targets if v not in split and v not in sums]
    if outside:
        most = max(most, pressure.peak(outside, {*known, *sums}, parts))
    return most


def _split(
    places: Collection[Place], columns: int, parts: Mapping[int, Mapping[int, int]] = NOTHING
) -> dict[int, dict[int, int]]:
    """The columns that a tile has of each value that has them, dim by dim."""
    split: dict[int, dict[int, int]] = {}
    for value, dim in places:
        split.setdefault(value, dict(parts.get(value, {})))[dim] = columns
    return split


def _outer(rounds: Sequence[Round], at: int, targets: Sequence[int], split: Collection[int]) -> set[int]:
    """What earlier rounds have made and later ones want."""
    made = {v for r in rounds[:at] for v in (*r.before, *r.sums)}
    wanted = {v for r in rounds[at:] for v in r.before} | {v for v in targets if v not in split}
    return (made & wanted) | {v for r in rounds[:at] if r.level == rounds[at].level for v in r.sums}


def walk_need(
    pressure: Pressure,
    rounds: Sequence[Round],
    targets: Sequence[int],
    known: Collection[int],
    places: Collection[Place],
    columns: int,
    parts: Mapping[int, Mapping[int, int]] = NOTHING,
) -> float:
    """The most registers that a thread needs in a round."""
    split = _split(places, columns, parts)
    outer = [_outer(rounds, at, targets, split) for at in range(len(rounds))]
    return max(need(pressure, r, o, known, split, parts) for r, o in zip(rounds, outer, strict=True))


def walk_between(
    pressure: Pressure,
    rounds: Sequence[Round],
    known: Collection[int],
    parts: Mapping[int, Mapping[int, int]] = NOTHING,
) -> int:
    """The most entries that live at once while the values are computed that rounds need before they begin."""
    made: set[int] = set()
    most = 0
    for round_ in rounds:
        most = max(most, pressure.peak(round_.before, {*known, *made}, parts))
        made |= {*round_.before, *round_.sums}
    return most


def _inner(
    pressure: Pressure,
    cone: Sequence[int],
    known: Collection[int],
    split: Mapping[int, Mapping[int, int]],
    columns: int,
    ticks: bool,
) -> int:
    """The most entries of tiles with columns that live at once."""
    body = pressure.job.body
    last = {v: at for at, v in enumerate(cone)}
    for at, value in enumerate(cone):
        for arg in () if value in known else body[value].args:
            if arg in split:
                last[arg] = at
    live: dict[int, int] = {}
    most = 0
    for at, value in enumerate(cone):
        if value in split:
            live[value] = pressure.entries(value, split, columns)
        if value not in known:
            own = pressure.inside(value, body[value].op, split, columns, ticks)
            # what a function holds in a loop of its own costs more inside of another one
            own *= 2 if body[value].op in INSIDE else 1
            most = max(most, sum(live.values()) + own)
        most = max(most, sum(live.values()))
        for ended in [v for v in live if last[v] == at]:
            del live[ended]
    return most


def products(pressure: Pressure, walk: Walk, known: Collection[int]) -> int:
    """The most products of matrices in a round."""
    split = {v for v, _ in walk.places}
    return max(
        sum(
            DEAR if pressure.dear(v) else int(pressure.product(v))
            for v in inside(pressure.job, (*r.sums, *r.written), {*known, *r.read}, split)
            if v not in r.read
        )
        for r in walk.rounds
    )
