"""How tensors of one lane lie in memory: a buffer, where they begin, a stride for each dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from nldsl.backends.mlir.function import FallbackWarning as FallbackWarning
from nldsl.backends.mlir.function import UnsupportedError as UnsupportedError
from nldsl.backends.mlir.text import MEMREF, Function, Ix, Val


@dataclass(frozen=True)
class View:
    """``buffer`` is an SSA memref of one dimension, ``base`` where the tensor begins in it, in elements."""

    buffer: str
    base: Ix
    strides: tuple[int, ...]
    dims: tuple[int, ...]
    element: str = ""  # "" is the real type of the function; else i64

    def place(self, index: Sequence[Ix]) -> Ix:
        total = self.base
        for position, stride, size in zip(index, self.strides, self.dims, strict=True):
            if size > 1 and stride:
                total = total + position * stride
        return total

    def step(self, dim: int) -> int:
        """How far the next entry along a dimension is."""
        return 0 if self.dims[dim] == 1 else self.strides[dim]

    def permuted(self, order: Sequence[int]) -> View:
        return replace(self, strides=tuple(self.strides[d] for d in order), dims=tuple(self.dims[d] for d in order))

    def sliced(self, dim: int, start: int, size: int) -> View:
        dims = (*self.dims[:dim], size, *self.dims[dim + 1 :])
        return replace(self, base=self.base + start * self.strides[dim], dims=dims)

    def fixed(self, dim: int, position: int) -> View:
        """Without one dimension."""
        strides = (*self.strides[:dim], *self.strides[dim + 1 :])
        dims = (*self.dims[:dim], *self.dims[dim + 1 :])
        return View(self.buffer, self.base + position * self.strides[dim], strides, dims, self.element)

    def reshaped(self, dims: Sequence[int]) -> View | None:
        """The same entries in another shape, where no copy is needed."""
        groups = regrouped(self.dims, dims)
        strides: list[int] = []
        for old, new in groups:
            own = [(self.dims[d], self.strides[d]) for d in old if self.dims[d] != 1]
            for (_, outer), (size, inner) in pairwise(own):
                if outer != size * inner:
                    return None
            step = own[-1][1] if own else 1
            part: list[int] = []
            for d in reversed(new):
                part.append(step)
                step *= dims[d]
            strides += reversed(part)
        return replace(self, strides=tuple(strides), dims=tuple(dims))


def regrouped(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Dimensions of two shapes in smallest groups with equal products, in order."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right, a, b = [], [], 1, 1
        if i < len(old):
            left, a, i = [i], old[i], i + 1
        if j < len(new):
            right, b, j = [j], new[j], j + 1
        while a != b:
            if a < b:
                left.append(i)
                a, i = a * old[i], i + 1
            else:
                right.append(j)
                b, j = b * new[j], j + 1
        while i < len(old) and old[i] == 1 and j >= len(new):
            left.append(i)
            i += 1
        while j < len(new) and new[j] == 1 and i >= len(old):
            right.append(j)
            j += 1
        groups.append((left, right))
    return groups


def row_major(dims: Sequence[int], last: int | None = None) -> tuple[int, ...]:
    """Strides of a tensor in one piece; ``last`` is the dimension that lies next to each other, else the last one."""
    order = [d for d in range(len(dims)) if d != last] + ([last] if last is not None else [])
    strides = [0] * len(dims)
    step = 1
    for d in reversed(order):
        strides[d] = step
        step *= dims[d]
    return tuple(strides)


def entries(dims: Sequence[int]) -> int:
    """How many entries a shape has."""
    total = 1
    for size in dims:
        total *= size
    return total


def load(f: Function, view: View, index: Sequence[Ix], vec: tuple[int, int] | None) -> Val:
    """One entry, or ``vec = (dim, width)`` entries along a dimension. A scalar where they are all the same."""
    memref, element = MEMREF[view.element or f.real], view.element or f.real
    place = view.place(index)
    f.touched(view.buffer)
    step = view.step(vec[0]) if vec else 0
    if vec is None or step == 0:
        return _load_scalar(f, view, place)
    if step != 1 or view.element:
        return f.once(("gather", view, tuple(index), vec), lambda: _gather(f, view, place, step, vec[1]))

    def make() -> Val:
        name = f.op(f"vector.load {view.buffer}[{f.position(place)}] : {memref}, vector<{vec[1]}x{element}>")
        return Val(name, "f", vec[1])

    return f.once(("load", view.buffer, place, vec[1]), make)


def _load_scalar(f: Function, view: View, place: Ix) -> Val:
    def make() -> Val:
        name = f.op(f"memref.load {view.buffer}[{f.position(place)}] : {MEMREF[view.element or f.real]}")
        if not view.element:
            return Val(name)
        return Val(f.op(f"arith.trunci {name} : i64 to i32"), "i")

    return f.once(("load", view.buffer, place, 0), make)


def _gather(f: Function, view: View, place: Ix, step: int, width: int) -> Val:
    return f.join([_load_scalar(f, view, place + n * step) for n in range(width)])


def store(f: Function, view: View, index: Sequence[Ix], value: Val, vec: tuple[int, int] | None) -> None:
    """Write one entry, or ``width`` entries along a dimension."""
    memref = MEMREF[f.real]
    f.touched(view.buffer)
    value = f.cast(value, "f")
    place = view.place(index)
    if vec is None:
        f.line(f"memref.store {value.name}, {view.buffer}[{f.position(place)}] : {memref}")
        return
    value = f.spread(value, vec[1])
    step = view.step(vec[0])
    if step == 1:
        shape = f"vector<{vec[1]}x{f.real}>"
        f.line(f"vector.store {value.name}, {view.buffer}[{f.position(place)}] : {memref}, {shape}")
        return
    for n in range(vec[1]):
        part = f.op(f"vector.extract {value.name}[{n}] : {f.real} from vector<{vec[1]}x{f.real}>")
        f.line(f"memref.store {part}, {view.buffer}[{f.position(place + n * step)}] : {memref}")


def pieces(size: int, lanes: int) -> list[tuple[int, int, int]]:
    """``size`` entries as (start, how many vectors, width), full vectors first; width 0 stands for scalars."""
    found = []
    start, width = 0, lanes
    while start < size:
        while width > size - start:
            width //= 2
        count = (size - start) // width
        found.append((start, count, width if width > 1 else 0))
        start += count * width
    return found
