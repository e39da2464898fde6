"""Loop nests over the entries of a tensor: pointwise work, copies, transposed copies, sums of a vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from nldsl.backends.mlir.lane import Index, Lane, Vec
from nldsl.backends.mlir.text import ATTRIBUTES, MEMREF, Function, Ix, Val, at
from nldsl.backends.mlir.views import View, load, pieces, store

UNROLL = 4  # vectors of one row that are worked on together
LONG = 24  # lines for one vector from which on it is alone: enough for the CPU to overlap, and less to compile


def together(lines: int) -> int:
    """How many vectors are worked on at once, by the lines of code for one."""
    return 1 if lines >= LONG else 2 if 2 * lines >= LONG else UNROLL


def runs(f: Function, size: int, lanes: int, unroll: int = UNROLL) -> Iterator[list[tuple[Ix, int]]]:
    """Blocks of (position, width) that cover ``size`` entries; many equal blocks are one loop."""
    for start, count, width in pieces(size, lanes):
        step = max(width, 1)
        block = min(unroll, count)
        loops, rest = divmod(count, block)
        if loops > 1:
            with f.loop(f.index(start), f.index(start + loops * block * step), block * step, "j") as name:
                yield [(at(name) + n * step, width) for n in range(block)]
        elif loops:
            yield [(Ix(start + n * step), width) for n in range(block)]
        if rest:
            first = start + loops * block * step
            yield [(Ix(first + n * step), width) for n in range(rest)]


@contextmanager
def rows(f: Function, dims: Sequence[int], skip: Sequence[int]) -> Iterator[list[Ix]]:
    """Loops over all dimensions but ``skip``, whose positions are 0."""
    with ExitStack() as stack:
        index = []
        for dim, size in enumerate(dims):
            if dim in skip or size == 1:
                index.append(Ix())
            else:
                index.append(at(stack.enter_context(f.loop(f.index(0), f.index(size), 1))))
        yield index


def inner_dim(dims: Sequence[int]) -> int | None:
    """The dimension that vectors run along: the last one unless it is short and another is not."""
    wide = [d for d, size in enumerate(dims) if size > 1]
    if not wide:
        return None
    last = wide[-1]
    longest = max(wide, key=lambda d: dims[d])
    return longest if dims[last] < 4 and dims[longest] >= 8 else last


def unit_dim(view: View) -> int | None:
    """The dimension whose entries lie next to each other."""
    found = [d for d in range(len(view.dims)) if view.step(d) == 1]
    return found[-1] if found else inner_dim(view.dims)


def fill(f: Function, target: View, make: Callable[[Index, Vec | None], Val], unroll: int = UNROLL) -> None:
    """Write every entry of ``target``, ``unroll`` vectors at once."""
    dim = unit_dim(target)
    with rows(f, target.dims, () if dim is None else (dim,)) as index:
        if dim is None:
            store(f, target, index, make(tuple(index), None), None)
            return
        for block in runs(f, target.dims[dim], f.lanes, unroll):
            values = []
            for position, width in block:
                place = (*index[:dim], position, *index[dim + 1 :])
                vec = (dim, width) if width else None
                values.append((place, make(place, vec), vec))
            for place, value, vec in values:
                store(f, target, place, value, vec)


def copy(lane: Lane, source: View, target: View) -> None:
    """Write a tensor as another one of the same shape."""
    fill(lane.f, target, lambda index, vec: load(lane.f, source, index, vec))


def horizontal(f: Function, value: Val, how: str = "add") -> Val:
    """All entries of a vector in one."""
    if not value.width:
        return value
    reassociate = " fastmath<reassoc>" if how == "add" else ""
    text = f"vector.reduction <{how}>, {value.name}{reassociate} : {f.type('f', value.width)} into {f.real}"
    return Val(f.op(text))


def transposed(lane: Lane, source: View, target: View, down: int, across: int) -> None:
    """A copy whose dimension ``across`` lies in one piece, from a source where ``down`` does: square blocks of vectors,
    by a function that all such copies call."""
    f = lane.f
    n = f.lanes
    while n > source.dims[down] or n > source.dims[across]:
        n //= 2
    if n < 4 or source.element:
        copy(lane, source, target)
        return
    full_down, full_across = source.dims[down] // n * n, source.dims[across] // n * n
    name = f"nl_transposed_{f.real}_{n}"
    f.helpers.setdefault(name, _transposing(name, f, n))
    with rows(f, source.dims, (down, across)) as index:
        given: list[str] = []
        for view, dim in ((source, across), (target, down)):
            f.touched(view.buffer)
            given += [view.buffer, f.position(view.place(index)), f.index(view.step(dim))]
        given += [f.index(full_down), f.index(full_across)]
        tensor = f"{MEMREF[f.real]}, index, index"
        f.line(f"func.call @{name}({', '.join(given)}) : ({tensor}, {tensor}, index, index) -> ()")
        for first, size, dim in ((full_down, source.dims[down], down), (full_across, source.dims[across], across)):
            if first < size:
                other = across if dim == down else down
                with (
                    f.loop(f.index(first), f.index(size), 1, "i") as i,
                    f.loop(f.index(0), f.index(source.dims[other]), 1, "j") as j,
                ):
                    block = list(index)
                    block[dim], block[other] = at(i), at(j)
                    store(f, target, block, load(f, source, block, None), None)


def _transposing(name: str, like: Function, n: int) -> str:
    """A function that transposes a matrix of %m by %n numbers in blocks of n rows: %n rows of the source from %a on, %x
    apart, are the columns of the target, whose rows begin at %b and are %y apart. A block is transposed by log2(n)
    rounds in which rows i and i + n/2 are interleaved."""
    f = Function(name, like.real, n)
    memref, shape = MEMREF[f.real], f.type("f", n)
    first = f.index(0)
    with f.loop(first, "%m", n, "i") as i, f.loop(first, "%n", n, "j") as j:
        across = f.op(f"arith.muli {j}, %x : index")
        place = f.op(f"arith.addi {f.op(f'arith.addi %a, {i} : index')}, {across} : index")
        vectors = []
        for r in range(n):
            vectors.append(Val(f.op(f"vector.load %source[{place}] : {memref}, {shape}"), "f", n))
            place = f.op(f"arith.addi {place}, %x : index") if r < n - 1 else place
        down = f.op(f"arith.muli {i}, %y : index")
        place = f.op(f"arith.addi {f.op(f'arith.addi %b, {j} : index')}, {down} : index")
        for r, value in enumerate(_interleaved(f, vectors)):
            f.line(f"vector.store {value.name}, %target[{place}] : {memref}, {shape}")
            place = f.op(f"arith.addi {place}, %y : index") if r < n - 1 else place
    tensors = (f"%{t}: {memref}, %{a}: index, %{x}: index" for t, a, x in (("source", "a", "x"), ("target", "b", "y")))
    head = f"func.func private @{name}({', '.join(tensors)}, %m: index, %n: index) attributes {{{ATTRIBUTES}}} {{"
    constants = [f"  {constant} = {text}" for text, constant in f.constants.items()]
    return "\n".join([head, *constants, *f.lines, "  return", "}"])


def _interleaved(f: Function, vectors: list[Val]) -> list[Val]:
    n = len(vectors)
    shape = f"vector<{n}x{f.real}>"
    low = [k for pair in range(n // 2) for k in (pair, n + pair)]
    high = [k + n // 2 for k in low]
    rounds = n.bit_length() - 1
    for _ in range(rounds):
        found = []
        for r in range(n // 2):
            a, b = vectors[r], vectors[r + n // 2]
            found += [
                Val(f.op(f"vector.shuffle {a.name}, {b.name} {order} : {shape}, {shape}"), "f", n)
                for order in (low, high)
            ]
        vectors = found
    return vectors
