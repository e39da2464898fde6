"""The code of a segment for one lane: the stored values of a body in order.

A contraction whose only use is pointwise is not stored: the pointwise work is done on its results in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from nldsl.backends.mlir import over_time
from nldsl.backends.mlir.contraction import Operand, choose, contract, narrow_block, repacked, target_dim
from nldsl.backends.mlir.decay_gram import decay_gram, decay_gram_grad
from nldsl.backends.mlir.lane import MOVES, Index, Lane, Vec
from nldsl.backends.mlir.layout import best_dim, prepare
from nldsl.backends.mlir.memory import STEP
from nldsl.backends.mlir.nests import copy, fill, inner_dim, together, unit_dim
from nldsl.backends.mlir.reduction import reduction, single
from nldsl.backends.mlir.solve import solve
from nldsl.backends.mlir.symmetric import NONE, Pairs, mirror, symmetries
from nldsl.backends.mlir.text import Ix, Val
from nldsl.backends.mlir.views import UnsupportedError, View, entries, load, regrouped, row_major, store
from nldsl.ir.ops import split_spec
from nldsl.ir.types import Clock
from nldsl.source import NO_SPAN, Span

LONG_AFTER = 8  # lines of what is done to a vector of a block of results from which on a loop does it


@dataclass
class Steps:
    """Emits code through ``lane``. ``fused``: which contraction is computed within which stored value, and at which
    dimension of it each label of the contraction is."""

    lane: Lane
    fused: dict[int, tuple[int, dict[str, int]]] = field(default_factory=dict)
    symmetric: dict[int, Pairs] = field(default_factory=dict)

    def plan(self) -> None:
        lane = self.lane
        lane.plan()
        self.symmetric = symmetries(lane)
        for value in sorted(lane.needed):
            if value in lane.products:
                found = self._consumer(value)
                if found is not None and found[0] not in self.fused:
                    lane.stored.discard(value)
                    lane.stored.add(found[0])
                    self.fused[found[0]] = (value, found[1])

    # -- fusing

    def _consumer(self, value: int) -> tuple[int, dict[str, int]] | None:
        """The value at the end of the pointwise work that is done with this one alone."""
        lane = self.lane
        places = {x: d for d, x in enumerate(lane.products[value].output)}
        now = value
        while now not in lane.roots and (now == value or now not in lane.stored):
            users = lane.users.get(now, [])
            if len(users) != 1 or lane.heavy(users[0]):
                break
            after = self._moved(now, users[0], places)
            if after is None:
                break
            now, places = users[0], after
        if now == value or (now in lane.stored and lane.heavy(now)):
            return None
        return now, places

    def _moved(self, value: int, user: int, places: dict[str, int]) -> dict[str, int] | None:
        """Where the dimensions of an operand are in the result, if each entry of one belongs to one of the other."""
        lane, instr = self.lane, self.lane.body[user]
        if instr.args.count(value) != 1 or instr.guard != lane.body[value].guard:
            return None
        dims, own = lane.dims(user), lane.dims(value)
        if entries(dims) != entries(own):
            return None
        probe = tuple(Ix(0, ((f"d{d}", 1),)) for d in range(len(dims)))
        if instr.op == "einsum":
            letters, output = split_spec(instr.attr("spec"))
            mine = [*lane.axes(value), *letters[instr.args.index(value)]]
            index, _ = lane.by_labels(value, mine, [*lane.axes(user), *output], probe, None)
        elif instr.op in MOVES:
            found = lane.mapped(user, probe, None)
            if found is None:
                return None
            index = found[0]
        elif instr.op == "one_hot" or instr.op == "take":
            return None
        else:
            index, _ = lane.lined_up(value, user, probe, None)
        moved: dict[str, int] = {}
        for label, d in places.items():
            if own[d] == 1:
                continue
            position = index[d]
            if position.const or len(position.terms) != 1 or position.terms[0][1] != 1:
                return None
            target = int(position.terms[0][0][1:])
            if dims[target] != own[d] or target in moved.values():
                return None
            moved[label] = target
        return moved

    # -- emission

    def run(self, targets: dict[int, View], late: Sequence[int]) -> None:
        """Every stored value in order; those of ``targets`` where they are told to be. ``late`` ones are left out."""
        lane = self.lane
        inside = {e for e, _ in self.fused.values()}
        for value in sorted(lane.needed):
            if value in late or value in inside:
                continue
            if value in lane.stored or value in targets:
                with lane.f.fence():
                    self.store(value, targets.get(value))
                lane.f.line(STEP)

    def store(self, value: int, target: View | None = None) -> View:
        """Emit the code of a value, unless it is in memory already."""
        lane = self.lane
        known = lane.view(value)
        if known is not None and value not in self.fused:
            if target is not None:
                self._copied(value, known, target)
            return known
        lane.step += 1
        lane.f.location = self._location(value)
        if value in self.fused:
            product, places = self.fused[value]
            self.ready(value, product)
            target = self._contraction(product, value, places, target)
        elif value in lane.products:
            places = {x: d for d, x in enumerate(lane.products[value].output)}
            target = self._contraction(value, value, places, target)
        else:
            target = self._simple(value, target)
        lane.f.location = ""
        lane.views[value] = target
        return target

    def _location(self, value: int) -> str:
        span = self._span(value)
        if span.is_none:
            return ""
        name = span.file.path.rpartition("/")[2].replace("\\", "/").replace('"', "'")
        text = span.file.line_text(span.line).strip()
        safe = "".join(c if c.isprintable() and c.isascii() else "?" for c in text)
        self.lane.f.line(f"// {name}:{span.line}: {safe}"[:118])
        quoted = "".join(c if c.isalnum() or c in "._-/ " else "_" for c in name)
        return f' loc("{quoted}":{span.line}:{span.column})'

    def _span(self, value: int) -> Span:
        """The place of a value, or of the nearest one it is made of: chunked bodies keep the places of leaves."""
        row, seen = [value], set[int]()
        while row:
            for v in row:
                if not self.lane.body[v].span.is_none:
                    return self.lane.body[v].span
            seen.update(row)
            row = [a for a in dict.fromkeys(a for v in row for a in self.lane.body[v].args) if a not in seen]
        return NO_SPAN

    def _copied(self, value: int, known: View, target: View) -> None:
        self.lane.step += 1
        with self.guarded(self.lane.body[value].guard):
            copy(self.lane, known, target)

    def guarded(self, guard: Clock | None) -> ExitStack:
        """A block that runs only where the clock fires, and in which nothing is known to later ones."""
        stack = ExitStack()
        if guard is not None and guard in self.lane.fires:
            stack.enter_context(self.lane.f.when(self.lane.fires[guard]))
        else:
            stack.enter_context(self.lane.f.fence())
        return stack

    def ready(self, value: int, but: int | None = None) -> None:
        """Put in memory whatever the entries of a value are computed from."""
        lane = self.lane
        stack = [*lane.body[value].args]
        seen: set[int] = set()
        while stack:
            v = stack.pop()
            if v == but or v in seen:
                continue
            seen.add(v)
            if lane.view(v) is not None:
                continue
            if v in lane.stored or lane.heavy(v) or v in self.fused:
                self.store(v)
                lane.view(v)
                continue
            if lane.body[v].op == "reshape" and self._merges(v):
                self.in_memory(lane.body[v].args[0], packed=True)
                assert lane.view(v) is not None
                continue
            stack.extend(lane.body[v].args)

    def _merges(self, value: int) -> bool:
        lane = self.lane
        old, new = lane.dims(lane.body[value].args[0]), lane.dims(value)
        return any(sum(old[d] != 1 for d in left) > 1 for left, _ in regrouped(old, new))

    def in_memory(self, value: int, packed: bool = False) -> View:
        """The value as a tensor; ``packed``: in one piece, row by row."""
        lane = self.lane
        view = lane.view(value)
        if view is None:
            if lane.body[value].op == "reshape" and self._merges(value):
                self.in_memory(lane.body[value].args[0], packed=True)
                view = lane.view(value)
                assert view is not None
            else:
                view = self.store(value, lane.scratch(lane.dims(value)) if packed else None)
        whole = all(s == w or n == 1 for s, w, n in zip(view.strides, row_major(view.dims), view.dims, strict=True))
        if (packed and not whole) or view.element:
            target = lane.scratch(lane.dims(value))
            source = view
            with lane.f.fence():
                fill(lane.f, target, lambda index, vec: lane.f.cast(load(lane.f, source, index, vec), "f"))
            if packed:
                lane.views[value] = target
            view = target
        return view

    # -- by operation

    def _simple(self, value: int, target: View | None) -> View:
        lane = self.lane
        instr = lane.body[value]
        op = instr.op
        guard = self.guarded
        if op in ("decay_gram", "decay_gram_grad"):
            operands = [self._aligned(a, value) for a in instr.args]
            target = target or lane.scratch(lane.dims(value))
            with guard(instr.guard):
                (decay_gram if op == "decay_gram" else decay_gram_grad)(lane, target, operands)
            return target
        if op == "solve":
            matrix, right = (self._aligned(a, value) for a in instr.args)
            target = target or lane.scratch(lane.dims(value))
            with guard(instr.guard):
                solve(lane, target, matrix, right, len(lane.axes(value)))
            return target
        if op == "solve_triangular":
            over_time.check(lane, value)
            matrix = self.in_memory(instr.args[0])
            self.ready(value, instr.args[0])
            target = target or lane.scratch(lane.dims(value))
            with guard(instr.guard):
                over_time.solve_triangular(lane, value, target, matrix)
            return target
        self.ready(value)
        if op == "segprod":
            target = target or over_time.segprod_target(lane, value)
        if not lane.heavy(value):
            return self._pointwise(value, target)
        target = target or lane.scratch(lane.dims(value), inner_dim(lane.dims(value)))
        with guard(instr.guard):
            if op in ("sum", "max"):
                lead = len(lane.axes(value))
                dims = [lead + d for d in instr.attr("dims")]
                reduction(lane, instr.args[0], target, dims, range(len(target.dims)), op == "max")
            elif op in ("axis_sum", "batch_mean"):
                dims = [lane.axes(instr.args[0]).index(lane.summed(value))]
                reduction(lane, instr.args[0], target, dims, range(len(target.dims)), largest=False)
                if op == "batch_mean":
                    self._scaled(target, 1.0 / lane.sizes[lane.summed(value)])
            elif op == "einsum":
                single(lane, value, target)
            elif op == "concat":
                self._concat(value, target)
            elif op == "pad":
                self._pad(value, target)
            elif op == "scatter_add":
                self._scatter_add(value, target)
            else:
                table = {
                    "cumsum": over_time.cumsum,
                    "cumprod": over_time.cumprod,
                    "linear_scan": over_time.linear_scan,
                    "segprod": over_time.segprod,
                    "matrix_scan": over_time.matrix_scan,
                    "unband": over_time.unband,
                }
                table[op](lane, value, target)
        return target

    def _scaled(self, target: View, factor: float) -> None:
        f = self.lane.f
        with f.fence():
            fill(
                f, target, lambda i, v: f.apply("arith.mulf", *f.same_width([load(f, target, i, v), f.number(factor)]))
            )

    def _pointwise(self, value: int, target: View | None) -> View:
        lane, dims = self.lane, self.lane.dims(value)

        def entry(index: Index, vec: Vec | None) -> Val:
            return lane.f.cast(lane.at(value, index, vec), "f")

        if target is None:
            target = lane.scratch(dims, best_dim(lane, dims, entry, inner_dim(dims)))
        lines = prepare(lane, dims, unit_dim(target), entry)
        with self.guarded(lane.body[value].guard):
            fill(lane.f, target, entry, together(lines))
        return target

    def _aligned(self, arg: int, value: int) -> View:
        """An operand in memory with all inner axes of the result (strides of 0 where it has none)."""
        lane = self.lane
        view = self.in_memory(arg)
        own, outer = lane.axes(arg), lane.axes(value)
        rest = len(own)
        strides = tuple(view.strides[own.index(a)] if a in own else 0 for a in outer) + view.strides[rest:]
        return View(view.buffer, view.base, strides, (*(lane.sizes[a] for a in outer), *view.dims[rest:]))

    def _concat(self, value: int, target: View) -> None:
        lane, instr = self.lane, self.lane.body[value]
        lead = len(lane.axes(value))
        dim, start = lead + instr.attr("dim"), 0
        for arg in instr.args:
            size = lane.dims(arg)[len(lane.axes(arg)) + instr.attr("dim")]
            self._filled(target.sliced(dim, start, size), arg, value)
            start += size

    def _filled(self, part: View, arg: int, value: int) -> None:
        lane = self.lane

        def entry(index: Index, vec: Vec | None) -> Val:
            own, outer = lane.axes(arg), lane.axes(value)
            places = [outer.index(a) for a in own] + list(range(len(outer), len(index)))
            moved = (places.index(vec[0]), vec[1]) if vec is not None and vec[0] in places else None
            return lane.f.cast(lane.at(arg, tuple(index[p] for p in places), moved), "f")

        lines = prepare(lane, part.dims, unit_dim(part), entry)
        with lane.f.fence():
            fill(lane.f, part, entry, together(lines))

    def _pad(self, value: int, target: View) -> None:
        lane, instr = self.lane, self.lane.body[value]
        dim, size = len(lane.axes(value)) + instr.attr("dim"), 0
        before, after = lane.size(instr.attr("before")), lane.size(instr.attr("after"))
        size = target.dims[dim] - before - after
        for start, count in ((0, before), (before + size, after)):
            if count:
                with lane.f.fence():
                    fill(
                        lane.f,
                        target.sliced(dim, start, count),
                        lambda _, vec: lane.f.number(0.0, vec[1] if vec else 0),
                    )
        if size:
            self._filled(target.sliced(dim, before, size), instr.args[0], value)

    def _scatter_add(self, value: int, target: View) -> None:
        lane, f = self.lane, self.lane.f
        given, picks = lane.body[value].args
        lead = len(lane.axes(value))
        if lane.axes(given) != lane.axes(value) or lane.axes(picks) != lane.axes(value):
            raise UnsupportedError("scatter_add over axes that its operands do not have")
        with f.fence():
            fill(f, target, lambda _, vec: f.number(0.0, vec[1] if vec else 0))
        dims = lane.dims(given)
        count = len(lane.body[picks].type.shape)
        probe = View("", Ix(), (0,) * len(dims), dims)
        with ExitStack() as stack:
            index: list[Ix] = []
            for size in probe.dims:
                name = stack.enter_context(f.loop(f.index(0), f.index(size), 1))
                index.append(Ix(0, ((name, 1),)))
            row = f.cast(lane.at(picks, tuple(index[: lead + count]), None), "i")
            name = f.op(f"arith.index_cast {row.name} : i32 to index")
            place = [*index[:lead], Ix(0, ((name, 1),)), *index[lead + count :]]
            total = f.apply("arith.addf", load(f, target, place, None), lane.at(given, tuple(index), None))
            store(f, target, place, total, None)

    def _half(self, product: int, value: int, places: dict[str, int], along: str | None) -> tuple[int, int] | None:
        """The dimensions (down, along vectors) of a product of which only the half below the diagonal is computed."""
        lane = self.lane
        output = lane.products[product].output
        for pair in sorted(self.symmetric.get(product, NONE)):
            across = next((d for d in pair if output[d] == along), None)
            if across is None or lane.dims(product)[across] % narrow_block(lane.f, lane.dims(product)[across]):
                continue
            down = pair[0] + pair[1] - across
            wanted = tuple(sorted(places[output[d]] for d in pair))
            big = lane.dims(product)[across] >= 2 * narrow_block(lane.f, lane.dims(product)[across])
            if big and (product == value or wanted in self.symmetric.get(value, NONE)):
                return down, across
        return None

    def _contraction(self, product: int, value: int, places: dict[str, int], target: View | None) -> View:
        """The sum of products ``product``, with what is done to it until it is ``value``."""
        lane, f = self.lane, self.lane.f
        instr, known = lane.body[product], lane.products[product]
        labels = list(known.output)
        operands, packed = [], set[int]()
        for n, (arg, own) in enumerate(zip(known.args, known.labels, strict=True)):
            operand = Operand(self.in_memory(arg), list(own))
            operands.append(operand)
            copied = any(key[:2] == ("packed", operand.view) for key in lane.packed if isinstance(key, tuple))
            if copied or lane.is_still(operand.view):
                packed.add(n)
        sizes: dict[str, int] = {}
        for operand in operands:
            sizes.update({x: size for x, size in zip(operand.labels, operand.view.dims, strict=True) if size > 1})
        for label in labels:
            sizes.setdefault(label, 1)
        dims = lane.dims(value)
        unit = None
        if target is not None:
            dim = unit_dim(target)
            unit = next((x for x, d in places.items() if d == dim), None)
        choice = choose(f, operands, sizes, labels, unit, packed)
        for n in choice.copies:
            assert choice.along is not None
            operands[n] = repacked(lane, operands[n], choice.along)
        if target is None:
            last = places.get(choice.along) if choice.along in labels and choice.along is not None else None
            if last is None:
                inner = target_dim(labels, sizes, choice.along)
                last = places.get(labels[inner]) if inner is not None else None
            target = lane.scratch(dims, last)
        destination = target

        def finished(result: Val, index: Index, vec: Vec | None) -> Val:
            lane.overrides[product] = result
            result = f.cast(lane.at(value, index, vec), "f")
            del lane.overrides[product]
            return result

        def epilogue(place: dict[str, Ix], result: Val, vec: tuple[str, int] | None) -> None:
            index = [Ix()] * len(dims)
            for label, d in places.items():
                index[d] = place.get(label, Ix())
            moved = (places[vec[0]], vec[1]) if vec is not None else None
            store(f, destination, index, result if product == value else finished(result, tuple(index), moved), moved)

        lines = 0
        if product != value and choice.along in places:
            lines = prepare(
                lane,
                dims,
                places[choice.along],
                lambda index, vec: finished(f.number(0.0, vec[1] if vec else 0), index, vec),
            )

        half = self._half(product, value, places, choice.along)
        bounds = known.bounds
        if half is not None and not any(choice.along in pair for pair in bounds):
            bounds = {**bounds, (labels[half[0]], labels[half[1]]): 0}
        else:
            half = None
        with self.guarded(instr.guard):
            contract(lane, operands, sizes, labels, choice.along, epilogue, bounds, lines >= LONG_AFTER)
            if half is not None:
                first, second = (places[labels[d]] for d in half)
                mirror(lane, destination, first, second, narrow_block(f, dims[first]))
        return destination
