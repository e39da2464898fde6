"""Sums and maxima over dimensions of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.backends.mlir import vector_math as vm
from nldsl.backends.mlir.lane import Index, Lane, Vec
from nldsl.backends.mlir.layout import prepare, price, trial
from nldsl.backends.mlir.nests import horizontal, rows, runs
from nldsl.backends.mlir.text import Function, Ix, Val, at
from nldsl.backends.mlir.views import View, entries, load, pieces, store
from nldsl.ir.ops import split_spec


def single(lane: Lane, value: int, target: View) -> None:
    """An einsum of one operand that sums: the operand's letters that are not in the result."""
    instr = lane.body[value]
    letters, output = split_spec(instr.attr("spec"))
    own = [*lane.axes(instr.args[0]), *letters[0]]
    labels = [*lane.axes(value), *output]
    dims = [d for d, x in enumerate(own) if x not in labels]
    order = [labels.index(x) for x in own if x in labels]
    reduction(lane, instr.args[0], target, dims, order, largest=False)


def reduction(lane: Lane, value: int, target: View, dims: Sequence[int], order: Sequence[int], largest: bool) -> None:
    """``target[kept] = sum`` (or ``max``) of ``value`` over some of its dimensions; ``order``: the place of each other
    dimension in ``target``."""
    whole = lane.dims(value)
    kept = [d for d in range(len(whole)) if d not in dims]
    _Reduction(lane, value, target, tuple(dims), dict(zip(kept, order, strict=True)), largest).write()


@dataclass
class _Reduction:
    """``place_of``: where each kept dimension is in ``target``."""

    lane: Lane
    value: int
    target: View
    dims: tuple[int, ...]
    place_of: dict[int, int]
    largest: bool

    def __post_init__(self) -> None:
        self.f: Function = self.lane.f
        self.whole = self.lane.dims(self.value)

    def entry(self, index: Index, vec: Vec | None) -> Val:
        return self.f.cast(self.lane.at(self.value, index, vec), "f")

    def write(self) -> None:
        along = self._along()
        summed = [d for d in self.dims if d != along and self.whole[d] > 1]
        prepare(self.lane, self.whole, along, self.entry)
        across = self._row_dim() if along in self.dims else None
        if along is not None and across is not None and self.whole[along] % self.f.lanes == 0:
            self._by_blocks(along, across, summed)
            return
        with rows(self.f, self.whole, [*self.dims, *([along] if along is not None else [])]) as index:
            if along is None:
                self._put(index, self._total(index, None, (Ix(), 0), summed), None)
            elif along in self.dims:
                self._put(index, self._row(index, along, summed), None)
            else:
                for block in runs(self.f, self.whole[along], self.f.lanes):
                    for position, width in block:
                        found = self._total(index, along, (position, width), summed)
                        moved = [*index[:along], position, *index[along + 1 :]]
                        self._put(moved, found, (self.place_of[along], width) if width else None)

    def _along(self) -> int | None:
        """The dimension of the vectors."""
        f, best, least = self.f, None, float("inf")
        results = entries(self.target.dims)
        for dim in (d for d in range(len(self.whole)) if self.whole[d] >= 4):
            cost = price(self.lane, self.whole, dim, trial(self.lane, self.whole, dim, self.entry))
            if dim in self.dims:
                cost += results * (3 if self._row_dim() is not None and self.whole[dim] % f.lanes == 0 else 12)
            elif self.target.step(self.place_of[dim]) != 1:
                cost += 2 * results
            if cost < least:
                best, least = dim, cost
        return best

    def _row_dim(self) -> int | None:
        """The dimension along which sums of a block of rows are stored at once."""
        return next((d for d, p in self.place_of.items() if self.target.step(p) == 1 and self._fits(d)), None)

    def _fits(self, dim: int) -> bool:
        return self.whole[dim] % self.f.lanes == 0

    def _combine(self, a: Val, b: Val) -> Val:
        return self.f.apply("arith.maximumf", a, b) if self.largest else vm.add(self.f, a, b)

    def _start(self, width: int) -> Val:
        return self.f.number(float("-inf") if self.largest else 0.0, width)

    def _put(self, index: Sequence[Ix], found: Val, vec: Vec | None) -> None:
        places = [Ix()] * len(self.target.dims)
        for d, p in self.place_of.items():
            places[p] = index[d]
        store(self.f, self.target, places, found, vec)

    def _total(self, index: list[Ix], along: int | None, block: tuple[Ix, int], summed: Sequence[int]) -> Val:
        """The sum of entries, or of vectors, over some dimensions."""
        position, width = block
        if along is not None:
            index = [*index[:along], position, *index[along + 1 :]]

        def nest(left: Sequence[int], index: list[Ix], sofar: Val) -> Val:
            if not left:
                vec = (along, width) if width and along is not None else None
                return self._combine(sofar, self.f.spread(self.entry(tuple(index), vec), width))

            def body(name: str, values: list[Val]) -> list[Val]:
                return [nest(left[1:], [*index[: left[0]], at(name), *index[left[0] + 1 :]], values[0])]

            return self.f.reduce(self.f.index(self.whole[left[0]]), 1, [sofar], body)[0]

        return nest(summed, index, self._start(width))

    def _vectors(self, index: list[Ix], along: int, piece: tuple[int, int, int], summed: Sequence[int]) -> Val:
        """The sum of the vectors of a row."""
        start, count, width = piece
        step = max(width, 1)

        def body(name: str, values: list[Val]) -> list[Val]:
            return [self._combine(values[0], self._total(index, along, (at(name), width), summed))]

        stop, first = self.f.index(start + count * step), self.f.index(start)
        return self.f.reduce(stop, step, [self._start(width)], body, first)[0]

    def _row(self, index: list[Ix], along: int, summed: Sequence[int]) -> Val:
        result: Val | None = None
        for piece in pieces(self.whole[along], self.f.lanes):
            found = self._vectors(index, along, piece, summed)
            found = horizontal(self.f, found, "maximumf" if self.largest else "add")
            result = found if result is None else self._combine(result, found)
        assert result is not None
        return result

    def _by_blocks(self, along: int, across: int, summed: Sequence[int]) -> None:
        """Rows of vectors are added up each by itself; then as many rows as a vector has entries at once."""
        f, n = self.f, self.f.lanes
        held = self.lane.scratch((n, n))
        (piece,) = pieces(self.whole[along], n)
        with (
            rows(f, self.whole, [*self.dims, across]) as index,
            f.loop(f.index(0), f.index(self.whole[across]), n, "b") as block,
        ):
            with f.loop(f.index(0), f.index(n), 1, "r") as row:
                place = [*index[:across], at(block) + at(row), *index[across + 1 :]]
                store(f, held, [at(row), Ix()], self._vectors(place, along, piece, summed), (1, n))
            with f.fence():
                found = [load(f, held, [Ix(r), Ix()], (1, n)) for r in range(n)]
                while len(found) > 1:
                    found = [self._paired(a, b) for a, b in zip(found[::2], found[1::2], strict=True)]
                self._put([*index[:across], at(block), *index[across + 1 :]], found[0], (self.place_of[across], n))

    def _paired(self, a: Val, b: Val) -> Val:
        """Neighbours of the first vector added up, then those of the second one."""
        shape = self.f.type("f", a.width)
        even, odd = (
            Val(self.f.op(f"vector.shuffle {a.name}, {b.name} {order} : {shape}, {shape}"), "f", a.width)
            for order in (list(range(0, 2 * a.width, 2)), list(range(1, 2 * a.width, 2)))
        )
        return self._combine(even, odd)
