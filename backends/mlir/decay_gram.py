"""Products of reads and writes with a decay for each channel and tick (``decay_gram``), and their derivative.

    out[t, s] = sum over c of q[t, c] k[s, c] a[s + 1, c] .. a[t, c]        for s <= t

Between two halves of a stretch of ticks this is a product of matrices: q takes the decays since the middle, k those up
to it. Within short stretches it is a loop over ticks. Nothing is divided by a product of decays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nldsl.backends.mlir import vector_math as vm
from nldsl.backends.mlir.contraction import Operand, contract
from nldsl.backends.mlir.lane import Lane, Vec
from nldsl.backends.mlir.layout import laid_along
from nldsl.backends.mlir.nests import fill, rows, runs
from nldsl.backends.mlir.text import Ix, Val, at
from nldsl.backends.mlir.views import View, load, pieces, store

SHORT = 16  # ticks of a stretch that is not halved; of the derivative:
SHORT_GRAD = 8


def decay_gram(lane: Lane, target: View, operands: Sequence[View]) -> None:
    """``decay_gram(q, a, k)``."""
    f, lead = lane.f, len(target.dims) - 2
    ticks = target.dims[lead]
    short = _short(ticks, operands[0].dims[-1], SHORT)
    with rows(f, target.dims, (lead, lead + 1)) as index:
        out, q, a, k = (_inside(x, index[:lead]) for x in (target, *operands))
        if short == ticks:
            _gram_of_ticks(lane, out, q, a, k)
            return
        with f.loop(f.index(0), f.index(ticks), short, "b") as name:
            own = [_part(x, 0, at(name), short) for x in (q, a, k)]
            _gram_of_ticks(lane, _square(out, at(name), at(name), short), *own)
        half = short
        while half < ticks:
            with f.loop(f.index(0), f.index(ticks), 2 * half, "b") as name:
                _gram_of_halves(lane, out, _Halves.of(lane, q, a, k, at(name), half))
            half *= 2


def decay_gram_grad(lane: Lane, target: View, operands: Sequence[View]) -> None:
    """``decay_gram_grad(d, q, a, k)``: the cotangents of q, a and k, one after the other."""
    f, lead = lane.f, len(target.dims) - 3
    ticks, width = target.dims[lead + 1 :]
    short = _short(ticks, width, SHORT_GRAD)
    with rows(f, [*target.dims[:lead], 1, 1, 1], ()) as index:
        out, d, q, a, k = (_inside(x, index[:lead]) for x in (target, *operands))
        with f.fence():
            fill(f, out, lambda _, v: f.number(0.0, v[1] if v else 0))
        if short == ticks:
            _grad_of_ticks(lane, out, d, q, a, k)
            return
        with f.loop(f.index(0), f.index(ticks), short, "b") as name:
            own = [_part(x, 0, at(name), short) for x in (q, a, k)]
            _grad_of_ticks(lane, _part(out, 1, at(name), short), _square(d, at(name), at(name), short), *own)
        half = short
        while half < ticks:
            with f.loop(f.index(0), f.index(ticks), 2 * half, "b") as name:
                _grad_of_halves(lane, out, d, _Halves.of(lane, q, a, k, at(name), half))
            half *= 2


def _short(ticks: int, width: int, short: int) -> int:
    """How many ticks are not halved any more: all of them where halves do not fit."""
    blocks = ticks // short
    return short if width > 1 and ticks % short == 0 and blocks & (blocks - 1) == 0 else ticks


def _inside(view: View, head: Sequence[Ix]) -> View:
    base = view.base
    for position, stride in zip(head, view.strides, strict=False):
        base = base + position * stride
    n = len(head)
    return View(view.buffer, base, view.strides[n:], view.dims[n:])


def _part(view: View, dim: int, start: Ix, size: int) -> View:
    dims = (*view.dims[:dim], size, *view.dims[dim + 1 :])
    return replace(view, base=view.base + start * view.strides[dim], dims=dims)


def _square(view: View, row: Ix, column: Ix, size: int) -> View:
    return _part(_part(view, 0, row, size), 1, column, size)


def _vec(dim: int, width: int) -> Vec | None:
    return (dim, width) if width else None


# ---------------------------------------------------------------- halves


@dataclass(frozen=True)
class _Halves:
    """A stretch in two halves of ``size`` ticks, the second from ``middle`` on. ``since[t]``: the decays of the second
    half before its tick t; ``until[s]``: those of the first half after tick s. ``read`` and ``written`` are q of the
    second half with its decays, up to its tick, and k of the first one with its own."""

    q: View
    a: View
    k: View
    first: Ix
    middle: Ix
    size: int
    since: View
    until: View
    read: View
    written: View

    @staticmethod
    def of(lane: Lane, q: View, a: View, k: View, first: Ix, size: int) -> _Halves:
        f, width = lane.f, q.dims[1]
        middle = first + size
        since, until = lane.scratch((size + 1, width)), lane.scratch((size, width))
        read, written = lane.scratch((size, width)), lane.scratch((size, width))
        for block in runs(f, width, f.lanes):
            ones = [f.number(1.0, w) for _, w in block]

            def onwards(name: str, values: list[Val], block: list[tuple[Ix, int]] = block) -> list[Val]:
                found = []
                for (c, w), value in zip(block, values, strict=True):
                    store(f, since, [at(name), c], value, _vec(1, w))
                    new = vm.mul(f, value, load(f, a, [middle + at(name), c], _vec(1, w)))
                    own = vm.mul(f, new, load(f, q, [middle + at(name), c], _vec(1, w)))
                    store(f, read, [at(name), c], own, _vec(1, w))
                    found.append(new)
                return found

            def backwards(name: str, values: list[Val], block: list[tuple[Ix, int]] = block) -> list[Val]:
                tick, found = at(name) * -1 + (size - 1), []
                for (c, w), value in zip(block, values, strict=True):
                    store(f, until, [tick, c], value, _vec(1, w))
                    own = vm.mul(f, value, load(f, k, [first + tick, c], _vec(1, w)))
                    store(f, written, [tick, c], own, _vec(1, w))
                    found.append(vm.mul(f, value, load(f, a, [first + tick, c], _vec(1, w))))
                return found

            f.reduce(f.index(size), 1, ones, onwards)
            f.reduce(f.index(size), 1, ones, backwards)
        return _Halves(q, a, k, first, middle, size, since, until, read, written)


def _product(lane: Lane, operands: list[Operand], output: str, along: str, target: View) -> None:
    f = lane.f
    sizes = {x: n for o in operands for x, n in zip(o.labels, o.view.dims, strict=True)}

    def keep(place: dict[str, Ix], value: Val, vec: tuple[str, int] | None) -> None:
        store(f, target, [place[x] for x in output], value, (output.index(vec[0]), vec[1]) if vec else None)

    with f.fence():
        contract(lane, operands, sizes, output, along, keep, {})


def _gram_of_halves(lane: Lane, out: View, halves: _Halves) -> None:
    f = lane.f
    with f.fence():
        fill(f, _square(out, halves.first, halves.middle, halves.size), lambda _, v: f.number(0.0, v[1] if v else 0))
    across = laid_along(lane, halves.written, 0)
    operands = [Operand(halves.read, ["t", "c"]), Operand(across, ["s", "c"])]
    _product(lane, operands, "ts", "s", _square(out, halves.middle, halves.first, halves.size))


def _grad_of_halves(lane: Lane, out: View, d: View, halves: _Halves) -> None:
    f, size, width = lane.f, halves.size, halves.q.dims[1]
    q, a, k, first, middle = halves.q, halves.a, halves.k, halves.first, halves.middle
    d_read, d_written = lane.scratch((size, width)), lane.scratch((size, width))
    table = Operand(_square(d, middle, first, size), ["t", "s"])
    _product(lane, [table, Operand(halves.written, ["s", "c"])], "tc", "c", d_read)
    _product(lane, [table, Operand(halves.read, ["t", "c"])], "sc", "c", d_written)

    def more(part: int, tick: Ix, c: Ix, w: int, x: Val, y: Val) -> None:
        place = [Ix(part), tick, c]
        store(f, out, place, vm.fma(f, x, y, load(f, out, place, _vec(2, w))), _vec(2, w))

    def at_tick(view: View, tick: Ix, c: Ix, w: int) -> Val:
        return f.spread(load(f, view, [tick, c], _vec(1, w)), w)

    for block in runs(f, width, f.lanes):
        zeros = [f.number(0.0, w) for _, w in block]

        def onwards(name: str, values: list[Val], block: list[tuple[Ix, int]] = block) -> list[Val]:
            """``value``: the cotangent of ``until`` of the tick before, times the decay of that tick's own."""
            s, found = at(name), []
            for (c, w), value in zip(block, values, strict=True):
                back, until = at_tick(d_written, s, c, w), at_tick(halves.until, s, c, w)
                more(2, first + s, c, w, back, until)
                more(1, first + s, c, w, value, until)
                sofar = vm.mul(f, value, at_tick(a, first + s, c, w))
                found.append(vm.fma(f, back, at_tick(k, first + s, c, w), sofar))
            return found

        def backwards(name: str, values: list[Val], block: list[tuple[Ix, int]] = block) -> list[Val]:
            """``value``: the cotangent of the decays up to the tick that comes from later ones."""
            t, found = at(name) * -1 + (size - 1), []
            for (c, w), value in zip(block, values, strict=True):
                back, since = at_tick(d_read, t, c, w), at_tick(halves.since, t, c, w)
                decay = at_tick(a, middle + t, c, w)
                more(0, middle + t, c, w, back, vm.mul(f, since, decay))
                sofar = vm.fma(f, back, at_tick(q, middle + t, c, w), value)
                more(1, middle + t, c, w, sofar, since)
                found.append(vm.mul(f, sofar, decay))
            return found

        f.reduce(f.index(size), 1, zeros, onwards)
        f.reduce(f.index(size), 1, zeros, backwards)


# ---------------------------------------------------------------- ticks


def _gram_of_ticks(lane: Lane, out: View, q: View, a: View, k: View) -> None:
    """``held[c, s]`` is k[s, c] times the decays since s; each tick multiplies it by its own and reads it with q."""
    f = lane.f
    ticks, width_k = q.dims
    held = lane.scratch((width_k, f.lanes))
    unroll = 4 if width_k >= 4 else 1
    for first, count, width in pieces(ticks, f.lanes):
        for n in range(count):
            s = first + n * max(width, 1)
            vec = _vec(1, width)
            zero = f.number(0.0, width)
            with f.fence():
                fill(f, held, lambda _, v: f.number(0.0, v[1] if v else 0))
            with f.loop(f.index(0), f.index(s), 1, "t") as t:
                store(f, out, [at(t), Ix(s)], zero, vec)
            lanes = f.apply("arith.addi", f.integer(s), f.steps(width)) if width else f.integer(s)

            def tick(
                t: Ix, fresh: bool, vec: Vec | None = vec, width: int = width, lanes: Val = lanes, s: int = s
            ) -> None:
                condition = None
                if fresh:
                    condition = f.apply("arith.cmpi eq,", *f.same_width([lanes, f.as_integer(t)]), kind="b")

                def channel(c: Ix, sofar: Val) -> Val:
                    old = load(f, held, [c, Ix()], vec)
                    new = vm.mul(f, old, f.spread(load(f, a, [t, c], None), width))
                    if condition is not None:
                        new = f.select(condition, f.spread(load(f, k, [t, c], None), width), new)
                    store(f, held, [c, Ix()], new, vec)
                    return vm.fma(f, f.spread(load(f, q, [t, c], None), width), new, sofar)

                full = width_k // unroll * unroll
                sums = f.reduce(
                    f.index(full),
                    unroll,
                    [f.number(0.0, width)] * unroll,
                    lambda name, values: [channel(at(name) + u, v) for u, v in enumerate(values)],
                )
                for c in range(full, width_k):
                    sums[0] = channel(Ix(c), sums[0])
                total = sums[0]
                for other in sums[1:]:
                    total = vm.add(f, total, other)
                store(f, out, [t, Ix(s)], total, vec)

            end = s + max(width, 1)
            with f.loop(f.index(s), f.index(end), 1, "t") as t:
                tick(at(t), True)
            if end < ticks:
                with f.loop(f.index(end), f.index(ticks), 1, "t") as t:
                    tick(at(t), False)


def _grad_of_ticks(lane: Lane, out: View, d: View, q: View, a: View, k: View) -> None:
    """For each tick t: forwards the sum over s <= u of d[t, s] k[s] with its decays up to u (``held[u]``: up to u - 1),
    then backwards from t q[t] with its decays down to u; their products are the cotangents."""
    f = lane.f
    ticks, width_k = q.dims
    held = lane.scratch((ticks, 4 * f.lanes))
    for block in runs(f, width_k, f.lanes):
        with f.loop(f.index(0), f.index(ticks), 1, "t") as t:
            after = f.position(at(t) + 1)

            def forwards(name: str, values: list[Val], block: list[tuple[Ix, int]] = block, t: str = t) -> list[Val]:
                u, found = at(name), []
                weight = load(f, d, [at(t), u], None)
                for n, ((c, width), value) in enumerate(zip(block, values, strict=True)):
                    decayed = vm.mul(f, value, f.spread(load(f, a, [u, c], _vec(1, width)), width))
                    store(f, held, [u, Ix(n * f.lanes)], value, _vec(1, width))
                    key = f.spread(load(f, k, [u, c], _vec(1, width)), width)
                    found.append(vm.fma(f, f.spread(weight, width), key, decayed))
                return found

            whole = f.reduce(after, 1, [f.number(0.0, width) for _, width in block], forwards)
            for (c, width), total in zip(block, whole, strict=True):
                store(f, out, [Ix(), at(t), c], total, _vec(2, width))

            def down(name: str, values: list[Val], block: list[tuple[Ix, int]] = block, t: str = t) -> list[Val]:
                u, found = at(t) + at(name) * -1, []
                weight = load(f, d, [at(t), u], None)
                for n, ((c, width), value) in enumerate(zip(block, values, strict=True)):
                    place, v = [Ix(2), u, c], _vec(2, width)
                    store(f, out, place, vm.fma(f, f.spread(weight, width), value, load(f, out, place, v)), v)
                    place = [Ix(1), u, c]
                    before = load(f, held, [u, Ix(n * f.lanes)], _vec(1, width))
                    store(f, out, place, vm.fma(f, value, before, load(f, out, place, v)), v)
                    found.append(vm.mul(f, value, f.spread(load(f, a, [u, c], _vec(1, width)), width)))
                return found

            start = [f.spread(load(f, q, [at(t), c], _vec(1, width)), width) for c, width in block]
            f.reduce(after, 1, start, down)
