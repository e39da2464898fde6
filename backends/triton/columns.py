"""Which dim of a kernel can be divided among programs: one that no operation of it mixes.

The places (a value and one of its dims) that go together are found by union; a class is lost if an operation sums over
it, scans along it, moves or joins its entries. The state of a linear memory has such a class: the columns of what it
stores, since only the keys are contracted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from nldsl.backends.triton.job import Job
from nldsl.backends.triton.lower import Place
from nldsl.dims import Dim
from nldsl.ir.ops import POINTWISE, split_spec
from nldsl.ir.types import TIME, Type


def columns(job: Job, roots: Iterable[int], stored: Iterable[int], least: int) -> frozenset[Place]:
    """The places of the largest class with more than ``least`` entries that a carried value has, or an output: empty
    if there is none. ``roots`` are what the kernel computes, ``stored`` what it finds in memory."""
    finder = _Finder(job)
    seen = _seen(finder, roots, stored)
    return finder.best(seen, least)


def walks(job: Job, roots: Sequence[int], stored: Collection[int], least: int, step: bool) -> list[frozenset[Place]]:
    """The classes of places of one dim with more than ``least`` entries that a program can take some columns at a time
    of, sums over it included: the largest tiles first. ``step``: carried values lie alike before and after."""
    finder = _Finder(job, sums=True)
    again = set(roots)
    seen = _seen(finder, roots, set(stored) - again, step)
    lost = {finder.root(p) for p in finder.lost}
    classes: dict[Place, set[Place]] = {}
    for place in list(finder.parent):
        if place[0] in seen:
            classes.setdefault(finder.root(place), set()).add(place)
    found = []
    for root, places in classes.items():
        sizes = {finder.sizes(v)[d] for v, d in places}
        size = next(iter(sizes))
        once = len({v for v, _ in places}) == len(places)
        if root not in lost and len(sizes) == 1 and isinstance(size, int) and size > least and once:
            found.append((sum(_entries(finder, v) for v, _ in places), min(places), frozenset(places)))
    return [places for _, _, places in sorted(found, key=lambda item: (-item[0], item[1]))]


def _entries(finder: _Finder, value: int) -> int:
    total = 1
    for size in finder.sizes(value):
        total *= size if isinstance(size, int) else 64
    return total


def _seen(finder: _Finder, roots: Iterable[int], stored: Iterable[int], carried: bool = True) -> set[int]:
    """What a kernel needs for ``roots``; the finder knows how their dims correspond."""
    stored, seen = set(stored), set[int]()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value not in stored and finder.job.body[value].args:
            finder.instruction(value)
            stack.extend(finder.job.body[value].args)
    if carried:
        finder.carried(seen)
    return seen


class Relations:
    """How the dims of values correspond, operation by operation; each is looked at once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._finder = _Finder(job)
        self._known: dict[int, _Relation] = {}

    def names(self, value: int) -> list[str]:
        """The dims of a tile: mapped axes that are no lanes by name, then logical dims counted from the end."""
        return self._finder.names(value)

    def axes(self, value: int) -> tuple[str, ...]:
        """The mapped axes among them."""
        return self._finder.axes(self.job.body[value].type)

    def sizes(self, value: int) -> list[Dim | None]:
        """Their sizes; None for ticks as a mapped axis."""
        return self._finder.sizes(value)

    def of(self, value: int) -> _Relation:
        """Which dims of the operands a dim of a value is made of."""
        if value not in self._known:
            finder = _Finder(self.job)
            finder.instruction(value)
            lost = frozenset(finder.root(p) for p in finder.lost)
            self._known[value] = _Relation({p: finder.root(p) for p in list(finder.parent)}, lost)
        return self._known[value]

    def result_columns(self, roots: Sequence[int], stored: Collection[int], least: int) -> frozenset[Place]:
        """The places to divide so that a program computes some columns of all these results: those of their widest dim
        for which that is possible. What a result needs with all entries (keys, for the Gram matrix) is not among them.
        """
        first, *rest = roots
        for size, dim in self._wide(first, least):
            starts = [(first, dim)]
            for other in rest:
                starts += [(other, d) for s, d in self._wide(other, least) if s == size][:1]
            if len(starts) == len(roots):
                found = self._downward(starts, stored)
                if found:
                    return found
        return frozenset()

    def _wide(self, value: int, least: int) -> list[tuple[int, int]]:
        sizes = [(size, d) for d, size in enumerate(self.sizes(value)) if isinstance(size, int) and size > least]
        return sorted(sizes, key=lambda pair: (-pair[0], pair[1]))

    def _downward(self, starts: Iterable[Place], stored: Collection[int]) -> frozenset[Place]:
        """Columns of results as columns of what they are made of; empty where an operation needs all of them."""
        need: dict[int, frozenset[int]] = {}
        stack = [(value, frozenset({dim}), True) for value, dim in starts]
        while stack:
            value, dims, is_root = stack.pop()
            if value in need:
                if need[value] != dims:
                    return frozenset()
                continue
            need[value] = dims
            instr = self.job.body[value]
            if not instr.args or (value in stored and not is_root):
                continue
            relation = self.of(value)
            roots = {relation.root((value, d)) for d in dims}
            others = {relation.root((value, d)) for d in range(len(self.sizes(value))) if d not in dims}
            if roots & (relation.lost | others):
                return frozenset()
            for arg in dict.fromkeys(instr.args):
                every = range(len(self.sizes(arg)))
                own = frozenset(d for d in every if (arg, d) in relation.roots and relation.roots[arg, d] in roots)
                if own:
                    stack.append((arg, own, False))
        return frozenset((value, d) for value, dims in need.items() for d in dims)


@dataclass(frozen=True)
class _Relation:
    """Places that belong together have the same root; ``lost`` are roots of places whose entries an operation mixes."""

    roots: dict[Place, Place]
    lost: frozenset[Place]

    def root(self, place: Place) -> Place:
        return self.roots.get(place, place)


class _Finder:
    """``sums``: whether a dim may be summed over, as where one program goes through all of its columns."""

    def __init__(self, job: Job, sums: bool = False) -> None:
        self.job, self.sums = job, sums
        self.lanes = frozenset(job.lanes)
        self.parent: dict[Place, Place] = {}
        self.lost: set[Place] = set()

    # -- places

    def axes(self, type: Type) -> tuple[str, ...]:
        return tuple(a for a in type.axes if a not in self.lanes)

    def sizes(self, value: int) -> list[Dim | None]:
        type = self.job.body[value].type
        return [*(None if a == TIME else self.job.axis_size(a) for a in self.axes(type)), *type.shape]

    def lead(self, value: int) -> int:
        return len(self.axes(self.job.body[value].type))

    def root(self, place: Place) -> Place:
        while self.parent.setdefault(place, place) != place:
            place = self.parent[place]
        return place

    def same(self, one: Place, two: Place) -> None:
        a, b = self.root(one), self.root(two)
        self.parent[a] = b

    def lose(self, value: int, dims: Iterable[int] | None = None) -> None:
        every = range(len(self.sizes(value))) if dims is None else dims
        self.lost |= {(value, d) for d in every}

    # -- operations

    def instruction(self, value: int) -> None:
        instr = self.job.body[value]
        op, args = instr.op, instr.args
        if op in POINTWISE or op in ("when", "stop_grad", "broadcast"):
            for arg in args:
                self.stretched(arg, value)
        elif op == "einsum":
            self.einsum(value)
        elif op in ("collect", "spread", "axis_sum", "lane"):
            self.axis(value)
        elif op == "reshape":
            self.reshape(value)
        elif op in ("slice", "pad", "concat", "cumsum", "sum", "max"):
            self.along(value)
        elif op in ("unfold", "band", "unband"):
            lead, own = self.lead(value), self.lead(args[0])
            self.rest(args[0], value, {own} if op == "unfold" else {own, own + 1}, {lead, lead + 1})
        elif op == "cumprod":
            self.rest(args[0], value, {self.lead(args[0])}, {self.lead(value)})
        elif op in ("solve", "solve_triangular"):
            first = self.lead(args[0])
            self.lose(args[0], [first, first + 1])
            out = self.axes(instr.type)
            for d, name in enumerate(self.axes(self.job.body[args[0]].type)):
                self.same((args[0], d), (value, out.index(name)))
            self.rest(args[1], value, {self.lead(args[1])}, {self.lead(value)})
        elif op == "linear_scan":
            self.scan(value)
        elif op == "decay_gram" and self.sums:
            self.gram(value)
        elif op == "decay_gram_grad":
            self.gram_grad(value)
        elif op == "segprod" and not instr.attr("matrix"):
            lead = self.lead(value)
            self.rest(args[0], value, {self.lead(args[0])}, {lead, lead + 1})
        else:
            self.lose(value)
            for arg in args:
                self.lose(arg)

    def scan(self, value: int) -> None:
        """A recurrence over the ticks, entry by entry: factors may have fewer dims than what is added."""
        lead, total = self.lead(value), len(self.sizes(value))
        self.lose(value, [lead])
        for arg in self.job.body[value].args:
            own, sizes = self.lead(arg), self.sizes(arg)
            self.lose(arg, [own])
            self.shared_axes(arg, value)
            for d in range(own + 1, len(sizes)):
                if sizes[d] != 1:
                    self.same((arg, d), (value, total - len(sizes) + d))

    def gram(self, value: int) -> None:
        """A table of ticks: what its three matrices have side by side is summed over."""
        args = self.job.body[value].args
        lead = self.lead(value)
        self.lose(value, [lead, lead + 1])
        for arg in args:
            own = self.lead(arg)
            self.lose(arg, [own])
            self.same((arg, own + 1), (args[0], self.lead(args[0]) + 1))
            self.shared_axes(arg, value)

    def gram_grad(self, value: int) -> None:
        """The cotangents of three matrices of one shape, column by column, from that of a table of ticks."""
        args = self.job.body[value].args
        first, lead = self.lead(args[0]), self.lead(value)
        self.lose(args[0], [first, first + 1])
        self.lose(value, [lead, lead + 1])
        for arg in args[1:]:
            self.lose(arg, [self.lead(arg)])
            self.same((arg, self.lead(arg) + 1), (value, lead + 2))
            self.shared_axes(arg, value)
        self.shared_axes(args[0], value)

    def shared_axes(self, arg: int, value: int) -> None:
        out = self.axes(self.job.body[value].type)
        for d, name in enumerate(self.axes(self.job.body[arg].type)):
            self.same((arg, d), (value, out.index(name)))

    def names(self, value: int) -> list[str]:
        """Mapped axes, then logical dims counted from the end."""
        type = self.job.body[value].type
        rank = len(type.shape)
        return [*self.axes(type), *(f"dim {d - rank}" for d in range(rank))]

    def stretched(self, arg: int, value: int) -> None:
        target, sizes = self.names(value), self.sizes(arg)
        for d, name in enumerate(self.names(arg)):
            if sizes[d] != 1:
                self.same((arg, d), (value, target.index(name)))

    def einsum(self, value: int) -> None:
        instr = self.job.body[value]
        inputs, output = split_spec(instr.attr("spec"))
        target = [*self.axes(instr.type), *output]
        first: dict[str, Place] = {x: (value, d) for d, x in enumerate(target)}
        for arg, text in zip(instr.args, inputs, strict=True):
            labels = [*self.axes(self.job.body[arg].type), *text]
            for d, label in enumerate(labels):
                if (label not in target and not self.sums) or labels.count(label) > 1:
                    self.lose(arg, [d])
                self.same((arg, d), first.setdefault(label, (arg, d)))

    def axis(self, value: int) -> None:
        instr = self.job.body[value]
        (arg,), name = instr.args, instr.attr("axis")
        own, out = self.axes(self.job.body[arg].type), self.axes(instr.type)
        rank = len(self.job.body[arg].type.shape)
        labels = [*own, *(f"dim {d}" for d in range(rank))]
        target = [*out, *(f"dim {d}" for d in range(rank))]
        if instr.op == "collect":
            target = [*out, name, *(f"dim {d}" for d in range(rank))]
        elif instr.op == "spread":
            labels = [*own, name if name not in own else "gone", *(f"dim {d}" for d in range(1, rank))]
            target = [*out, *(f"dim {d}" for d in range(1, rank))]
        for d, label in enumerate(labels):
            if label in target:
                self.same((arg, d), (value, target.index(label)))
            else:
                self.lose(arg, [d])
        if name in own and instr.op == "spread":
            self.lose(value, [target.index(name)])

    def reshape(self, value: int) -> None:
        (arg,) = self.job.body[value].args
        lead, own, out = self.lead(arg), self.job.body[arg].type.shape, self.job.body[value].type.shape
        for d in range(lead):
            self.same((arg, d), (value, d))
        kept = set()
        for d, size in enumerate(own):
            place = _kept(own, out, d)
            if place is None:
                if size != 1:
                    self.lose(arg, [lead + d])
            else:
                kept.add(place)
                self.same((arg, lead + d), (value, lead + place))
        self.lose(value, [lead + d for d, size in enumerate(out) if d not in kept and size != 1])

    def along(self, value: int) -> None:
        instr = self.job.body[value]
        for arg in instr.args:
            lead = self.lead(arg)
            if instr.op in ("sum", "max"):
                gone = {lead + d for d in instr.attr("dims")}
                self.rest(arg, value, gone, set(), keep=self.sums and instr.op == "sum")
            else:
                self.rest(arg, value, {lead + instr.attr("dim")}, {self.lead(value) + instr.attr("dim")})

    def rest(self, arg: int, value: int, gone: set[int], new: set[int], keep: bool = False) -> None:
        """All dims but these correspond; those that are gone are lost, unless they are only summed over (``keep``)."""
        if not keep:
            self.lose(arg, gone)
        self.lose(value, new)
        own, out = self.axes(self.job.body[arg].type), self.axes(self.job.body[value].type)
        for d, name in enumerate(own):
            if d not in gone:
                self.same((arg, d), (value, out.index(name)))
        left = [d for d in range(len(own), len(self.sizes(arg))) if d not in gone]
        target = [d for d in range(len(out), len(self.sizes(value))) if d not in new]
        for d, place in zip(left, target, strict=True):
            self.same((arg, d), (value, place))

    def carried(self, seen: set[int]) -> None:
        """A carried value lies as its leaf does, before and after; an anchor lies as its state."""
        leaves: dict[str, list[int]] = {}
        for value, (state, _) in self.job.carried.items():
            leaves.setdefault(state, []).append(value)
        for (state, _), value in self.job.carry:
            leaves.setdefault(state, []).append(value)
        for group in leaves.values():
            whole = [v for v in group if v in seen]
            first = max(whole, key=lambda v: len(self.sizes(v)), default=None)
            for value in whole:
                if first is not None and value != first:
                    self.stretched(value, first)

    def best(self, seen: set[int], least: int) -> frozenset[Place]:
        lost = {self.root(p) for p in self.lost}
        classes: dict[Place, set[Place]] = {}
        for place in list(self.parent):
            classes.setdefault(self.root(place), set()).add(place)
        held = {v for v in self.job.carried if v in seen} | {v for _, v in self.job.outputs if v in seen}
        found: list[tuple[int, int, set[Place]]] = []
        for root, places in classes.items():
            sizes = {self.sizes(v)[d] for v, d in places}
            size = next(iter(sizes))
            if root in lost or len(sizes) != 1 or not isinstance(size, int) or size <= least:
                continue
            count = sum(v in held for v, _ in places)
            if count:
                found.append((count, size, places))
        if not found:
            return frozenset()
        return frozenset(max(found, key=lambda item: item[:2])[2])


def _kept(own: tuple[Dim, ...], out: tuple[Dim, ...], dim: int) -> int | None:
    """Where a dim is after a reshape that leaves it as it is."""
    before: Dim = 1
    for size in own[:dim]:
        before = before * size
    total: Dim = 1
    for place, size in enumerate(out):
        if total == before and size == own[dim] and size != 1:
            return place
        total = total * size
    return None
