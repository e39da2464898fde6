"""Sums of products, with a block of results held in registers.

One label of the result (or a summed one) runs along vectors, another one down the block. Which one, and which operand
is copied for it, is chosen by a count of instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from nldsl.backends.mlir import vector_math as vm
from nldsl.backends.mlir.in_turn import Epilogue, Looped, Place, in_turn
from nldsl.backends.mlir.lane import Lane
from nldsl.backends.mlir.layout import laid_along
from nldsl.backends.mlir.nests import horizontal, inner_dim, runs
from nldsl.backends.mlir.text import Function, Ix, Val, at
from nldsl.backends.mlir.views import View, entries, load, pieces
from nldsl.ir.triangular import Terms


@dataclass
class Operand:
    """A tensor in memory, each dimension with its label."""

    view: View
    labels: list[str]

    def step(self, label: str) -> int:
        return sum(self.view.step(d) for d, x in enumerate(self.labels) if x == label)

    def entry(self, f: Function, place: Place, vec: tuple[str, int] | None) -> Val:
        index = [place.get(x, Ix()) for x in self.labels]
        moved = None
        if vec is not None and vec[1] and vec[0] and self.step(vec[0]):
            moved = (self.labels.index(vec[0]), vec[1])
        return load(f, self.view, index, moved)


@dataclass(frozen=True)
class Choice:
    """``along``: the label of the vectors; ``copies``: which operands are copied so that it lies in one piece."""

    along: str | None
    copies: tuple[int, ...] = ()


def choose(
    f: Function,
    operands: list[Operand],
    sizes: dict[str, int],
    output: Sequence[str],
    unit: str | None,
    packed: set[int],
) -> Choice:
    """``unit``: the label along which the target lies in one piece, if that is given already."""
    total = entries(list(sizes.values()))
    results = entries([sizes[x] for x in output])
    best, least = Choice(None), float(total * len(operands))
    for label, size in sizes.items():
        if size < 2:
            continue
        width = max(1, max(w for _, _, w in pieces(size, f.lanes)))
        holding = [n for n, o in enumerate(operands) if label in o.labels]
        copies = tuple(n for n in holding if operands[n].step(label) != 1)
        cost = total / width
        if label not in output:
            if copies:
                continue
            cost += results * 3
        else:
            cost += sum(0.3 * entries(operands[n].view.dims) for n in copies if n not in packed)
            if unit is not None and unit != label:
                cost += results * 2
            if len(holding) == len(operands):
                cost += total / width
        if any(operands[n].labels.count(label) > 1 for n in holding):
            continue
        if cost < least:
            best, least = Choice(label, copies), cost
    return best


def repacked(lane: Lane, operand: Operand, along: str) -> Operand:
    """A copy of the operand in which ``along`` lies in one piece; made once."""
    return Operand(laid_along(lane, operand.view, operand.labels.index(along)), operand.labels)


def target_dim(output: Sequence[str], sizes: dict[str, int], along: str | None) -> int | None:
    """The dimension that should lie in one piece in a target that is free to choose."""
    if along is not None and along in output:
        return list(output).index(along)
    return inner_dim([sizes[x] for x in output])


def contract(
    lane: Lane,
    operands: list[Operand],
    sizes: dict[str, int],
    output: Sequence[str],
    along: str | None,
    epilogue: Epilogue,
    bounds: Terms,
    long: bool = False,
) -> None:
    """Emit the loops. ``epilogue(place, value, vec)`` takes each result. ``bounds``: which terms count; a result
    without any is 0. ``long``: the code of ``epilogue`` is, so that it is written in a loop over the results of a block
    and not once for each."""
    f = lane.f
    summed = [x for x in sizes if x not in output and x != along]
    summed.sort(key=lambda x: sizes[x])
    in_output = along in output
    moving = [o for o in operands if along is not None and along in o.labels]
    rest = [x for x in output if x != along and sizes[x] > 1]
    registers = 16 if f.lanes * (4 if f.real == "f32" else 8) >= 64 else 10
    down = next((x for x in reversed(rest) if not all(x in o.labels for o in moving)), None) if in_output else None
    if not in_output and rest:
        down = rest[-1]
    outer = [x for x in rest if x != down]
    width_count = -(-sizes[along] // f.lanes) if in_output and along is not None else 1
    across = min(4 if down is None or registers >= 16 else 2, width_count)
    if down is None and in_output:
        across = min(8, width_count)
    narrow = in_output and down is not None and any(along in pair for pair in bounds)
    if narrow:
        across = narrow_block(f, sizes[along or ""]) // f.lanes
    height = max(1, registers // across) if down is not None else 1
    beside, columns_at_once = None, 1
    if not in_output and down is not None:
        beside = _beside(operands, sizes, down, outer)
        outer = [x for x in outer if x != beside]
        height = min(8, f.lanes)
        columns_at_once = max(1, registers // height)
    height = 1 << (height.bit_length() - 1)

    with ExitStack() as stack:
        place: Place = {}
        for label in outer:
            place[label] = at(stack.enter_context(f.loop(f.index(0), f.index(sizes[label]), 1)))
        size = sizes[down] if down is not None else 1
        if not in_output:
            _rows(
                f,
                (0, size) if down is not None else None,
                height,
                lambda rows: _rows(
                    f,
                    (0, sizes[beside]) if beside is not None else None,
                    columns_at_once,
                    lambda columns: _Dots(f, operands, sizes, along, summed, place, down, epilogue).write(
                        rows, [{beside: x} if beside is not None else {} for x in columns]
                    ),
                ),
            )
            return
        assert along is not None
        if narrow and down is not None and sizes[along] % (f.lanes * across) == 0 and size % height == 0:
            with f.loop(f.index(0), f.index(sizes[along]), f.lanes * across, "j") as name:
                columns = [(at(name) + n * f.lanes, f.lanes) for n in range(across)]
                finish = in_turn(lane, columns, epilogue) if long else None
                block = _Block(f, operands, sizes, along, summed, place, down, columns, epilogue, bounds, finish)
                low, high = block.needed_span(height)
                for start, stop in ((f.index(0), low), (high, f.index(size))):
                    with f.loop(start, stop, 1, "i") as row:
                        block.zeros([at(row)])
                with f.loop(low, high, height, "i") as row:
                    block.write([at(row) + n for n in range(height)])
            return
        for columns in fixed_runs(sizes[along], f.lanes, across) if narrow else runs(f, sizes[along], f.lanes, across):
            finish = in_turn(lane, columns, epilogue) if long else None
            block = _Block(f, operands, sizes, along, summed, place, down, columns, epilogue, bounds, finish)
            if down is None:
                _rows(f, None, height, block.write)
                continue
            first, last = block.needed_rows() if narrow else (0, size)
            first, last = min(first, last) // height * height, last
            for begin, end in ((0, first), (last, size)):
                _rows(f, (begin, end), 1, block.zeros)
            _rows(f, (first, last), height, block.write)


def _beside(operands: list[Operand], sizes: dict[str, int], down: str | None, rest: Sequence[str]) -> str | None:
    """A second label of the result for a block of sums along vectors, so that each vector that is read is used
    several times: the operands that have it do not have ``down``."""
    for label in rest:
        apart = all((label in o.labels) != (down in o.labels) for o in operands)
        if apart and sizes[label] > 1:
            return label
    return None


def narrow_block(f: Function, size: int) -> int:
    """The columns of a block of results where which terms count depends on the vector, of ``size`` columns in all."""
    vectors = -(-size // f.lanes)
    return -(-vectors // NARROW) * f.lanes


NARROW = 8  # how many blocks of vectors one after the other, where which terms count depends on the vector


def fixed_runs(size: int, lanes: int, across: int) -> Iterator[list[tuple[Ix, int]]]:
    """Blocks of (position, width) that cover ``size`` entries, without loops."""
    for start, count, width in pieces(size, lanes):
        step = max(width, 1)
        for first in range(0, count, across):
            yield [(Ix(start + n * step), width) for n in range(first, min(first + across, count))]


def _rows(f: Function, span: tuple[int, int] | None, height: int, block: Callable[[list[Ix]], None]) -> None:
    """Blocks of rows: a loop of full ones, then what is left."""
    if span is None:
        with f.fence():
            block([Ix()])
        return
    start, stop = span
    if start >= stop:
        return
    height = min(height, stop - start)
    full = start + (stop - start) // height * height
    if full - start > height:
        with f.loop(f.index(start), f.index(full), height, "i") as name:
            block([at(name) + n for n in range(height)])
    else:
        with f.fence():
            block([Ix(start + n) for n in range(height)])
    if full < stop:
        with f.fence():
            block([Ix(full + n) for n in range(stop - full)])


def _terms(f: Function, operands: list[Operand], place: Place, vec: tuple[str, int] | None) -> tuple[Val, Val | None]:
    """The product at one place as (a, b): what is multiplied and added at once."""
    factors = [o.entry(f, place, vec) for o in operands]
    factors.sort(key=lambda v: v.width)
    first = factors[0]
    for factor in factors[1:-1]:
        first = vm.mul(f, first, factor)
    return first, factors[-1] if len(factors) > 1 else None


def _add(f: Function, sofar: Val, a: Val, b: Val | None) -> Val:
    if b is None:
        return vm.add(f, sofar, f.spread(a, sofar.width))
    return vm.fma(f, f.spread(a, sofar.width), f.spread(b, sofar.width), sofar)


Extents = dict[str, tuple[Ix, Ix]]


def _span(f: Function, label: str, sizes: dict[str, int], bounds: Terms, extents: Extents) -> tuple[str, str]:
    """Where the loop over a summed label begins and ends, for the first and last positions of other labels."""
    starts = [
        (low + -slack, slack > 0)
        for (a, b), slack in bounds.items()
        if a == label and b in extents
        for low in [extents[b][0]]
    ]
    stops = [
        (high + (slack + 1), slack > 0 or sizes[a] > sizes[label])
        for (a, b), slack in bounds.items()
        if b == label and a in extents
        for high in [extents[a][1]]
    ]
    return _limit(f, starts, "maxsi", 0), _limit(f, stops, "minsi", sizes[label])


def _limit(f: Function, places: list[tuple[Ix, bool]], op: str, end: int) -> str:
    """The largest or smallest of some positions; a position with a mark may lie beyond ``end``."""
    pick = max if op == "maxsi" else min
    known = [p.const for p, _ in places if not p.terms]
    number = pick([end, *known])
    found = ""
    for place, beyond in places:
        if not place.terms:
            continue
        name = f.position(place)
        if beyond or number != end:
            name = f.op(f"arith.{op} {name}, {f.index(number)} : index")
        found = f.op(f"arith.{op} {found}, {name} : index") if found else name
    return found or f.index(max(number, 0))


def _nest(
    f: Function,
    sizes: dict[str, int],
    summed: Sequence[str],
    place: Place,
    start: list[Val],
    body: Callable[[Place, list[Val]], list[Val]],
    bounds: Terms,
    extents: Extents,
) -> list[Val]:
    if not summed:
        return body(place, start)
    label, rest = summed[0], summed[1:]

    def inside(name: str, values: list[Val]) -> list[Val]:
        return _nest(
            f, sizes, rest, place | {label: at(name)}, values, body, bounds, extents | {label: (at(name), at(name))}
        )

    first, stop = _span(f, label, sizes, bounds, extents)
    return f.reduce(stop, 1, start, inside, first)


@dataclass
class _Block:
    """Results of some vectors side by side: ``write`` for some rows of them."""

    f: Function
    operands: list[Operand]
    sizes: dict[str, int]
    along: str
    summed: Sequence[str]
    place: Place
    down: str | None
    columns: list[tuple[Ix, int]]
    epilogue: Epilogue
    bounds: Terms
    looped: Looped | None = None

    def at_cell(self, place: Place, row: Ix, column: Ix) -> Place:
        return place | ({self.down: row} if self.down is not None else {}) | {self.along: column}

    def _columns(self) -> tuple[Ix, Ix]:
        position, width = self.columns[-1]
        return self.columns[0][0], position + (max(width, 1) - 1)

    def needed_rows(self) -> tuple[int, int]:
        """The rows that have terms, for vectors at known positions."""
        (low, high), size = self._columns(), self.sizes[self.down or ""]
        first = low.const - self.bounds.get((self.down or "", self.along), size + low.const)
        last = high.const + self.bounds.get((self.along, self.down or ""), size) + 1
        return min(max(first, 0), size), max(min(last, size), 0)

    def needed_span(self, height: int) -> tuple[str, str]:
        """The same for vectors at a position that a loop gives, in full blocks of ``height`` rows, a power of two that
        divides their number."""
        f, size, down = self.f, self.sizes[self.down or ""], self.down or ""
        low, high = self._columns()
        first, last = f.index(0), f.index(size)
        mask = f.index(-height)
        if (down, self.along) in self.bounds:
            from_ = f.position(low + -self.bounds[down, self.along])
            from_ = f.op(f"arith.maxsi {from_}, {f.index(0)} : index")
            from_ = f.op(f"arith.minsi {from_}, {f.index(size)} : index")
            first = f.op(f"arith.andi {from_}, {mask} : index")
        if (self.along, down) in self.bounds:
            stop = f.position(high + (self.bounds[self.along, down] + height))
            stop = f.op(f"arith.maxsi {stop}, {first} : index")
            stop = f.op(f"arith.minsi {stop}, {f.index(size)} : index")
            last = f.op(f"arith.andi {stop}, {mask} : index")
        return first, last

    def zeros(self, rows: list[Ix]) -> None:
        """Rows without terms."""
        self._finish(rows, [self.f.number(0.0, width) for _ in rows for _, width in self.columns])

    def write(self, rows: list[Ix]) -> None:
        f = self.f
        cells = self._cells(rows)
        start = [f.number(0.0, width) for _, _, width in cells]
        extents: Extents = {label: (position, position) for label, position in self.place.items()}
        extents[self.along] = self._columns()
        if self.down is not None:
            extents[self.down] = rows[0], rows[-1]

        def body(place: Place, values: list[Val]) -> list[Val]:
            found = []
            for (row, column, width), sofar in zip(cells, values, strict=True):
                a, b = _terms(f, self.operands, self.at_cell(place, row, column), (self.along, width))
                found.append(_add(f, sofar, a, b))
            return found

        self._finish(rows, _nest(f, self.sizes, self.summed, self.place, start, body, self.bounds, extents))

    def _cells(self, rows: list[Ix]) -> list[tuple[Ix, Ix, int]]:
        return [(row, column, width) for row in rows for column, width in self.columns]

    def _finish(self, rows: list[Ix], values: list[Val]) -> None:
        if self.looped is not None and len(values) > 1:
            self.looped(
                values, len(rows), lambda row, column: self.at_cell(self.place, rows[0] + row, column), self.along
            )
            return
        for (row, column, width), value in zip(self._cells(rows), values, strict=True):
            with self.f.fence():
                self.epilogue(self.at_cell(self.place, row, column), value, (self.along, width) if width else None)


@dataclass
class _Dots:
    """Results that are sums along vectors (``along`` is summed) or of scalars (None)."""

    f: Function
    operands: list[Operand]
    sizes: dict[str, int]
    along: str | None
    summed: Sequence[str]
    place: Place
    down: str | None
    epilogue: Epilogue

    def write(self, rows: list[Ix], columns: list[Place]) -> None:
        """The results of some rows (positions of ``down``) at some places of other labels."""
        cells = [column | ({self.down: row} if self.down is not None else {}) for column in columns for row in rows]
        blocks = pieces(self.sizes[self.along], self.f.lanes) if self.along is not None else [(0, 1, 0)]
        sums = [self._sums(cells, block) for block in blocks]
        for n, column in enumerate(columns):
            own = [found[n * len(rows) : (n + 1) * len(rows)] for found in sums]
            whole = {found[0].width for found in own} == {self.f.lanes}
            for first, count in _groups(len(rows)):
                if self.down is not None and whole and count > 1:
                    total = _together(self.f, own[0][first : first + count])
                    self._done(column | {self.down: rows[first]}, [total], (self.down, count))
                    continue
                for r in range(first, first + count):
                    self._done(cells[n * len(rows) + r], [horizontal(self.f, found[r]) for found in own], None)

    def _done(self, cell: Place, parts: list[Val], vec: tuple[str, int] | None) -> None:
        total = parts[0]
        for part in parts[1:]:
            total = vm.add(self.f, total, part)
        with self.f.fence():
            self.epilogue(self.place | cell, total, vec)

    def _sums(self, cells: list[Place], block: tuple[int, int, int]) -> list[Val]:
        """For each place the vector of its sums over a block of vectors."""
        f, along = self.f, self.along
        first, count, width = block
        step = max(width, 1)

        def body(place: Place, values: list[Val]) -> list[Val]:
            found = []
            for cell, sofar in zip(cells, values, strict=True):
                vec = (along, width) if along is not None and width else None
                a, b = _terms(f, self.operands, place | cell, vec)
                found.append(_add(f, sofar, a, b))
            return found

        def nest(place: Place, values: list[Val]) -> list[Val]:
            return _nest(f, self.sizes, self.summed, place, values, body, {}, {})

        start = [f.number(0.0, width) for _ in cells]
        if along is None:
            return nest(self.place, start)
        stop = f.index(first + count * step)
        return f.reduce(
            stop, step, start, lambda name, values: nest(self.place | {along: at(name)}, values), f.index(first)
        )


def _groups(rows: int) -> list[tuple[int, int]]:
    """Rows as (first, number): as many at once as are a power of two, none fewer than four but single ones."""
    found, first = [], 0
    while first < rows:
        count = 1 << ((rows - first).bit_length() - 1)
        found.append((first, count if count >= 4 else 1))
        first += found[-1][1]
    return found


def _together(f: Function, vectors: list[Val]) -> Val:
    """The sum of the entries of each vector, as one vector: neighbours are added, of two vectors at a time."""
    found = list(vectors)
    while len(found) > 1:
        found = [_neighbours(f, a, b) for a, b in zip(found[::2], found[1::2], strict=True)]
    (total,) = found
    while total.width > len(vectors):
        total = _neighbours(f, total, None)
    return total


def _neighbours(f: Function, a: Val, b: Val | None) -> Val:
    """The sums of neighbours in ``a``, and then those in ``b``."""
    shape, width = f.type("f", a.width), a.width if b is None else 2 * a.width
    other = a if b is None else b
    even, odd = (
        Val(f.op(f"vector.shuffle {a.name}, {other.name} {order} : {shape}, {shape}"), "f", len(order))
        for order in (list(range(0, width, 2)), list(range(1, width, 2)))
    )
    return vm.add(f, even, odd)
