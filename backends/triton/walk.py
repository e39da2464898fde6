"""A program that goes through the columns of a dim in tiles, and sums over it as it goes.

The hidden layer of a deep memory has more columns than registers have room for, and its outputs sum over them: no
program can have only some. So one program takes them a tile at a time, in *rounds*. What has no columns has a level:
how many sums over columns it is away from what is read. Round ``l`` computes, tile by tile, the sums that need only
what has levels up to ``l``; values with columns are computed again in each round that needs them, but for those that
the kernel has left in memory in an earlier round: it leaves products for that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nldsl.backends.triton.columns import walks
from nldsl.backends.triton.job import Job
from nldsl.backends.triton.lower import Place
from nldsl.backends.triton.pressure import DEAR, INSIDE, Pressure

TILES = (64, 32, 16)
# How much of the room a walk in a loop over segments may have, and the tiles that a round of any walk reads: the
# compiler reads ahead, and keeps addresses from round to round.
IN_A_LOOP, READ = 3 / 4, 3 / 4
NOTHING: Mapping[int, Mapping[int, int]] = MappingProxyType({})


@dataclass(frozen=True)
class Round:
    """``before``: values without columns to have before the tiles are gone through, ``sums`` what is summed over the
    tiles, ``written`` the values with columns of which each tile is written, ``read`` those that it reads as earlier
    rounds have left them."""

    before: tuple[int, ...]
    sums: tuple[int, ...]
    written: tuple[int, ...]
    read: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Walk:
    """``columns`` at a time of ``size``; ``places`` are where values have the columns. ``peak``: the entries that live
    at once in a round, ``between`` those while what a round needs is computed before it. ``left``: values that it leaves
    for rounds of its own."""

    places: frozenset[Place]
    size: int
    columns: int
    rounds: tuple[Round, ...]
    peak: int
    between: int
    left: tuple[int, ...] = ()


def walk_of(
    job: Job,
    pressure: Pressure,
    targets: Sequence[int],
    stored: Collection[int],
    left: Collection[int],
    step: bool = False,
) -> Walk | None:
    """The best walk for a kernel that computes ``targets``, if there is one: the largest tiles that fit, else the walk
    that comes nearest. ``left``: those of them that it leaves in memory. ``step``: the kernel is a loop over segments
    whose carried values lie in memory."""
    again = set(targets)
    known = {v for v in stored if v not in again}
    best: Walk | None = None
    for places in walks(job, targets, stored, TILES[-1], step)[:3]:
        value, dim = next(iter(places))
        size = pressure.relations.sizes(value)[dim]
        assert isinstance(size, int)
        forms = [form for form in _forms(job, pressure, targets, known, {v for v, _ in places}, left, step) if form]
        for columns in TILES:
            for rounds, more in forms:
                if columns >= size:
                    continue
                peak = walk_peak(pressure, rounds, targets, known, places, columns)
                between = walk_between(pressure, rounds, known)
                found = Walk(places, size, columns, rounds, peak, between, more)
                if peak <= pressure.room * (IN_A_LOOP if step else 1):
                    return found
                if best is None or peak < best.peak:
                    best = found
    return best


Form = tuple[tuple[Round, ...], tuple[int, ...]]


def _forms(
    job: Job,
    pressure: Pressure,
    targets: Sequence[int],
    known: Collection[int],
    with_columns: Collection[int],
    left: Collection[int],
    step: bool,
) -> Iterator[Form | None]:
    """The rounds that a walk may have, with what it leaves for itself: as few as there may be, and in a loop over
    segments also those in which each state has a round of its own."""
    states: dict[str, list[int]] = {}
    for (state, _), value in job.carry if step else ():
        states.setdefault(state, []).append(value)
    late = {v for _, v in job.carry} if step and any(p for _, p in job.variables) else set[int]()
    for apart in ((), tuple(states.values())) if len(states) > 1 else ((),):

        def rounds_with(more: Sequence[int], apart: Sequence[Collection[int]] = apart) -> tuple[Round, ...] | None:
            return rounds_of(job, pressure, [*targets, *more], known, with_columns, late, {*left, *more}, apart)

        rounds = rounds_with([])
        more = _products_of_rounds(pressure, rounds, known, with_columns) if rounds else []
        if more:
            again = rounds_with(more) or ()
            more = [v for v in more if any(v in r.read for r in again)]
            rounds = rounds_with(more)
        yield (rounds, tuple(more)) if rounds else None


def rounds_of(
    job: Job,
    pressure: Pressure,
    targets: Sequence[int],
    known: Collection[int],
    with_columns: Collection[int],
    late: Collection[int] = (),
    left: Collection[int] = (),
    apart: Sequence[Collection[int]] = (),
) -> tuple[Round, ...] | None:
    """The rounds of a walk, None where it has none; what is ``late`` is written in the last one, what is ``left`` lies
    in memory from then on. What is ``apart`` is written in rounds of its own."""
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
        own = tuple(v for v in sums if level[v] == at + 1)
        written = [
            v for v in dict.fromkeys(targets) if v in with_columns and (last_round if v in late else level[v]) == at
        ]
        groups = [tuple(v for v in written if v in group) for group in apart]
        for sums_of, values in [
            (own, tuple(v for v in written if not any(v in group for group in groups))),
            *(((), group) for group in groups),
        ]:
            if sums_of or values:
                there = frozenset(v for r in rounds for v in r.written if v in left)
                rounds.append(_round_of(job, sums_of, values, known, there, with_columns))
    return tuple(rounds) if rounds else None


def _round_of(
    job: Job,
    sums: tuple[int, ...],
    written: tuple[int, ...],
    known: Collection[int],
    there: frozenset[int],
    with_columns: Collection[int],
) -> Round:
    """The round that computes ``sums`` and ``written``; ``there`` is what earlier ones have left."""
    before: dict[int, None] = {}
    work = inside(job, (*sums, *written), {*known, *there}, with_columns)
    for value in work:
        args = () if value in known or value in there else job.body[value].args
        before |= {a: None for a in args if a not in with_columns}
    return Round(tuple(before), sums, written, there.intersection(work))


def _products_of_rounds(
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
    order: list[int] = []
    seen: set[int] = set()
    stack = [(r, False) for r in reversed(list(roots))]
    while stack:
        value, ready = stack.pop()
        if ready:
            order.append(value)
            continue
        if value in seen:
            continue
        seen.add(value)
        stack.append((value, True))
        args = () if value in known else job.body[value].args
        stack += [(a, False) for a in reversed(args) if a in with_columns]
    return order


def walk_peak(
    pressure: Pressure,
    rounds: Sequence[Round],
    targets: Sequence[int],
    known: Collection[int],
    places: Collection[Place],
    columns: int,
    parts: Mapping[int, Mapping[int, int]] = NOTHING,
) -> int:
    """The most entries that live at once: in a round what its tile needs, the sums, and all that outlives it.
    ``parts``: of other dims of values, by number, the columns that a program has."""
    job, body = pressure.job, pressure.job.body
    split: dict[int, dict[int, int]] = {}
    for value, dim in places:
        split.setdefault(value, dict(parts.get(value, {})))[dim] = columns
    most = 0
    made: set[int] = set()
    for at, round_ in enumerate(rounds):
        wanted = {v for r in rounds[at:] for v in r.before} | {v for v in targets if v not in split}
        outer = {v for v in made if v in wanted} | set(round_.before)
        there = {*known, *round_.read}
        cone = inside(job, (*round_.sums, *round_.written), there, split)
        held = sum(pressure.entries(v, parts, 0) for v in outer if body[v].op not in ("const", "iota"))
        held += sum(pressure.entries(v, parts, 0) for v in round_.sums)
        most = max(most, held + _inner(pressure, cone, there, split, columns))
        read = [v for v in cone if v in split and (v in there or not body[v].args)]
        most = max(most, int(sum(pressure.entries(v, split, columns) for v in read) / READ))
        made |= {*round_.before, *round_.sums}
    sums = {v for r in rounds for v in r.sums}
    outside = [v for v in targets if v not in split and v not in sums]
    if outside:
        most = max(most, pressure.peak(outside, {*known, *sums}, parts))
    return most


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
            own = pressure.inside(value, body[value].op, split, columns)
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
