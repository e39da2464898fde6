"""A program that goes through the columns of a dim in tiles, and sums over it as it goes.

The hidden layer of a deep memory has more columns than registers have room for, and its outputs sum over them: no
program can have only some. So one program takes them a tile at a time, in *rounds*. What has no columns has a level:
how many sums over columns it is away from what is read. Round ``l`` computes, tile by tile, the sums that need only
what has levels up to ``l``; values with columns are computed again in each round that needs them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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
    tiles, ``written`` the values with columns of which each tile is written."""

    before: tuple[int, ...]
    sums: tuple[int, ...]
    written: tuple[int, ...]


@dataclass(frozen=True)
class Walk:
    """``columns`` at a time of ``size``; ``places`` are where values have the columns. ``peak``: the entries that live
    at once in a round, ``between`` those while what a round needs is computed before it."""

    places: frozenset[Place]
    size: int
    columns: int
    rounds: tuple[Round, ...]
    peak: int
    between: int


def walk_of(
    job: Job, pressure: Pressure, targets: Sequence[int], stored: Collection[int], step: bool = False
) -> Walk | None:
    """The best walk for a kernel that computes ``targets``, if there is one: the largest tiles that fit, else the walk
    that comes nearest. ``step``: the kernel is a loop over segments whose carried values lie in memory."""
    again = set(targets)
    known = {v for v in stored if v not in again}
    best: Walk | None = None
    for places in walks(job, targets, stored, TILES[-1], step)[:3]:
        value, dim = next(iter(places))
        size = pressure.relations.sizes(value)[dim]
        assert isinstance(size, int)
        with_columns = {v for v, _ in places}
        late = {v for _, v in job.carry} if step and any(p for _, p in job.variables) else set[int]()
        rounds = rounds_of(job, pressure, targets, known, with_columns, late)
        if rounds is None:
            continue
        for columns in TILES:
            if columns >= size:
                continue
            peak = walk_peak(pressure, rounds, targets, known, places, columns)
            found = Walk(places, size, columns, rounds, peak, walk_between(pressure, rounds, known))
            if peak <= pressure.room * (IN_A_LOOP if step else 1):
                return found
            if best is None or peak < best.peak:
                best = found
    return best


def rounds_of(
    job: Job,
    pressure: Pressure,
    targets: Sequence[int],
    known: Collection[int],
    with_columns: Collection[int],
    late: Collection[int] = (),
) -> tuple[Round, ...] | None:
    """The rounds of a walk, None where it has none; what is ``late`` is written in the last one."""
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
    rounds = []
    for at in range(last_round + 1):
        own = tuple(v for v in sums if level[v] == at + 1)
        written = tuple(
            v for v in dict.fromkeys(targets) if v in with_columns and (last_round if v in late else level[v]) == at
        )
        before: dict[int, None] = {}
        for value in inside(job, (*own, *written), known, with_columns):
            args = () if value in known else body[value].args
            before |= {a: None for a in args if a not in with_columns}
        if own or written:
            rounds.append(Round(tuple(before), own, written))
    return tuple(rounds) if rounds else None


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
        cone = inside(job, (*round_.sums, *round_.written), known, split)
        held = sum(pressure.entries(v, parts, 0) for v in outer if body[v].op not in ("const", "iota"))
        held += sum(pressure.entries(v, parts, 0) for v in round_.sums)
        most = max(most, held + _inner(pressure, cone, known, split, columns))
        read = [v for v in cone if v in split and (v in known or not body[v].args)]
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
            for v in inside(pressure.job, (*r.sums, *r.written), known, split)
        )
        for r in walk.rounds
    )
