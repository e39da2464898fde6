"""One kernel: the values of a stage, read from and written to memory."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from nldsl.backends.triton import memory
from nldsl.backends.triton.builder import Builder, shape
from nldsl.backends.triton.divide import Task
from nldsl.backends.triton.exact import exact_values
from nldsl.backends.triton.hints import hints
from nldsl.backends.triton.job import Job, Key, Source, final
from nldsl.backends.triton.lower import Lowering
from nldsl.backends.triton.names import mentions
from nldsl.backends.triton.ops import Op
from nldsl.backends.triton.plan import Plan
from nldsl.backends.triton.printer import INDENT
from nldsl.backends.triton.tiles import (
    COLUMN,
    PART,
    Extent,
    Tile,
    UnsupportedError,
    Value,
    column_extent,
    dim_text,
    more_blocks,
)
from nldsl.backends.triton.views import scalar, tile_of
from nldsl.backends.triton.workspaces import Slot, Workspaces
from nldsl.dims import Dim
from nldsl.ir.chunk import TICKS
from nldsl.ir.program import Instr
from nldsl.ir.stages import FINISH, PREPARE, STEP
from nldsl.ir.types import BATCH, TIME, Clock

STAGE_NAMES = {PREPARE: "prepare", STEP: "step", FINISH: "finish"}
# Tables of segments and sequences, as ``host_library.segment_tables`` gives them, and the ticks before the call.
FRAME = ("bounds", "since", "shared", "owner", "cuts", "tick")
CONSTANTS = ("BT", "LOG_BT", "BV", "BP", "REAL", "DOT", "PRECISION", "SOLVE")


@dataclass
class Kernel:
    """``frame`` says where segments and sequences are, ``arguments`` are tensors and ``workspaces`` slots, in the order
    of the signature. ``columns`` is the size of the dim that programs divide, if there is one, ``column_block`` how
    many a program takes; ``tiles``: the size of the dim that it goes through, so many at a time, and then ``parts`` is
    that of the dim which programs divide, ``part_block`` how many a program takes. ``doc`` is its head.
    ``peak``: the entries of tiles that live at once, by estimate."""

    name: str
    stage: int
    frame: tuple[str, ...]
    arguments: tuple[str, ...]
    workspaces: tuple[str, ...]
    columns: Dim | None
    lines: list[str]
    functions: dict[str, str]
    builder: Builder
    column_block: int = 1
    peak: int = 0
    tiles: int = 0
    parts: int = 0
    part_block: int = 1
    doc: list[str] = field(default_factory=list)

    @property
    def constants(self) -> tuple[str, ...]:
        """What is known when the kernel is compiled, of all that could be."""
        text = "\n".join(self.lines)
        return tuple(name for name in CONSTANTS if mentions(text, name))

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks of windows that it needs."""
        return tuple(more_blocks("\n".join(self.lines), 1))

    @property
    def source(self) -> str:
        pointers = [memory.pointer(a) for a in (*self.arguments, *self.workspaces)]
        frame = [name if name == "tick" else memory.pointer(name) for name in self.frame]
        names = [*frame, *pointers, *(f"{c}: tl.constexpr" for c in (*self.constants, *self.blocks))]
        head = f"def {self.name}({', '.join(names)}):"
        if len(head) > 110:
            head = f"def {self.name}(\n    " + ",\n    ".join(names) + ",\n):"
        return "\n".join(["@triton.jit", head, *(INDENT + line if line else "" for line in self.doc), *self.lines])


class KernelWriter:
    """Writes the kernel of one stage of a job, for segments that take ``ticks`` entries of a tile."""

    def __init__(
        self,
        job: Job,
        plan: Plan,
        stage: int,
        spaces: Workspaces,
        task: Task,
        ticks: int,
    ) -> None:
        self.job, self.plan, self.stage, self.spaces, self.task = job, plan, stage, spaces, task
        self.split = split = task.places
        self.b = Builder([memory.pointer(s.name) for s in job.sources.values()])
        self.b.blocks = {"BT": ticks, "BV": task.columns, "BP": task.width}
        lanes = job.lanes
        sizes = {name: size for name, size in job.axes if name not in lanes and name != TIME and size is not None}
        self.sizes = sizes | {TIME: TICKS}
        self.lanes = self._lanes(lanes)
        # values with divided columns, and those that a kernel needs with all of their entries
        axes, places = frozenset(lanes), split if stage == STEP or task.walk else type(split)()
        columns = task.columns
        self.names = names = hints(job)
        self.entire = Lowering(
            self.b,
            job.body,
            axes,
            self.sizes,
            self.leaf,
            self.given,
            places,
            columns,
            fires=self.fires,
            names=names,
            exact=exact_values(job) if stage == STEP else frozenset(),
        )
        self.lowering = self.active = self.entire
        if split and stage != STEP and not task.walk:
            self.divided = frozenset(value for value, _ in split)
            self.lowering = replace(
                self.entire, given=self.given_divided, split=split, known={}, functions=dict[str, str]()
            )
            self.active = self.lowering
        elif task.parts:
            self.divided = frozenset(value for value, _ in task.parts) | task.partial
            self.lowering = replace(
                self.entire,
                given=self.given_divided,
                parts=task.parts,
                width=task.width,
                known={},
                functions=dict[str, str](),
            )
            self.active = self.lowering
        self.variables: dict[Key, str] = {}

    # -- the frame

    def _lanes(self, lanes: tuple[str, ...]) -> memory.Lanes:
        b, index, size = self.b, dict[str, str](), {TIME: "TICKS"}
        for name, known in self.job.axes:
            if known is not None and name != TIME:
                if name in lanes and not isinstance(known, int):
                    raise UnsupportedError(f"the size {known} of the axis `{name}` is not known")
                size[name] = dim_text(known)
        others = [name for name in lanes if name != BATCH]
        if lanes != (*((BATCH,) if BATCH in lanes else ()), *others):
            raise UnsupportedError("batch is not the first axis")
        count = math.prod(int(size[name]) for name in others)
        place = "sequence" if self.stage == STEP else "n"
        if count == 1:
            b.top.ops.append(plain_op(place, "tl.program_id(0).to(tl.int64)"))
            index = dict.fromkeys(others, "0")
        else:
            b.top.ops.append(plain_op("row", "tl.program_id(0).to(tl.int64)"))
            b.top.ops.append(plain_op(place, f"row // {count}"))
            b.top.ops.append(plain_op("lane", f"row % {count}"))
            rest = "lane"
            for name in reversed(others[1:]):
                index[name] = b.define("index", f"{rest} % {size[name]}", name)
                rest = b.define("index", f"{rest} // {size[name]}", "rest")
            index[others[0]] = rest
        if BATCH in lanes:
            index[BATCH] = "sequence"
        if self.split and not self.task.walk:
            b.top.ops.append(plain_op(COLUMN, "tl.program_id(1) * BV"))
        if self.task.parts:
            b.top.ops.append(plain_op(PART, "tl.program_id(1) * BP"))
        b.taken |= {"row", "lane", "sequence", COLUMN, PART, *FRAME}
        return memory.Lanes(index, size, count, self.stage == STEP)

    def _segment(self) -> None:
        """Where the segment begins, and how long it is."""
        self.b.block.ops.append(plain_op("first", "tl.load(bounds_ptr + n)"))
        self.b.block.ops.append(plain_op("T", "(tl.load(bounds_ptr + n + 1) - first).to(tl.int32)"))

    def fires(self, clock: object) -> str:
        """Whether a clock fires at the last tick of the segment."""
        assert isinstance(clock, Clock)
        if clock.start:
            return f"(tick + {self.since} + T - 1) % {clock.period} == 0"
        return f"(tick + {self.since} + T) % {clock.period} == 0"

    @property
    def since(self) -> str:
        """The ticks of the sequence before the segment, in this call."""
        return memory.since(self.b)

    # -- leaves

    def leaf(self, value: int, instr: Instr) -> Value:
        job, b = self.job, self.b
        if value in job.sources:
            return memory.load(b, self.lanes, job.sources[value], self.active.dims(value))
        if value in job.carried:
            return self._carried(value, job.carried[value])
        if value in job.boundaries:
            begun = self.spaces.begun[job.boundaries[value]]
            return memory.fetch(b, self.lanes, begun.name, self.active.dims(value), begun.zero, begun.narrow)
        if value in job.numbers:
            return Tile(job.numbers[value])
        if instr.op == "clock":
            return self._clock(instr)
        raise UnsupportedError(f"`{instr.op}` has no form in a kernel")

    def _carried(self, value: int, key: Key) -> Tile:
        dims = self.active.dims(value)
        if self.stage == STEP:
            return Tile(self.variables[key], dims, "real", frozenset(range(len(dims))))
        slot = self.spaces.kept[key]
        return memory.fetch(self.b, self.lanes, slot.name, dims, slot.zero, slot.narrow)

    def _clock(self, instr: Instr) -> Tile:
        scale, period = instr.attr("scale"), instr.attr("period")
        extent = Extent(TICKS)
        text = f"(tick + {self.since} + 1).to(tl.int32) + {self.b.index(extent)}"
        text = f"({text}) // {scale}" if scale != 1 else text
        text = f"({text} - 1) % {period} + 1" if period else text
        if TIME in instr.type.axes:
            return self.b.tile("index", text, (extent,), "clock", "int")
        raise UnsupportedError("a clock without ticks")

    def given(self, value: int) -> Value | None:
        """What an earlier kernel has left."""
        slot = self.spaces.values.get(value)
        if slot is None or value in self.task.left:
            return None
        if self.stage == STEP and self.job.stages[value] != PREPARE:
            return None
        if slot.parts:
            return memory.fetch_sum(self.b, self.lanes, slot.name, self.active.dims(value), slot.parts)
        return memory.fetch(self.b, self.lanes, slot.name, self.active.dims(value), slot.zero, slot.narrow)

    def given_divided(self, value: int) -> Value | None:
        """The same where columns are divided: a value without such columns is computed from whole ones."""
        if value in self.divided:
            return self.given(value)
        self.active = self.entire
        try:
            return self.entire(value)
        finally:
            self.active = self.lowering

    def whole(self, value: int) -> Tile:
        """The value with all its dims."""
        tile = self.b.real(tile_of(self.b, self.lowering(value)))
        dims = self.lowering.dims(value)
        if all(e.size == 1 for e in dims):
            return self.b.tile("reduce", scalar(tile), (), tile.name) if tile.dims else tile
        return self.b.broadcast(tile, dims)

    # -- stages

    def _write(self) -> None:
        """The operations of the kernel."""
        if self.stage == STEP:
            self._write_step()
        else:
            self._segment()
            self._leave(self.task.left)
            self._results(self.task.results)
            self.b.sink()

    def write(self, name: str) -> Kernel:
        """The kernel. Raises UnsupportedError, with the reason, if there is none."""
        self._write()
        lines = self.b.text()
        text = "\n".join(lines)
        sources = [*self.job.sources.values(), *self.job.variables.values(), *self._written()]
        used = dict.fromkeys(s.name for s in sources if mentions(text, memory.pointer(s.name)))
        spaces = [s.name for s in self.spaces.every()]
        spaces = [s for s in dict.fromkeys(spaces) if mentions(text, memory.pointer(s))]
        columns = None
        if self.split and not self.task.walk:
            value, dim = min(self.split)
            type = self.job.body[value].type
            columns = ([*(self.sizes[a] for a in self.lowering.axes(type)), *type.shape])[dim]
        functions = {**self.entire.functions, **self.lowering.functions}
        return Kernel(
            name,
            self.stage,
            tuple(name for name in FRAME if mentions(text, name if name == "tick" else memory.pointer(name))),
            tuple(used),
            tuple(spaces),
            columns,
            lines,
            functions,
            self.b,
        )

    def _written(self) -> list[Source]:
        finals = [final(s) for s in self.job.variables.values()]
        return [
            *(s for s, _ in self.job.outputs),
            *finals,
            *(s for _, s in self.job.resets.values()),
        ]

    def _leave(self, values: Sequence[int]) -> None:
        for value in values:
            tile = self.whole(value)
            parts = self.task.part_count if value in self.task.partial and self.task.part_count > 1 else 0
            if value not in self.spaces.values:
                sizes = tuple(e.size for e in self.lowering.dims(value))
                if parts:
                    sizes = (parts, *(sizes if tile.dims else ()))
                hint = self.names[value] or f"x{value}"
                slot = self.spaces.new(
                    f"{hint}_kept", sizes, tile.known_zero, value in self.spaces.narrow and not parts, parts
                )
                self.spaces.values[value] = slot
            with self._once(value):
                memory.keep(self.b, self.lanes, self.spaces.values[value].name, tile, parts=parts)

    @contextmanager
    def _once(self, value: int) -> Iterator[None]:
        """What all programs that divide a dim compute alike is written by the first of them."""
        alike = bool(self.task.parts) and value not in self.divided
        if alike:
            self.b.open()
        yield
        if alike:
            self.b.close(f"if {PART} == 0:")

    def _results(self, values: Sequence[int]) -> None:
        for source, value in self.job.outputs:
            if value in values:
                self._output(source, value)
        for source, value in self.job.sums:
            if value not in values:
                continue
            tile = self.whole(value)
            self.spaces.sums[source.name] = Slot(source.name, tuple(e.size for e in self.lowering.dims(value)))
            tile = self.b.clean(tile)
            with self._once(value):
                memory.keep(self.b, self.lanes, source.name, tile)

    def _output(self, source: Source, value: int) -> None:
        axes = tuple(a for a in source.type.axes if a not in self.lanes.index)
        rank, shape = len(source.type.shape), enumerate(source.type.shape)
        own = self.lowering.axes(self.job.body[value].type)
        split = {d - len(own) for v, d in self.split if v == value and d >= len(own)}
        parts = {d - len(own) for v, d in self.task.parts if v == value and d >= len(own)}
        dims = (
            *(Extent(self.sizes[a]) for a in axes),
            *(
                column_extent(s, self.task.columns)
                if n in split
                else column_extent(s, self.task.width, True)
                if n in parts
                else Extent(s)
                for n, s in shape
            ),
        )
        found = tile_of(self.b, self.lowering.aligned(value, axes, rank))
        found = self.b.broadcast(self.b.real(found), dims)
        with self._once(value):
            memory.store(self.b, self.lanes, source, found)

    # -- the loop

    def _hold(self, keys: Iterable[Key]) -> None:
        """Carried values as variables of the loop."""
        b = self.b
        for key in keys:
            source = self.job.variables[key]
            tile = memory.load(b, self.lanes, source, self._variable_dims(key))
            if b.vary(tile.name):
                self.variables[key] = tile.name
                continue
            self.variables[key] = b.new_name(source.name)
            b.effect("view", tile.name, self.variables[key])

    def _begin_segment(self, resets: Mapping[str, str]) -> None:
        """What happens to carried values before a segment, on either way."""
        self._segment()
        if not self.job.reverse:
            self._take_anchors()
            return
        for state, (clock, _) in self.job.resets.items():
            self._take_back(state, clock, resets[state])

    def _write_step(self) -> None:
        job, b = self.job, self.b
        self._hold(job.variables)
        resets = {state: self._initial(state, source) for state, (_, source) in job.resets.items()}
        low = b.define("load", "tl.load(cuts_ptr + sequence)", "low")
        high = b.define("load", "tl.load(cuts_ptr + sequence + 1)", "high")
        b.open()
        if job.reverse:
            b.block.ops.append(plain_op("n", f"{low} + {high} - 1 - i"))
        self._begin_segment(resets)
        for key in self.plan.kept:
            self._keep(key)
        new = {key: self.whole(value) for key, value in job.carry}
        self._leave(self.plan.stepped)
        self._assign({key: b.clean(tile) for key, tile in new.items()})
        if job.reverse:
            self._give_anchors()
        else:
            for state, (clock, _) in job.resets.items():
                self._reset(state, clock, resets[state])
        b.close(f"for {'i' if job.reverse else 'n'} in range({low}, {high}):")
        for key, source in job.variables.items():
            dims = self._variable_dims(key)
            memory.store(b, self.lanes, final(source), Tile(self.variables[key], dims))
        if job.reverse:
            for state, (_, source) in job.resets.items():
                memory.store(b, self.lanes, source, Tile(resets[state], self._variable_dims((state, 0))))

    def _assign(self, new: Mapping[Key, Tile]) -> None:
        """Give carried values that change their new ones, all at once: what is made of the old ones first."""
        b, old = self.b, set(self.variables.values())
        changed = {self.variables[key]: tile.name for key, tile in new.items() if tile.name != self.variables[key]}
        for name, text in changed.items():
            if old & set(re.findall(r"\w+", text)):
                changed[name] = f"{name}_new"
                b.effect("view", text, changed[name])
        for name, text in changed.items():
            b.effect("view", text, name)

    def _initial(self, state: str, source: Source) -> str:
        """The value to which a state is reset; on the way back a variable for the sum of its cotangents."""
        b, dims = self.b, self._variable_dims((state, 0))
        if not self.job.reverse:
            return memory.load(b, self.lanes, source, dims).name
        name = b.new_name(source.name)
        b.effect("pointwise", f"tl.zeros({shape(dims)}, REAL)", name)
        return name

    def _variable_dims(self, key: Key) -> tuple[Extent, ...]:
        """The dims of a carried value: where it is read, or where it is made."""
        type = self.job.variables[key].type
        value = next((v for v, k in self.job.carried.items() if k == key), None)
        if value is None:
            value = next((v for k, v in self.job.carry if k == key), None)
        axes = self.lowering.axes(type)
        sizes = [*(self.sizes[a] for a in axes), *type.shape]
        return tuple(
            column_extent(s, self.task.columns) if (value, d) in self.split else Extent(s) for d, s in enumerate(sizes)
        )

    def _keep(self, key: Key) -> None:
        dims = self._variable_dims(key)
        if key not in self.spaces.kept:
            hint = self.job.variables[key].name + "_begin"
            sizes = tuple(e.size for e in dims)
            self.spaces.kept[key] = self.spaces.new(hint, sizes, frozenset(range(len(dims))), key in self.spaces.narrow)
        variable = Tile(self.variables[key], dims)
        if all(e.size == 1 for e in dims):
            variable = Tile(scalar(variable))
        memory.keep(self.b, self.lanes, self.spaces.kept[key].name, variable)

    def _take_anchors(self) -> None:
        for state, period in self.job.anchors:
            anchor, name = self.variables[state, period], self.variables[state, 0]
            due = self.b.define("index", f"(tick + {self.since}) % {period} == 0", f"begins_{period}")
            self.b.effect("pointwise", f"tl.where({due}, {name}, {anchor})", anchor)

    def _give_anchors(self) -> None:
        for state, period in self.job.anchors:
            if (state, period) not in self.variables:
                continue
            anchor, name = self.variables[state, period], self.variables[state, 0]
            due = self.b.define("index", f"(tick + {self.since}) % {period} == 0", f"begins_{period}")
            self.b.effect("pointwise", f"tl.where({due}, {name} + {anchor}, {name})", name)
            self.b.effect("pointwise", f"tl.where({due}, 0.0, {anchor})", anchor)

    def _take_back(self, state: str, clock: Clock, total: str) -> None:
        """Where the state was reset, its cotangent is that of the initial value, and the state before has none."""
        fires = self.b.define("index", self.fires(clock), "resets")
        for (name, _period), variable in self.variables.items():
            if name == state:
                self.b.effect("pointwise", f"tl.where({fires}, {total} + {variable}, {total})", total)
                self.b.effect("pointwise", f"tl.where({fires}, 0.0, {variable})", variable)

    def _reset(self, state: str, clock: Clock, initial: str) -> None:
        fires = self.b.define("index", self.fires(clock), "resets")
        for (name, _period), variable in self.variables.items():
            if name == state:
                self.b.effect("pointwise", f"tl.where({fires}, {initial}, {variable})", variable)


def plain_op(target: str, text: str) -> Op:
    """What every kernel begins with."""
    return Op("frame", text, target)
