"""Operations along time (``ir/time_ops.py``): each is a loop over the ticks with vectors across everything else.

None divides by a product or takes the logarithm of a factor: decays of any sign and size are exact to rounding.
"""

from __future__ import annotations

from collections.abc import Callable

from nldsl.backends.mlir import vector_math as vm
from nldsl.backends.mlir.lane import Lane, Vec
from nldsl.backends.mlir.nests import fill, inner_dim, rows, runs
from nldsl.backends.mlir.text import Ix, Val, at
from nldsl.backends.mlir.views import UnsupportedError, View, load, pieces, store


def _backwards(name: str, size: int) -> Ix:
    return at(name) * -1 + (size - 1)


def across(lane: Lane, value: int, dim: int) -> int | None:
    """The dimension for the vectors of a scan along ``dim``."""
    dims = list(lane.dims(value))
    dims[dim] = 1
    return inner_dim(dims)


def scan(
    lane: Lane,
    target: View,
    dim: int,
    reverse: bool,
    start: float,
    step: Callable[[list[Ix], Vec | None, Val], Val],
    exclusive: bool = False,
) -> None:
    """``x = step(entry, x)`` along a dimension; what is stored is x after the tick, before it if ``exclusive``."""
    f, dims = lane.f, list(target.dims)
    size = dims[dim]
    dims[dim] = 1
    along = inner_dim(dims)
    with rows(f, dims, () if along is None else (along,)) as index:
        for block in runs(f, dims[along], f.lanes) if along is not None else [[(Ix(), 0)]]:

            def body(name: str, values: list[Val], block: list[tuple[Ix, int]] = block) -> list[Val]:
                found = []
                for (position, width), value in zip(block, values, strict=True):
                    place = list(index)
                    place[dim] = _backwards(name, size) if reverse else at(name)
                    if along is not None:
                        place[along] = position
                    vec = (along, width) if width and along is not None else None
                    new = f.spread(step(place, vec, value), width)
                    store(f, target, place, value if exclusive else new, vec)
                    found.append(new)
                return found

            f.reduce(f.index(size), 1, [f.number(start, width) for _, width in block], body)


def cumprod(lane: Lane, value: int, target: View) -> None:
    """``cumprod(a)``."""
    instr = lane.body[value]
    arg, dim = instr.args[0], len(lane.axes(value))

    def step(place: list[Ix], vec: Vec | None, sofar: Val) -> Val:
        return vm.mul(lane.f, sofar, lane.at(arg, tuple(place), vec))

    scan(lane, target, dim, instr.attr("reverse"), 1.0, step, instr.attr("exclusive"))


def cumsum(lane: Lane, value: int, target: View) -> None:
    """``cumsum(x)`` along any dimension."""
    instr = lane.body[value]
    arg, dim = instr.args[0], len(lane.axes(value)) + instr.attr("dim")

    def step(place: list[Ix], vec: Vec | None, sofar: Val) -> Val:
        return vm.add(lane.f, sofar, lane.f.cast(lane.at(arg, tuple(place), vec), "f"))

    scan(lane, target, dim, instr.attr("reverse"), 0.0, step)


def linear_scan(lane: Lane, value: int, target: View) -> None:
    """``linear_scan(a, b)``."""
    instr, f = lane.body[value], lane.f
    decay, new = instr.args
    lead, own = lane.axes(value), lane.axes(decay)
    rank = len(lane.body[decay].type.shape) - 1
    dims = lane.dims(decay)
    total = len(target.dims)
    places = [lead.index(a) for a in own] + [len(lead)] + list(range(total - rank, total))

    def step(place: list[Ix], vec: Vec | None, sofar: Val) -> Val:
        index = tuple(Ix() if dims[n] == 1 else place[p] for n, p in enumerate(places))
        moved = (places.index(vec[0]), vec[1]) if vec is not None and vec[0] in places else None
        if moved is not None and dims[moved[0]] == 1:
            moved = None
        factor = f.cast(lane.at(decay, index, moved), "f")
        inside = lane.lined_up(new, value, tuple(place), vec)
        term = f.cast(lane.at(new, *inside), "f")
        width = sofar.width
        return vm.fma(f, f.spread(factor, width), sofar, f.spread(term, width))

    reverse = any(key == "reverse" and flag for key, flag in instr.attrs)
    scan(lane, target, len(lead), reverse, 0.0, step)


def segprod_target(lane: Lane, value: int) -> View:
    """[.., t, s, ..] with s in one piece where other entries of a tick are few."""
    lead, dims = len(lane.axes(value)), lane.dims(value)
    return lane.scratch(dims, None if _many(lane, value) else lead + 1)


def _many(lane: Lane, value: int) -> bool:
    """Whether a tick has so many entries that vectors run across them."""
    lead, dims = len(lane.axes(value)), lane.dims(value)
    return not lane.body[value].attr("matrix") and len(dims) > lead + 2 and dims[-1] >= 8


def segprod(lane: Lane, value: int, target: View) -> None:
    """``segprod(a)``: each row from the one before."""
    instr, f = lane.body[value], lane.f
    arg, lead = instr.args[0], len(lane.axes(value))
    dims, ticks = list(target.dims), target.dims[lead]
    n = dims[lead + 2] if instr.attr("matrix") else 1
    if _many(lane, value):
        _segprod_rows(lane, arg, target, lead)
        return
    own = list(dims)
    own[lead] = own[lead + 1] = 1
    inner = [lead + 2, lead + 3] if instr.attr("matrix") else []
    for d in inner:
        own[d] = 1
    with rows(f, own, ()) as index:
        for start, count, width in pieces(ticks, f.lanes):
            step = max(width, 1)
            with f.loop(f.index(start), f.index(start + count * step), step, "s") as s:
                vec = (lead + 1, width) if width else None
                columns = f.apply("arith.addi", f.as_integer(at(s)), f.steps(width)) if width else f.as_integer(at(s))

                def entry(t: Ix, i: int, j: int, s: str = s) -> list[Ix]:
                    place = list(index)
                    place[lead], place[lead + 1] = t, at(s)
                    if inner:
                        place[inner[0]], place[inner[1]] = Ix(i), Ix(j)
                    return place

                def factor(t: Ix, i: int, k: int) -> Val:
                    place = [*index[:lead], t, *([Ix(i), Ix(k)] if inner else []), *index[lead + 2 + len(inner) :]]
                    return f.cast(lane.at(arg, tuple(place), None), "f")

                cells = [(i, j) for i in range(n) for j in range(n)]

                def tick(
                    name: str,
                    before: list[Val],
                    cells: list[tuple[int, int]] = cells,
                    width: int = width,
                    vec: Vec | None = vec,
                    columns: Val = columns,
                    entry: Callable[[Ix, int, int], list[Ix]] = entry,
                ) -> list[Val]:
                    row = f.as_integer(at(name))
                    earlier = f.apply("arith.cmpi slt,", *f.same_width([columns, row]), kind="b")
                    same = f.apply("arith.cmpi eq,", *f.same_width([columns, row]), kind="b")
                    found = []
                    for i, j in cells:
                        total: Val | None = None
                        for k in range(n):
                            a = f.spread(factor(at(name), i, k), width)
                            old = before[k * n + j]
                            total = vm.mul(f, a, old) if total is None else vm.fma(f, a, old, total)
                        assert total is not None
                        own = f.select(same, f.number(float(i == j)), f.number(0.0))
                        new = f.select(earlier, total, f.spread(own, width))
                        store(f, target, entry(at(name), i, j), new, vec)
                        found.append(new)
                    return found

                f.reduce(f.index(ticks), 1, [f.number(0.0, width) for _ in cells], tick)


def _segprod_rows(lane: Lane, arg: int, target: View, lead: int) -> None:
    """Vectors across the entries of a tick: for each s, on from t = s."""
    f, dims = lane.f, list(target.dims)
    ticks, along = dims[lead], len(dims) - 1
    own = list(dims)
    own[lead] = own[along] = 1
    with rows(f, own, (lead, along)) as index:
        s = index[lead + 1]
        for block in runs(f, dims[along], f.lanes):

            def put(t: Ix, position: Ix, width: int, value: Val) -> None:
                place = list(index)
                place[lead], place[along] = t, position
                store(f, target, place, value, (along, width) if width else None)

            def body(name: str, values: list[Val], block: list[tuple[Ix, int]] = block) -> list[Val]:
                found = []
                for (position, width), value in zip(block, values, strict=True):
                    put(at(name), position, width, value)
                    following = f.position(at(name) + 1)
                    limited = f.op(f"arith.minsi {following}, {f.index(ticks - 1)} : index")
                    place = (*index[:lead], at(limited), *index[lead + 2 : along], position)
                    vec = (len(place) - 1, width) if width else None
                    found.append(vm.mul(f, value, f.spread(f.cast(lane.at(arg, place, vec), "f"), width)))
                return found

            with f.loop(f.index(0), f.position(s), 1, "t") as t:
                for position, width in block:
                    put(at(t), position, width, f.number(0.0, width))
            ones = [f.number(1.0, width) for _, width in block]
            f.reduce(f.index(ticks), 1, ones, body, f.position(s))


def solve_triangular(lane: Lane, value: int, target: View, matrix: View) -> None:
    """Some rows at once are held in registers while the rows before them are subtracted, and then each other."""
    instr, f = lane.body[value], lane.f
    right = instr.args[1]
    transposed = any(key == "transposed" and flag for key, flag in instr.attrs)
    vector = len(instr.type.shape) == 1
    lead = len(target.dims) - (1 if vector else 2)
    size = target.dims[lead]
    skip = (lead,) if vector else (lead, lead + 1)
    names = lane.axes(value)
    own = [names.index(x) for x in lane.axes(instr.args[0])]
    height = 4 if f.lanes * (4 if f.real == "f32" else 8) >= 64 else 2
    while size % height:
        height //= 2

    def vec(width: int) -> Vec | None:
        return (lead + 1, width) if width else None

    with rows(f, target.dims, skip) as index:
        head = [index[p] for p in own]

        def place(row: Ix, column: Ix) -> list[Ix]:
            return [*index[:lead], row] if vector else [*index[:lead], row, column]

        def minus(row: Ix, other: Ix, width: int) -> Val:
            entry = [*head, other, row] if transposed else [*head, row, other]
            return f.apply("arith.negf", f.spread(load(f, matrix, entry, None), width))

        for block in [[(Ix(), 0)]] if vector else runs(f, target.dims[lead + 1], f.lanes, 4 if height > 1 else 8):
            with f.loop(f.index(0), f.index(size), height, "r") as name:
                now = [_backwards(name, size) + -n if transposed else at(name) + n for n in range(height)]
                cells = [(row, column, width) for row in now for column, width in block]
                start = []
                for row, column, width in cells:
                    inside = lane.lined_up(right, value, tuple(place(row, column)), vec(width))
                    start.append(f.spread(f.cast(lane.at(right, *inside), "f"), width))

                def body(inner: str, values: list[Val], cells: list[tuple[Ix, Ix, int]] = cells) -> list[Val]:
                    found = []
                    for (row, column, width), total in zip(cells, values, strict=True):
                        known = load(f, target, place(at(inner), column), vec(width))
                        found.append(vm.fma(f, minus(row, at(inner), width), known, total))
                    return found

                if transposed:
                    done = f.reduce(f.index(size), 1, start, body, f.position(now[0] + 1))
                else:
                    done = f.reduce(f.position(now[0]), 1, start, body)
                count = len(block)
                for n, row in enumerate(now):
                    for m, other in enumerate(now[:n]):
                        for c, (_, width) in enumerate(block):
                            done[n * count + c] = vm.fma(
                                f, minus(row, other, width), done[m * count + c], done[n * count + c]
                            )
                for (row, column, width), total in zip(cells, done, strict=True):
                    store(f, target, place(row, column), total, vec(width))


def matrix_scan(lane: Lane, value: int, target: View) -> None:
    """``matrix_scan(a, b)``: row by row, from the rows of the tick before."""
    instr, f = lane.body[value], lane.f
    decay, new = instr.args
    lead = len(lane.axes(value))
    ticks, n = target.dims[lead], target.dims[lead + 1]
    reverse = instr.attr("reverse")
    with rows(f, target.dims, (lead, lead + 1, lead + 2)) as index:
        head = index[:lead]
        with f.loop(f.index(0), f.index(ticks), 1, "t") as name:
            t = _backwards(name, ticks) if reverse else at(name)
            before = t + (1 if reverse else -1)
            begun = f.op(f"arith.minui {name}, {f.index(1)} : index")
            terms = f.op(f"arith.muli {begun}, {f.index(n)} : index")
            with f.loop(f.index(0), f.index(n), 1, "i") as i:
                for block in runs(f, target.dims[lead + 2], f.lanes):

                    def vec(width: int) -> Vec | None:
                        return (lead + 2, width) if width else None

                    start = []
                    for column, width in block:
                        inside = lane.lined_up(new, value, (*head, t, at(i), column), vec(width))
                        start.append(f.spread(f.cast(lane.at(new, *inside), "f"), width))

                    def body(k: str, values: list[Val], i: str = i, block: list[tuple[Ix, int]] = block) -> list[Val]:
                        place, _ = lane.lined_up(decay, value, (*head, t, at(i), at(k)), None)
                        factor = f.cast(lane.at(decay, place, None), "f")
                        return [
                            vm.fma(
                                f, f.spread(factor, width), load(f, target, [*head, before, at(k), c], vec(width)), v
                            )
                            for (c, width), v in zip(block, values, strict=True)
                        ]

                    found = f.reduce(terms, 1, start, body)
                    for (column, width), total in zip(block, found, strict=True):
                        store(f, target, [*head, t, at(i), column], total, vec(width))


def unband(lane: Lane, value: int, target: View) -> None:
    """``unband(x)``: zeros, and the rows of x each one further to the right."""
    f, arg = lane.f, lane.body[value].args[0]
    lead = len(lane.axes(value))
    n = lane.dims(arg)[len(lane.axes(arg)) + 1]
    with f.fence():
        fill(f, target, lambda _, vec: f.number(0.0, vec[1] if vec else 0))
    strides = list(target.strides)
    strides[lead] += strides[lead + 1]
    dims = (*target.dims[: lead + 1], n, *target.dims[lead + 2 :])
    band = View(target.buffer, target.base, tuple(strides), dims)
    with f.fence():
        fill(f, band, lambda index, vec: f.cast(lane.at(arg, *lane.lined_up(arg, value, index, vec)), "f"))


def check(lane: Lane, value: int) -> None:
    """Raises UnsupportedError for forms of an operation that have no code here."""
    instr = lane.body[value]
    if instr.op == "solve_triangular" and (not instr.attr("lower") or not instr.attr("unit")):
        raise UnsupportedError("solve_triangular of a matrix that is not unit lower triangular")
