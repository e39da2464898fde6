"""One tick of a job as operations of a kernel that goes through the ticks itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nldsl.backends.triton import tick_memory as memory
from nldsl.backends.triton.builder import Builder
from nldsl.backends.triton.job import Job, Key, Source
from nldsl.backends.triton.lower import Lowering, Place
from nldsl.backends.triton.ops import WORD
from nldsl.backends.triton.tiles import Extent, Tile, UnsupportedError, Value, column_extent
from nldsl.backends.triton.views import scalar, tile_of
from nldsl.dims import Dim
from nldsl.ir.demand import reachable
from nldsl.ir.ops import POINTWISE
from nldsl.ir.program import Instr
from nldsl.ir.types import TIME, Clock

HELD = 1 << 12  # entries of a tensor that stays in registers over all ticks; what is larger is read at each tick
CHEAP = POINTWISE | frozenset("reshape broadcast stop_grad fixed when const iota clock state anchor".split())


class TickLowering(Lowering):
    """A value that only a slow clock needs is computed in a branch, where that is dear."""

    def __call__(self, value: int) -> Value:
        stack = [value]
        while stack:
            at = stack[-1]
            if at in self.known:
                stack.pop()
                continue
            instr = self.body[at]
            args = instr.args[1:] if self._branches(at) else instr.args
            missing = [a for a in args if a not in self.known]
            if missing:
                stack.extend(reversed(missing))
                continue
            self.known[at] = self.compute(at, instr)
        return self.known[value]

    def _branches(self, value: int) -> bool:
        """Whether the new value of a choice is worth a branch: something dear is not computed yet."""
        instr = self.body[value]
        if instr.op != "when" or instr.args[0] in self.known:
            return False
        stack, seen = [instr.args[0]], set[int]()
        while stack:
            at = stack.pop()
            if at in seen or at in self.known:
                continue
            seen.add(at)
            if self.body[at].op not in CHEAP:
                return True
            stack.extend(self.body[at].args)
        return False

    def compute(self, value: int, instr: Instr) -> Value:
        return self._branch(value, instr) if self._branches(value) else super().compute(value, instr)

    def _branch(self, value: int, instr: Instr) -> Value:
        """A choice by the clock at this tick."""
        b, dims = self.b, self.dims(value)
        axes, rank = self.axes(instr.type), len(instr.type.shape)
        fires = self.fires(instr.attr("clock"))
        name = b.new_name(self.hint(value))
        old = self._stretched(instr.args[1], axes, rank, dims)
        b.effect("view", old.name, name)
        known = dict(self.known)
        b.open()
        self(instr.args[0])
        new = self._stretched(instr.args[0], axes, rank, dims)
        b.effect("view", new.name, name)
        b.close(f"if {fires}:")
        self.known.clear()
        self.known.update(known)
        zero = [d for d in range(len(dims)) if old.clean(d) and new.clean(d)]
        return Tile(name, dims, "real", frozenset(zero))

    def _stretched(self, value: int, axes: tuple[str, ...], rank: int, dims: tuple[Extent, ...]) -> Tile:
        tile = self.b.real(tile_of(self.b, self.aligned(value, axes, rank)))
        if tile.dims or dims:
            return self.b.broadcast(tile, dims)
        return Tile(f"tl.full((), 0.0, REAL) + {tile.name}")  # a number of Python has no type to carry


@dataclass
class Round:
    """``variables`` are the names of the carried values; ``before`` gives what a forward run held before the tick."""

    b: Builder
    job: Job
    lanes: memory.Lanes
    split: frozenset[Place] = frozenset()
    columns: int = 0
    before: Callable[[Key, tuple[Extent, ...]], Tile] | None = None
    variables: dict[Key, str] = field(default_factory=dict)
    resets: dict[str, str] = field(default_factory=dict)
    tick: str = "tick + t"

    def __post_init__(self) -> None:
        lanes = frozenset({*self.lanes.index, TIME})
        self.sizes: dict[str, Dim] = {n: size for n, size in self.job.axes if n not in lanes and size is not None}
        self.lowering = TickLowering(
            self.b,
            self.job.body,
            lanes,
            self.sizes,
            self.leaf,
            split=self.split,
            columns=self.columns,
            fires=self.fires,
        )

    # -- leaves

    def leaf(self, value: int, instr: Instr) -> Value:
        job, dims = self.job, self.lowering.dims(value)
        if value in job.sources:
            return self._source(job.sources[value], dims)
        if value in job.carried:
            return Tile(self.variables[job.carried[value]], dims, "real", frozenset(range(len(dims))))
        if value in job.boundaries:
            assert self.before is not None
            return self.before(job.boundaries[value], dims)
        if value in job.numbers:
            return Tile(job.numbers[value])
        if instr.op == "clock":
            scale, period = instr.attr("scale"), instr.attr("period")
            text = f"({self.tick} + 1).to(tl.int32)"
            text = f"({text} // {scale})" if scale != 1 else text
            text = f"(({text} - 1) % {period} + 1)" if period else text
            return self.b.tile("index", text, (), "clock", "int")
        raise UnsupportedError(f"`{instr.op}` has no form in a kernel")

    def _source(self, source: Source, dims: tuple[Extent, ...]) -> Tile:
        """A stream is read at its tick; what is the same at all ticks before the loop, if there is room for it."""
        same = TIME not in source.type.axes
        entries = math.prod(e.size for e in dims if isinstance(e.size, int))
        if not same or entries > HELD:
            return memory.load(self.b, self.lanes, source, dims)
        inner, self.b.block = self.b.block, self.b.top
        tile = memory.load(self.b, self.lanes, source, dims)
        self.b.block = inner
        return tile

    def fires(self, clock: object) -> str:
        """Whether a clock fires at this tick."""
        assert isinstance(clock, Clock)
        number = self.tick if clock.start else f"{self.tick} + 1"
        return f"({number}) % {clock.period} == 0"

    # -- values

    def whole(self, value: int) -> Tile:
        """The value with all its dims."""
        tile = self.b.real(tile_of(self.b, self.lowering(value)))
        dims = self.lowering.dims(value)
        return self.b.broadcast(tile, dims) if dims else tile

    def variable_dims(self, key: Key) -> tuple[Extent, ...]:
        """The dims of a carried value: where it is read, or where it is made."""
        type = self.job.variables[key].type
        value = next((v for v, k in self.job.carried.items() if k == key), None)
        if value is None:
            value = next((v for k, v in self.job.carry if k == key), None)
        axes = self.lowering.axes(type)
        sizes = [*(self.sizes[a] for a in axes), *type.shape]
        return tuple(self._extent(s, (value, d) in self.split) for d, s in enumerate(sizes))

    def _extent(self, size: Dim, divided: bool) -> Extent:
        return column_extent(size, self.columns) if divided else Extent(size)

    def begin(self, load: Callable[[Key, tuple[Extent, ...]], Tile]) -> None:
        """The carried values get their first ones."""
        for key in self.job.variables:
            dims = self.variable_dims(key)
            tile = load(key, dims)
            self.variables[key] = (self.b.broadcast(tile, dims) if dims else tile).name

    def outputs(self) -> None:
        """Write the streams of this tick."""
        late = {v for _, v in self.job.outputs if self.job.body[v].op == "when"}
        for source, value in sorted(self.job.outputs, key=lambda item: (item[1] in late, item[1])):
            axes = tuple(a for a in source.type.axes if not self.lanes.has(a))
            rank = len(source.type.shape)
            own = self.lowering.axes(self.job.body[value].type)
            split = {d - len(own) for v, d in self.split if v == value and d >= len(own)}
            dims = (
                *(Extent(self.sizes[a]) for a in axes),
                *(self._extent(s, n in split) for n, s in enumerate(source.type.shape)),
            )
            self.lowering(value)
            found = self.b.real(tile_of(self.b, self.lowering.aligned(value, axes, rank)))
            memory.store(self.b, self.lanes, source, self.b.broadcast(found, dims) if dims else found)

    def add_up(self, totals: Mapping[str, str]) -> None:
        """The sums over ticks take this one."""
        for source, value in self.job.sums:
            name = totals[source.name]
            self.b.effect("pointwise", f"{name} + {self.b.clean(self.whole(value)).name}", name)

    def advance(self) -> None:
        """The carried values take their new ones, all at once."""
        b, new = self.b, dict[Key, Tile]()
        choices = {v for _, v in self.job.carry if self.job.body[v].op == "when"}
        for key, value in sorted(self.job.carry, key=lambda item: (item[1] in choices, item[1])):
            if key in self.variables:
                new[key] = b.clean(self.whole(value))
        names = set(self.variables.values())
        changed = {key: tile.name for key, tile in new.items() if tile.name != self.variables[key]}
        for key, text in changed.items():
            if names & set(WORD.findall(text)):  # what another one changes
                changed[key] = b.new_name(f"{self.variables[key]}_new")
                b.effect("view", text, changed[key])
        for key, text in changed.items():
            typed = text.isidentifier() or self.variable_dims(key)
            b.effect("view", text if typed else f"tl.full((), 0.0, REAL) + {text}", self.variables[key])

    # -- clocks

    def take_anchors(self) -> None:
        """At the first tick of a period an anchor takes the value of its state."""
        for state, period in self.job.anchors:
            if (state, period) in self.variables:
                anchor, name = self.variables[state, period], self.variables[state, 0]
                self.b.effect("pointwise", f"tl.where({self._begins(period)}, {name}, {anchor})", anchor)

    def give_anchors(self) -> None:
        """There the cotangent of the anchor goes to the state."""
        for state, period in self.job.anchors:
            if (state, period) in self.variables:
                anchor, name = self.variables[state, period], self.variables[state, 0]
                due = self._begins(period)
                self.b.effect("pointwise", f"tl.where({due}, {name} + {anchor}, {name})", name)
                self.b.effect("pointwise", f"tl.where({due}, 0.0, {anchor})", anchor)

    def _begins(self, period: int) -> str:
        return self.b.define("index", f"({self.tick}) % {period} == 0", f"begins_{period}")

    def reset(self) -> None:
        """Where its clock fires a state, with its anchors, begins again."""
        for state, (clock, _) in self.job.resets.items():
            fires = self.b.define("index", self.fires(clock), "resets")
            for (name, _period), variable in self.variables.items():
                if name == state:
                    self.b.effect("pointwise", f"tl.where({fires}, {self.resets[state]}, {variable})", variable)

    def take_back(self) -> None:
        """There its cotangent is that of the initial value, and the state before has none."""
        for state, (clock, _) in self.job.resets.items():
            fires, total = self.b.define("index", self.fires(clock), "resets"), self.resets[state]
            for (name, _period), variable in self.variables.items():
                if name == state:
                    self.b.effect("pointwise", f"tl.where({fires}, {total} + {variable}, {total})", total)
                    self.b.effect("pointwise", f"tl.where({fires}, 0.0, {variable})", variable)


def kept_tile(tile: Tile) -> Tile:
    """A tile as a workspace takes it: one number is a scalar."""
    return Tile(scalar(tile)) if tile.dims and all(e.size == 1 for e in tile.dims) else tile


def without_outputs(job: Job, keys: tuple[Key, ...]) -> Job:
    """What is needed to run a job once more for the carried values ``keys``: those, and what they depend on."""
    needed = dict.fromkeys(keys)
    carry = dict(job.carry)
    while True:
        values = reachable(job.body, [carry[k] for k in needed if k in carry])
        more = {job.carried[v] for v in values if v in job.carried} | {(state, 0) for state, _ in needed}
        if more <= set(needed):
            break
        needed |= dict.fromkeys(k for k in job.variables if k in more)
    return Job(
        name=job.name,
        body=job.body,
        stages=tuple(s if v in values else None for v, s in enumerate(job.stages)),
        axes=job.axes,
        sources={v: s for v, s in job.sources.items() if v in values},
        carried={v: k for v, k in job.carried.items() if v in values},
        boundaries={},
        variables={k: s for k, s in job.variables.items() if k in needed},
        carry=tuple((k, v) for k, v in job.carry if k in needed),
        anchors=tuple(k for k in job.anchors if k in needed),
        resets={state: r for state, r in job.resets.items() if (state, 0) in needed},
        numbers=job.numbers,
    )
