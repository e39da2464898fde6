"""What a thread holds in a round of a walk, in registers.

``pressure.py`` counts the entries of tiles. That tells what a kernel of large tiles needs, and too little of a loop
over small ones with many products. There threads also hold

* tiles that have fewer entries than the threads of a program: the hardware makes 16 x 8 entries of a result in a warp,
  4 in each thread, and warps that are left have the same ones;
* operands that are the same for all tiles, of products with few rows: the compiler brings them into registers before
  the loop, and each warp has all of their rows;
* descriptors of where operands lie in shared memory, a pair for every 16 terms of a sum, and where what is read and
  written lies: none of it depends on the tile, so it is computed before the loop and kept (``library.unseen`` keeps it
  from keeping more).

What it comes to was fitted with what the compiler reports of walks of deep memories (``MOST``, ``ADDRESSES``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from nldsl.backends.triton.pressure import ROWS, WARPS, Pressure
from nldsl.backends.triton.rounds import Round, inside

THREADS = 32 * WARPS
MATRIX, VECTOR = 4, 2  # the registers of a thread that a tile takes at least
ADDRESSES = 4  # those that a product, a tile that is read, and one that is written keep
MOST = 165  # what a round may need: the compiler wants others for what it is doing, and for arguments
DESCRIPTORS, STEP_DEPTH = 4, 16  # the registers of two descriptors, and how much of a sum an instruction takes

Split = Mapping[int, Mapping[int, int]]
NOTHING: Split = MappingProxyType({})


def _held(pressure: Pressure, values: Iterable[int], split: Split) -> float:
    """The registers that tiles take while they wait. ``split``: the columns that they have, dim by dim."""
    return sum(_registers(pressure, v, split) for v in values if pressure.job.body[v].op not in ("const", "iota"))


def need(
    pressure: Pressure,
    round_: Round,
    outer: Collection[int],
    known: Collection[int],
    split: Split,
    parts: Split = NOTHING,
) -> float:
    """The registers that a thread needs in a round, with what it holds of values without columns: those of before the
    round and the ``outer`` ones. ``parts``: the columns of other dims that a program has of these."""
    body = pressure.job.body
    there = {*known, *round_.read}
    work = inside(pressure.job, (*round_.sums, *round_.written), there, split)
    read = [v for v in work if v in split and (v in there or not body[v].args)]
    products = [v for v in work if v not in there and pressure.multiplied(v)]
    own = _held(pressure, {*outer, *round_.before, *round_.sums}, parts)
    own += _tiles(pressure, work, there, split)
    split = {**parts, **split}
    own += _operands(pressure, products, split, work) + sum(_descriptors(pressure, v, split) for v in products)
    return own + ADDRESSES * (len(products) + len(read) + len(round_.written))


def _registers(pressure: Pressure, value: int, split: Split) -> float:
    """The registers of a thread that a tile takes."""
    entries, wide = pressure.entries(value, split, 0), sum(n > 1 for n in pressure.blocks(value))
    return max(entries / THREADS, (1, VECTOR, MATRIX)[min(wide, 2)])


def _operands(pressure: Pressure, products: Iterable[int], split: Split, work: Collection[int]) -> float:
    """What operands without columns take where products have few rows: all of it in each warp, two to a register."""
    few = [v for v in products if max(pressure.sides(v, split)) < ROWS]
    same = {a for v in few for a in pressure.job.body[v].args if a not in work}
    return sum(pressure.entries(a, split, 0) * WARPS / 2 / THREADS for a in same)


def _descriptors(pressure: Pressure, value: int, split: Split) -> float:
    """What says where both operands of a product with many rows lie, for each step along its sum, but for the first."""
    if max(pressure.sides(value, split)) < ROWS or pressure.operands:
        return 0.0
    return DESCRIPTORS * (pressure.depth(value, split) // STEP_DEPTH - 1)


def _tiles(pressure: Pressure, work: list[int], there: Collection[int], split: Split) -> float:
    """The most that tiles with columns take at once."""
    body = pressure.job.body
    last = {v: at for at, v in enumerate(work)}
    for at, value in enumerate(work):
        last |= {a: at for a in (() if value in there else body[value].args) if a in split}
    live: dict[int, float] = {}
    most = 0.0
    for at, value in enumerate(work):
        if value in split:
            live[value] = _registers(pressure, value, split)
        most = max(most, sum(live.values()))
        for ended in [v for v in live if last[v] == at]:
            del live[ended]
    return most
