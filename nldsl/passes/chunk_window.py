"""Windows of a stream in the body of a segment, without a tensor of ticks x window x entries.

A window of n ticks holds at place i of tick t row t + i of the M = T + n - 1 rows that the segment sees
(``ir/window_ops.py``). A value that is a function of those rows alone, tick for tick the same, is *folded*: its
``base`` is computed once for every row, along the mapped axis ``rows``, instead of once for every tick and place.
Contractions are done on rows too:

    sum over j:  window[t, i, j] q[t, j]     -->   band(base q')         a matrix product, of which a band is kept
    sum over i:  weight[t, i] window[t, i]   -->   unband(weight) base   the same the other way

A folded value times weights of the places (and of the tick) is *weighted*: as long as only linear operations follow,
the weights wait for the contraction. Everything else falls back on ``unfold(base)``, which is the value itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.ir.chunk import TICKS
from nldsl.ir.program import Axis
from nldsl.ir.types import TIME, Type
from nldsl.passes.chunk_rows import Place, folded
from nldsl.passes.contract import Letter, Operand, contract, placed
from nldsl.source import NO_SPAN, Span

ROW = "row"
LINEAR = frozenset("neg reshape broadcast spread collect sum einsum".split())


@dataclass(frozen=True)
class Folded:
    """``base``: with the mapped axis ``rows`` instead of time, size 1 along the window if that is a logical dim.
    ``length``: of the window; ``place``: the mapped axis or the logical dim along which it lies."""

    base: int
    rows: str
    length: int
    place: Place


@dataclass(frozen=True)
class Position:
    """``rows * i + ticks * t + constant`` of the place i in the window and the number t of the tick."""

    rows: float = 0
    ticks: float = 0
    constant: float = 0


class Windows:
    """The folded values of one body."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.axes: dict[int, str] = {}
        self.folded: dict[int, Folded] = {}
        self.collected: dict[int, Folded] = {}  # with time as the first dim
        self.positions: dict[int, Position] = {}
        self.weighted: dict[int, tuple[int, int]] = {}  # value -> the folded value, its weights [length]
        self.weights: dict[int, tuple[int, int, int]] = {}  # with time as the first dim; and the dim of the window

    @property
    def lanes(self) -> list[Axis]:
        """The axes that were made, one for each length of a window."""
        return [Axis(name, TICKS + (length - 1)) for length, name in self.axes.items()]

    def rows(self, length: int) -> str:
        if length not in self.axes:
            name = f"rows{length}"
            while name in self.builder.axes:
                name += "_"
            self.builder.axes.append(name)
            self.axes[length] = name
        return self.axes[length]

    # ---- values with windows

    def view(self, seen: int, start: int, length: int) -> int:
        """The rows from ``start`` on of windows over ``seen``: [M', ..], as [length, ..] at each tick."""
        builder = self.builder
        part = builder.emit("slice", seen, dim=0, start=start, stop=TICKS + (start + length - 1))
        base = builder.emit("spread", part, axis=self.rows(length))
        base = builder.emit("reshape", base, shape=(1, *builder.type(base).shape))
        return self.add(Folded(base, self.rows(length), length, 0))

    def add(self, value: Folded) -> int:
        """The value itself, of each tick and place; where nothing needs it so, it is dropped in the end."""
        builder = self.builder
        whole = self._whole(value)
        kept = self._unfolded(whole, value)
        found = builder.emit("spread", kept, axis=TIME)
        if isinstance(value.place, str):
            found = builder.emit("spread", found, axis=value.place)
        elif value.place:
            letters = "abcdefghijklmnop"[: len(builder.type(found).shape)]
            rest = letters[1:]
            spec = f"{letters}->{rest[: value.place]}{letters[0]}{rest[value.place :]}"
            found = builder.emit("einsum", found, spec=spec)
        self.folded[found] = value
        if isinstance(value.place, int):
            own = builder.emit("collect", found, axis=TIME, size=TICKS) if value.place else kept
            self.collected[own] = replace(value, place=value.place + 1)
        return found

    def _whole(self, value: Folded) -> int:
        """The base with its rows as the first dim, without the dim of the window: [M, ..]."""
        builder = self.builder
        found = builder.emit("collect", value.base, axis=value.rows, size=TICKS + (value.length - 1))
        if isinstance(value.place, str):
            return found
        shape = builder.type(found).shape
        return builder.emit("reshape", found, shape=(*shape[: value.place + 1], *shape[value.place + 2 :]))

    def _unfolded(self, whole: int, value: Folded) -> int:
        return self.builder.emit("unfold", whole, n=value.length)

    # ---- operations

    def emit(self, op: str, args: Sequence[int], attrs: dict[str, Any], name: str = "", span: Span = NO_SPAN) -> int:
        """An operation on values of each tick."""
        position = self._position(op, args, attrs)
        if position is not None:
            value = self.builder.emit(op, *args, name=name, span=span, **attrs)
            self.positions[value] = position
            return value
        compared = self._compared(op, args)
        if compared is not None:
            return self.add(compared)
        if any(a in self.folded or a in self.weighted for a in args):
            known = self._pass(op, args, attrs, name, span)
            if known is not None:
                return self.add(known)
            found = self._weigh(op, args, attrs, name, span)
            if found is None:
                found = self._contraction(op, args, attrs)
            if found is not None:
                return found
        return self.builder.emit(op, *args, name=name, span=span, **attrs)

    def _pass(self, op: str, args: Sequence[int], attrs: dict[str, Any], name: str, span: Span) -> Folded | None:
        """The operation on rows, where it does the same at every tick and place."""
        builder, known = self.builder, [self.folded.get(a) for a in args]
        if any(a in self.weighted for a in args):
            return None
        first = next(f for f in known if f is not None)
        places: list[Place | None] = []
        for arg, own in zip(args, known, strict=True):
            if own is None:
                axes = builder.type(arg).axes
                if TIME in axes or first.place in axes or set(axes) & set(self.axes.values()):
                    return None
            elif own.rows != first.rows or isinstance(own.place, str) != isinstance(first.place, str):
                return None
            places.append(None if own is None else own.place)
        operands = [a if f is None else f.base for a, f in zip(args, known, strict=True)]
        result = folded(builder, op, operands, places, attrs, first.length, name, span)
        if result is None:
            return None
        base, place = result
        return Folded(base, first.rows, first.length, place)

    # ---- weights of the places

    def _weigh(self, op: str, args: Sequence[int], attrs: dict[str, Any], name: str, span: Span) -> int | None:
        """A product with weights, or a linear operation on weighted values; None where it is neither."""
        if op == "mul":
            for value, weight in (args, args[::-1]):
                inner, own = self._stripped(value)
                if inner not in self.folded or weight in self.folded or weight in self.weighted:
                    continue
                vector = self._vector(weight, inner)
                result = self.builder.emit(op, *args, name=name, span=span)
                if vector is not None and self.builder.type(result).shape == self.builder.type(inner).shape:
                    return self._note(result, inner, [*own, vector])
            return None
        if op not in LINEAR or not any(a in self.weighted for a in args):
            return None
        stripped = [self._stripped(a) for a in args]
        inside = self.emit(op, [value for value, _ in stripped], attrs)
        if inside not in self.folded:
            return None
        return self._note(
            self.builder.emit(op, *args, name=name, span=span, **attrs), inside, [w for _, own in stripped for w in own]
        )

    def _stripped(self, value: int) -> tuple[int, list[int]]:
        """A weighted value without its weights, and those."""
        if value not in self.weighted:
            return value, []
        inner, weight = self.weighted[value]
        return inner, [weight]

    def _vector(self, weight: int, inner: int) -> int | None:
        """Weights that differ along the window of ``inner`` alone (and from tick to tick): [length]."""
        builder, known, type = self.builder, self.folded[inner], self.builder.type(weight)
        if set(type.axes) & set(self.axes.values()):
            return None
        if isinstance(known.place, str):
            if any(size != 1 for size in type.shape):
                return None
            if known.place in type.axes:
                weight = builder.emit("collect", weight, axis=known.place, size=known.length)
        else:
            at = len(type.shape) - (len(builder.type(inner).shape) - known.place)
            if any(size != 1 and d != at for d, size in enumerate(type.shape)):
                return None
        count = ops.product(builder.type(weight).shape)
        flat = builder.emit("reshape", weight, shape=(count,))
        return flat if count == known.length else builder.emit("broadcast", flat, shape=(known.length,))

    def _note(self, value: int, inner: int, weights: list[int]) -> int:
        weight = weights[0]
        for other in weights[1:]:
            weight = self.builder.emit("mul", weight, other)
        self.weighted[value] = inner, weight
        place = self.folded[inner].place
        if isinstance(place, int):
            self.weights[self._collected(value)] = self._collected(inner), weight, place + 1
        return value

    def _collected(self, value: int) -> int:
        """With time as the first dim."""
        instr = self.builder.instrs[value]
        if instr.op == "spread" and instr.attr("axis") == TIME:
            return instr.args[0]
        return self.builder.emit("collect", value, axis=TIME, size=TICKS)

    def _weight(self, weight: int, tick: Letter, place: Letter) -> Operand:
        """Weights with the letters of a product."""
        if TIME in self.builder.type(weight).axes:
            return Operand(self._collected(weight), (tick, place))
        return Operand(weight, (place,))

    # ---- masks: what depends on the number of the row

    def clock(self, attrs: dict[str, Any]) -> int:
        """The number of each tick."""
        value = self.builder.leaf("clock", Type((), (TIME,), "int"), **attrs)
        if attrs["scale"] == 1 and attrs["period"] == 0:
            self.positions[value] = Position(ticks=1)
        return value

    def _position(self, op: str, args: Sequence[int], attrs: dict[str, Any]) -> Position | None:
        if op == "iota":
            return Position(rows=1) if isinstance(attrs["n"], int) and attrs["n"] > 1 else None
        if op not in ("add", "sub") or not any(a in self.positions for a in args):
            return None
        left, right = (self._affine(a) for a in args)
        if left is None or right is None:
            return None
        sign = 1 if op == "add" else -1
        return Position(
            left.rows + sign * right.rows, left.ticks + sign * right.ticks, left.constant + sign * right.constant
        )

    def _affine(self, value: int) -> Position | None:
        instr = self.builder.instrs[value]
        if instr.op == "const":
            return Position(constant=instr.attr("value"))
        return self.positions.get(value)

    def _compared(self, op: str, args: Sequence[int]) -> Folded | None:
        """``place >= n - tick`` and the like: a condition on the number of the row."""
        if op not in ("lt", "le", "gt", "ge", "eq", "ne") or not any(a in self.positions for a in args):
            return None
        left, right = (self._affine(a) for a in args)
        builder = self.builder
        if left is None or right is None:
            return None
        rows, ticks = left.rows - right.rows, left.ticks - right.ticks
        lengths = {builder.type(a).shape[-1] for a in args if a in self.positions and builder.type(a).shape}
        if rows != ticks or rows not in (1, -1) or len(lengths) != 1:
            return None
        (length,) = lengths
        if not isinstance(length, int):
            return None
        # row r is place i of tick t with r = i + t - t0 - 1, where t0 + 1 is the first tick of the segment
        axis = self.rows(length)
        number = builder.emit("iota", n=TICKS + (length - 1))
        clock = builder.leaf("clock", Type((), (TIME,), "int"), scale=1, period=0)
        ticks_of = builder.emit("collect", clock, axis=TIME, size=TICKS)
        begin = builder.emit("reshape", builder.emit("slice", ticks_of, dim=0, start=0, stop=1), shape=())
        place = builder.emit("spread", builder.emit("add", number, begin), axis=axis)
        bound = builder.const((right.constant - left.constant) * rows)
        base = builder.emit(op, place, bound) if rows == 1 else builder.emit(op, bound, place)
        return Folded(builder.emit("reshape", base, shape=(1,)), axis, length, 0)

    # ---- contractions

    def _contraction(self, op: str, args: Sequence[int], attrs: dict[str, Any]) -> int | None:
        """``einsum``, or a sum over the window, as a product of rows."""
        stripped = [self._stripped(a) for a in args]
        args = [value for value, _ in stripped]
        first = next(self.folded[a] for a in args if a in self.folded)
        if any(f.rows != first.rows for a in args if (f := self.folded.get(a)) is not None):
            return None
        letters = [list("abcdefghijklmnopqrstuvwxyz"[: len(self.builder.type(a).shape)]) for a in args]
        lane = first.place if isinstance(first.place, str) else None
        kept = True
        if op == "einsum":
            inputs, output = ops.split_spec(attrs["spec"])
            letters = [list(x) for x in inputs]
        elif op == "sum" and attrs["dims"]:
            output = "".join(x for d, x in enumerate(letters[0]) if d not in attrs["dims"])
        elif op == "axis_sum" and attrs["axis"] == lane:
            output, kept = "".join(letters[0]), False
        else:
            return None
        if any(len(set(x)) != len(x) for x in (*letters, output)):
            return None
        operands = [self._operand(a, x, lane) for a, x in zip(args, letters, strict=True)]
        if any(o is None for o in operands):
            return None
        for value, own, (_, weights) in zip(args, letters, stripped, strict=True):
            if weights:
                place = self.folded[value].place
                operands += [self._weight(w, TIME, own[place] if isinstance(place, int) else place) for w in weights]
        sizes = {x: s for a, own in zip(args, letters, strict=True) for x, s in zip(own, self._shape(a), strict=True)}
        out: tuple[Letter, ...] = (TIME, *((lane,) if lane and kept else ()), *output)
        product = self.product([o for o in operands if o is not None], out)
        value = placed(self.builder, product, out)
        shape: tuple[Dim, ...] = (TICKS, *((first.length,) if lane and kept else ()), *(sizes[x] for x in output))
        if self.builder.type(value).shape != shape:
            value = self.builder.emit("broadcast", value, shape=shape)
        value = self.builder.emit("spread", value, axis=TIME)
        return self.builder.emit("spread", value, axis=lane) if lane and kept else value

    def _shape(self, value: int) -> tuple[Dim, ...]:
        return self.builder.type(value).shape

    def _operand(self, value: int, letters: list[str], lane: str | None) -> Operand | None:
        """A value of each tick with all its dims as letters: time, the window if it is a mapped axis, then its own."""
        builder, found = self.builder, list[Letter | None](letters)
        known, axes = self.folded.get(value), builder.type(value).axes
        if known is not None and isinstance(known.place, str) != (lane is not None):
            return None
        if lane is not None and lane in axes:
            size = known.length if known is not None else self._lane_size(lane)
            value = builder.emit("collect", value, axis=lane, size=size)
            found.insert(0, lane)
        if TIME in axes:
            value = builder.emit("collect", value, axis=TIME, size=TICKS)
            found.insert(0, TIME)
        if known is not None:
            base = known.base
            if lane is not None:
                base = builder.emit("reshape", base, shape=(1, *builder.type(base).shape))
                known = replace(known, base=base, place=0)
            assert isinstance(known.place, int)
            self.collected[value] = replace(known, place=known.place + 1)
        shape = builder.type(value).shape
        return Operand(value, tuple(None if s == 1 else x for x, s in zip(found, shape, strict=True)))

    def _lane_size(self, lane: str) -> int:
        return next(f.length for f in self.folded.values() if f.place == lane)

    def product(self, operands: Sequence[Operand], out: tuple[Letter, ...], scale: float = 1.0) -> Operand:
        """``contract``, with windows as rows."""
        operands = [o for operand in operands for o in self._apart(operand)]
        groups: dict[tuple[Letter, Letter], list[int]] = {}
        for n, operand in enumerate(operands):
            known = self.collected.get(operand.value)
            if known is not None:
                assert isinstance(known.place, int)
                tick, place = operand.letters[0], operand.letters[known.place]
                if tick is not None and place is not None and operand.letters.count(place) == 1:
                    groups.setdefault((tick, place), []).append(n)
        left = list(operands)
        bands: list[tuple[Letter, Letter, Letter, int, bool]] = []
        for (tick, place), members in groups.items():
            row: Letter = (ROW, tick, place)
            length = self.collected[operands[members[0]].value].length
            banded = self._on_rows(left, members, (tick, place, row), length)
            ticks = any(tick in o.letters for o in left)
            if place in out:
                bands.append((tick, place, row, length, ticks))
            elif not banded:
                left.append(self._indicator(tick, row, length))
        if not bands:
            return contract(self.builder, left, out, scale)
        ((tick, place, row, length, ticks), *others) = bands
        if others or (ticks and tick not in out):
            return contract(self.builder, operands, out, scale)
        inner = [x for x in out if x not in (tick, place)]
        lead: tuple[Letter, ...] = (tick, row) if ticks else (row,)
        rest = contract(self.builder, left, (*lead, *inner), scale)
        value = self.builder.emit("band" if ticks else "unfold", rest.value, n=length)
        return self._arranged(Operand(value, (tick, place, *rest.letters[len(lead) :])), out)

    def _apart(self, operand: Operand) -> list[Operand]:
        """A weighted value as the folded one and its weights."""
        if operand.value not in self.weights:
            return [operand]
        inner, weight, at = self.weights[operand.value]
        tick, place = operand.letters[0], operand.letters[at]
        if tick is None or place is None or operand.letters.count(place) != 1:
            return [operand]
        return [Operand(inner, operand.letters), self._weight(weight, tick, place)]

    def _on_rows(
        self, left: list[Operand], members: list[int], names: tuple[Letter, Letter, Letter], length: int
    ) -> bool:
        """Replace the operands along one window by what they are on rows; whether some say which rows a tick sees."""
        tick, place, row = names
        banded = False
        for n, operand in enumerate(left):
            if n in members:
                known = self.collected[operand.value]
                assert isinstance(known.place, int)
                whole = self._whole(replace(known, place=known.place - 1))
                rest = (*operand.letters[1 : known.place], *operand.letters[known.place + 1 :])
                left[n] = Operand(whole, (row, *rest))
            elif place in operand.letters:
                rest = tuple(x for x in operand.letters if x not in (tick, place, None))
                value = placed(self.builder, operand, (tick, place, *rest))
                shape = self._shape(value)
                if shape[0] == 1:
                    value = self.builder.emit("broadcast", value, shape=(TICKS, *shape[1:]))
                left[n] = Operand(self.builder.emit("unband", value, n=length), (tick, row, *rest))
                banded = True
        return banded

    def _indicator(self, tick: Letter, row: Letter, length: int) -> Operand:
        """1 for the rows that a tick sees: [T, M]."""
        one = self.builder.emit("broadcast", self.builder.const(1.0), shape=(TICKS, length))
        return Operand(self.builder.emit("unband", one, n=length), (tick, row))

    def _arranged(self, operand: Operand, out: tuple[Letter, ...]) -> Operand:
        wanted = tuple(x for x in out if x in operand.letters)
        if wanted == operand.letters:
            return operand
        return contract(self.builder, [operand], wanted)
