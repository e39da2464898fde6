"""How much of a kernel lives in registers at once: an estimate from the sizes of its tiles and the order of its work.

It decides how kernels are divided, so it is the same on every machine; what the compiler makes of a kernel is read with
``cubin.py``, and the tests pin it for the kernels that matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod

from nldsl.backends.triton.apart import INVERSE
from nldsl.backends.triton.columns import Relations
from nldsl.backends.triton.contract import LEAST
from nldsl.backends.triton.lower import Place
from nldsl.backends.triton.tiles import block_size, power_of_two
from nldsl.dims import Dim
from nldsl.ir.chunk import TICKS
from nldsl.ir.demand import in_order
from nldsl.ir.ops import POINTWISE, split_spec
from nldsl.ir.types import TIME

# Entries that may live at once in a program of eight warps: 256 threads of which each holds 120 in its 255 registers.
ROOM = 256 * 120
# How much of that, or more, a kernel may read, and its matrix products: the compiler moves loads for later work up.
LOADED_MORE = 1.25
PRODUCTS, DEAR = 4, 4  # a call of a library function counts as so many products
# Where products take their operands from registers (all but sm_90 and sm_100) they are there a second time: that
# much of their entries.
OPERANDS = 1.0
LOADED_LESS = 0.9  # what a kernel may read there: it holds what is loaded beside what products read
ROOM_LESS = 0.94  # what of the room is left there for the tiles
PASSES = 0.25  # so much more for the products of an inverse, which are in several passes
ROWS, WARPS = 64, 8  # rows of a product that reads from there, warps of a program
FROM_MEMORY = (9, 10)  # the major versions whose products read their operands from shared memory
# Views of another value: no registers of their own.
SAME = frozenset("collect spread reshape stop_grad fixed".split())
# What a library function holds besides its operands and its result: tiles of the size of its first and last operand.
INSIDE = {INVERSE: (4, 0), "solve": (2, 2), "decay_gram": (0, 2), "decay_gram_grad": (2, 10)}


class Pressure:
    """Estimates for the body of a job, for segments that take ``ticks`` entries of a tile and kernels with ``room``, on
    GPUs of ``sm_<capability>``."""

    def __init__(self, relations: Relations, ticks: int, room: int = ROOM, capability: int = 90) -> None:
        self.operands = 0.0 if capability // 10 in FROM_MEMORY else OPERANDS
        self.loaded = (LOADED_LESS if self.operands else LOADED_MORE) * room
        self.relations, self.job, self.ticks = relations, relations.job, ticks
        self.room = int(ROOM_LESS * room) if self.operands else room
        self._sizes: dict[int, tuple[int, ...]] = {}
        self._order: dict[int, tuple[int, ...]] = {}

    # -- sizes

    def blocks(self, value: int) -> tuple[int, ...]:
        """The entries of each dim of a tile, padding included."""
        if value not in self._sizes:
            found = []
            for name, size in zip(self.relations.names(value), self.relations.sizes(value), strict=True):
                known: Dim | None = TICKS if name == TIME else size
                found.append(1 if known is None else block_size(known, self.ticks))
            self._sizes[value] = tuple(found)
        return self._sizes[value]

    def entries(self, value: int, split: Mapping[int, Collection[int]], columns: int) -> int:
        """The entries of a tile of which a program has ``columns`` along the dims that are divided, or as many as
        ``split`` says."""
        total = 1
        for dim, block in enumerate(self.blocks(value)):
            total *= self._columns(value, dim, block, split, columns)
        return total

    def _columns(self, value: int, dim: int, block: int, split: Mapping[int, Collection[int]], columns: int) -> int:
        own = split.get(value, ())
        if dim not in own:
            return block
        return min(block, power_of_two(own[dim] if isinstance(own, Mapping) else columns))

    # -- the work

    def cone(self, targets: Iterable[int], stored: Collection[int]) -> list[int]:
        """What a kernel computes or loads for ``targets``, in the order in which it does. A target that is stored
        already is loaded like anything else."""
        return in_order(targets, lambda v: () if v in stored else self.job.body[v].args)

    def _largest(self, targets: Iterable[int], stored: Collection[int], split: Mapping[int, Collection[int]]) -> int:
        """The entries of the largest tile of which a kernel has all, while other work of it has some columns of the
        same value: what has no divided columns is made of whole values."""
        stack, seen = [(t, t not in split) for t in targets if split], set[tuple[int, bool]]()
        while stack:
            value, whole = stack.pop()
            if (value, whole) not in seen:
                seen.add((value, whole))
                args = () if value in stored else self.job.body[value].args
                stack += [(a, whole or a not in split) for a in args]
        return max((self.entries(v, {}, 0) for v, whole in seen if whole and v in split), default=0)

    def peak(
        self,
        targets: Sequence[int],
        stored: Collection[int],
        places: Iterable[Place] | Mapping[int, Mapping[int, int]] = (),
        columns: int = 0,
    ) -> int:
        """The most entries that live at once while a kernel computes ``targets`` from what is ``stored``. ``places``:
        what a program has ``columns`` columns of, or the columns that it has of a value, dim by dim."""
        split = _split(places)
        order = self.cone(targets, stored)
        body, loads = self.job.body, {v for v in order if v in stored}
        holder: dict[int, int] = {}  # the value whose registers a view has
        last: dict[int, int] = {}
        for at, value in enumerate(order):
            args = () if value in loads else body[value].args
            same = len(args) == 1 and body[value].op in SAME
            holder[value] = holder[args[0]] if same else value
            for arg in args:
                last[holder[arg]] = at
            last[holder[value]] = max(last.get(holder[value], at), at)
        live: dict[int, int] = {}
        most = 0 if isinstance(places, Mapping) else self._largest(targets, stored, split)
        for at, value in enumerate(order):
            held = holder[value]
            op = "load" if value in loads else body[value].op
            args = () if value in loads else body[value].args
            ends = {holder[a] for a in args if last[holder[a]] == at}
            if op in POINTWISE:  # the result takes the place of an operand that ends
                for ended in ends - {held}:
                    live.pop(ended, None)
            if held not in live and (args or value in loads or body[value].op not in ("const", "iota")):
                live[held] = self.entries(held, split, columns)
            most = max(most, sum(live.values()) + self.inside(value, op, split, columns))
            for ended in ends - {held}:
                live.pop(ended, None)
        return most

    def inside(
        self, value: int, op: str, split: Mapping[int, Collection[int]], columns: int, ticks: bool = False
    ) -> int:
        """The entries that live while a value is computed, besides what it is made of and itself. ``ticks``: they are
        rows or columns of matrices like others."""
        if op in INSIDE:
            args = self.job.body[value].args
            own = zip(INSIDE[op], (args[0], args[-1]), strict=True)
            held = sum(n * self.entries(a, split, columns) for n, a in own)
            return int(held * (1 + PASSES * self.operands)) if op == INVERSE else held
        if op in ("slice", "pad"):  # what is moved is gathered by indices as large as itself
            return 2 * self.entries(value, split, columns)
        if op == "einsum" and not (self.multiplied(value) if ticks else self.product(value)):
            # a product that is no matrix product: all factors side by side
            return max(self.entries(a, split, columns) for a in self.job.body[value].args)
        return self._operands(value, split, columns) if op == "einsum" else 0

    def _operands(self, value: int, split: Mapping[int, Collection[int]], columns: int) -> int:
        """What a product needs besides its operands as they are: where the hardware does not read them from shared
        memory each warp holds all rows that it needs, and small results leave warps that hold the same ones."""
        one, two = self.job.body[value].args
        sides = self.sides(value, split, columns)
        first, second = self.entries(one, split, columns), self.entries(two, split, columns)
        if max(sides) >= ROWS:
            return int(self.operands * (first + second))
        if sides[1] > sides[0]:
            first, second, sides = second, first, sides[::-1]
        rows = min(WARPS, max(1, sides[0] // 16))
        wide = min(WARPS // rows, max(1, sides[1] // 8))
        return first * (WARPS // rows - 1) + second * (WARPS // wide - 1)

    def sides(self, value: int, split: Mapping[int, Collection[int]], columns: int = 0) -> tuple[int, int]:
        """The entries that the result of a product has of each operand, and it alone."""
        instr = self.job.body[value]
        inputs, output = split_spec(instr.attr("spec"))
        target = {*self.relations.axes(value), *output}
        labels = [[*self.relations.axes(a), *text] for a, text in zip(instr.args, inputs, strict=True)]
        found = []
        for arg, own, other in zip(instr.args, labels, reversed(labels), strict=True):
            total = 1
            for dim, (label, block) in enumerate(zip(own, self.blocks(arg), strict=True)):
                if label in target and label not in other:
                    total *= self._columns(arg, dim, block, split, columns)
            found.append(total)
        return found[0], found[1]

    def depth(self, value: int, split: Mapping[int, Collection[int]], columns: int = 0) -> int:
        """How many terms a product sums."""
        arg = self.job.body[value].args[0]
        inputs, output = split_spec(self.job.body[value].attr("spec"))
        gone, first = set(inputs[0]) & set(inputs[1]) - set(output), len(self.blocks(arg)) - len(inputs[0])
        kept = ((d, n) for d, n in enumerate(self.blocks(arg)) if d >= first and inputs[0][d - first] in gone)
        return prod(self._columns(arg, d, n, split, columns) for d, n in kept)

    def load(self, targets: Sequence[int], stored: Collection[int], places: Iterable[Place], columns: int) -> float:
        """How much a kernel for ``targets`` needs of what it may have: it fits up to 1."""
        cone = self.cone(targets, stored)
        work = [v for v in cone if v not in stored]
        products = sum(DEAR if self.dear(v) else self.product(v) or self.table(v) for v in work)
        split = _split(places)
        read = [v for v in cone if v in stored or not self.job.body[v].args]
        loaded = sum(self.entries(v, split, columns) for v in read if self.job.body[v].op not in ("const", "iota"))
        peak = self.peak(targets, stored, places, columns)
        return max(products / PRODUCTS, peak / self.room, loaded / self.loaded)

    def product(self, value: int) -> bool:
        """Whether a value is a product of matrices: what has no rows or no columns of its own is multiplied entry by
        entry and summed."""
        instr = self.job.body[value]
        if instr.op != "einsum" or len(instr.args) != 2:
            return False
        inputs, output = split_spec(instr.attr("spec"))
        shared = set(inputs[0]) & set(inputs[1])
        return bool(shared - set(output)) and all(set(text) - shared for text in inputs)

    def table(self, value: int) -> bool:
        """Whether a value is a table of products over ticks, or such a one moved by a tick: it lies in registers twice,
        as its scan makes it and as products have it."""
        body, moved = self.job.body, value
        while body[moved].op in ("slice", "pad"):
            moved = body[moved].args[0]
        return body[moved].op == "segprod" and body[value].op != "slice"

    def multiplied(self, value: int) -> bool:
        """Whether the hardware multiplies matrices for a value: the ticks are rows or columns like others, and both the
        result and the sum have enough of them."""
        instr = self.job.body[value]
        if instr.op != "einsum" or len(instr.args) != 2:
            return False
        inputs, output = split_spec(instr.attr("spec"))
        gone = set(inputs[0]) & set(inputs[1]) - set(output)
        blocks = zip(inputs[0], self.blocks(instr.args[0])[-len(inputs[0]) :], strict=True) if inputs[0] else ()
        depth = prod(n for x, n in blocks if x in gone)
        return bool(gone) and depth >= LEAST and min(self.sides(value, {}, 0)) > 1

    def contracts(self, value: int) -> bool:
        """Whether a value is a sum of products that is smaller than what is multiplied."""
        instr = self.job.body[value]
        if instr.op != "einsum" or len(instr.args) != 2:
            return False
        most = max(self.entries(a, {}, 0) for a in instr.args)
        return self.entries(value, {}, 0) < most

    def heavy(self, value: int) -> bool:
        """Whether a value is more than reading and pointwise work."""
        return self.dear(value) or self.product(value)

    def dear(self, value: int) -> bool:
        """Whether a value is worth keeping rather than computing it in two kernels."""
        return self.job.body[value].op in INSIDE


def _split(places: Iterable[Place] | Mapping[int, Mapping[int, int]]) -> Mapping[int, Collection[int]]:
    """The dims of each value that are divided."""
    if isinstance(places, Mapping):
        return places
    split: dict[int, set[int]] = {}
    for value, dim in places:
        split.setdefault(value, set()).add(dim)
    return split
