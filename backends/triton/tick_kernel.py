"""One kernel for a loop over ticks: a program takes a lane (and some columns) and goes through its ticks.

The way back goes from block to block of EVERY ticks, from the last one: it runs the ticks of a block once more from the
states at its beginning, leaves the state before each of them, and then takes these ticks back.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nldsl.backends.triton import tick_memory as memory
from nldsl.backends.triton.builder import Builder, shape
from nldsl.backends.triton.job import Job, Key, Source, final
from nldsl.backends.triton.lower import Place
from nldsl.backends.triton.memory import pointer
from nldsl.backends.triton.ops import Op
from nldsl.backends.triton.tick_memory import BEFORE, BLOCK, LANE
from nldsl.backends.triton.tick_round import Round, kept_tile, without_outputs
from nldsl.backends.triton.tiles import COLUMN, Extent, Tile, UnsupportedError, power_of_two
from nldsl.backends.triton.workspaces import Slot
from nldsl.dims import Dim
from nldsl.ir.types import BATCH, TIME

NUMBERS = ("tick", "TICKS", "EVERY", "N", "PACKED")
CUTS = "cuts"  # where sequences begin, with the end of the last one
CONSTANTS = ("BV", "REAL", "DOT", "PRECISION", "SOLVE")
FORWARD, BACKWARD, SINGLE = "forward", "backward", "single"


@dataclass(frozen=True)
class Columns:
    """The places of the dim that programs divide, how many of its entries one takes, its size."""

    places: frozenset[Place] = frozenset()
    block: int = 1
    size: int = 1

    @property
    def programs(self) -> int:
        return power_of_two(self.size) // self.block  # the padding of workspaces is written too


@dataclass
class TickKernel:
    """``numbers`` and ``constants`` are those that the kernel takes. ``begun``: carried values at the beginning of each
    block, ``before``: before each tick of a block, ``sums``: what each lane has added up; all are workspaces."""

    name: str
    kind: str
    columns: Columns
    lines: list[str]
    functions: dict[str, str]
    arguments: tuple[str, ...]
    begun: dict[Key, Slot]
    before: dict[Key, Slot]
    sums: dict[str, Slot]
    peak: int = 0

    @property
    def workspaces(self) -> list[Slot]:
        return [*self.begun.values(), *self.before.values(), *self.sums.values()]

    @property
    def pointers(self) -> list[str]:
        text = "\n".join(self.lines[1:])
        names = (*self.arguments, *(s.name for s in self.workspaces))
        return [name for name in dict.fromkeys(names) if _mentions(text, pointer(name))]

    @property
    def constants(self) -> list[str]:
        return self.mentioned(CONSTANTS)

    def mentioned(self, words: Sequence[str]) -> list[str]:
        """Those of these words that the text has."""
        text = "\n".join(self.lines[1:])
        return [word for word in words if _mentions(text, word)]

    @property
    def source(self) -> str:
        numbers = self.mentioned(NUMBERS)
        names = [*numbers, *self.mentioned([pointer(CUTS)]), *(pointer(p) for p in self.pointers)]
        names += [f"{c}: tl.constexpr" for c in self.constants]
        head = f"def {self.name}({', '.join(names)}):"
        if len(head) > 110:
            head = f"def {self.name}(\n    " + ",\n    ".join(names) + ",\n):"
        given = f"(do_not_specialize=[{', '.join(repr(n) for n in numbers)}])" if numbers else ""
        decorator = f"@triton.jit{given}".replace("'", '"')
        return "\n".join([decorator, head, *self.lines])


@dataclass
class TickWriter:
    """Writes the kernels of one loop: ``forward`` is its job, without an axis of time."""

    forward: Job
    names: set[str] = field(default_factory=set)

    @property
    def axes(self) -> tuple[str, ...]:
        return self.forward.lanes

    # -- the frame

    def _builder(self, jobs: Sequence[Job], columns: Columns) -> tuple[Builder, memory.Lanes]:
        taken = {pointer(s.name) for job in jobs for s in (*job.sources.values(), *job.variables.values())}
        b = Builder(
            ["j", "i", "last", "row", "begin", "count", "blocks", pointer(CUTS), *NUMBERS, *CONSTANTS, *taken, COLUMN]
        )
        b.top.ops.append(_index("row", "tl.program_id(0).to(tl.int64)"))
        index, size = dict[str, str](), dict[str, str]()
        for name, known in self.forward.axes:
            if known is not None and name != TIME:
                if not isinstance(known, int):
                    raise UnsupportedError(f"the size {known} of the axis `{name}` is not known")
                size[name] = str(known)
        others = [name for name in self.axes if name != BATCH]
        count = math.prod(int(size[name]) for name in others)
        rest = "row"
        if BATCH in self.axes:
            index[BATCH] = b.define("index", f"row // {count}", "sequence") if others else "row"
            rest = b.define("index", f"row % {count}", "lane") if others else "row"
        for name in reversed(others):
            if name == others[0]:
                index[name] = rest
                continue
            index[name] = b.define("index", f"{rest} % {size[name]}", name)
            rest = b.define("index", f"{rest} // {size[name]}", "rest")
        if columns.places:
            b.top.ops.append(_index(COLUMN, "tl.program_id(1) * BV"))
        return b, memory.Lanes(index, size)

    def _sequence(self, b: Builder, lanes: memory.Lanes) -> None:
        """Where the sequence of the program begins, and how many ticks it has."""
        if BATCH in lanes.index:
            at = f"{pointer(CUTS)} + {lanes.index[BATCH]}"
            b.effect("load", f"tl.load({at})", "first")
            b.effect("load", f"(tl.load({at} + 1) - first).to(tl.int32)", "T")
        else:
            b.effect("index", "TICKS", "T")

    def _slots(self, round: Round, hint: str, keys: Sequence[Key]) -> dict[Key, Slot]:
        found = {}
        for key in keys:
            sizes: tuple[Dim, ...] = tuple(e.size for e in round.variable_dims(key))
            name, count = f"{round.job.variables[key].name}_{hint}", 1
            while name in self.names:
                count += 1
                name = f"{round.job.variables[key].name}_{hint}_{count}"
            self.names.add(name)
            found[key] = Slot(name, sizes, frozenset(range(len(sizes))))
        return found

    # -- kernels

    def write_forward(self, name: str, keys: Sequence[Key], columns: Columns) -> TickKernel:
        """All ticks; ``keys`` are the carried values that are left at the beginning of each block."""
        job = self.forward
        b, lanes = self._builder([job], columns)
        round = Round(b, job, lanes, columns.places, columns.block)
        self._sequence(b, lanes)
        self._start(round)
        begun = self._slots(round, "begin", keys)
        b.open()
        for key, slot in begun.items():
            variable = Tile(round.variables[key], round.variable_dims(key))
            memory.keep(b, slot.name, kept_tile(variable), BLOCK)
        b.open()
        self._tick(round)
        b.close("for t in range(n * EVERY, tl.minimum(n * EVERY + EVERY, T)):")
        b.close("for n in range(tl.cdiv(T, EVERY)):")
        self._finals(round)
        return self._kernel(name, FORWARD, b, [round], columns, begun=begun)

    def write_single(self, name: str, columns: Columns) -> TickKernel:
        """One tick: the streams have no axis of time, and nothing is left for a way back."""
        job = _at_tick(self.forward)
        b, lanes = self._builder([job], columns)
        round = Round(b, job, lanes, columns.places, columns.block, tick="tick")
        self._start(round)
        self._tick(round)
        self._finals(round)
        return self._kernel(name, SINGLE, b, [round], columns)

    def write_backward(self, name: str, job: Job, begun: dict[Key, Slot]) -> TickKernel:
        """The way back through all ticks; ``begun`` is what the forward run has left."""
        columns = Columns()
        needed = tuple(dict.fromkeys(job.boundaries.values()))
        again_job = without_outputs(self.forward, needed)
        if set(job.lanes) - set(self.axes):
            raise UnsupportedError("the way back has other lanes than the loop")
        b, lanes = self._builder([again_job, job], columns)
        again = Round(b, again_job, lanes)
        before = self._slots(Round(b, again_job, lanes), "before", needed)

        def left(key: Key, dims: tuple[Extent, ...]) -> Tile:
            return memory.fetch(b, before[key].name, dims, BEFORE)

        back = Round(b, job, lanes, before=left)
        self._sequence(b, lanes)
        back.begin(lambda key, dims: memory.load(b, lanes, job.variables[key], dims))
        for state, (_, source) in job.resets.items():
            back.resets[state] = b.new_name(source.name)
            b.effect("pointwise", _zeros(back.variable_dims((state, 0))), back.resets[state])
        for state, (_, source) in again_job.resets.items():
            again.resets[state] = memory.load(b, lanes, source, again.variable_dims((state, 0))).name
        totals, sums = {}, {}
        for source, value in job.sums:
            dims = back.lowering.dims(value)
            totals[source.name] = b.new_name(source.name.removesuffix("_parts"))
            sums[source.name] = Slot(source.name, tuple(e.size for e in dims))
            b.effect("pointwise", _zeros(dims), totals[source.name])
        b.effect("index", "tl.cdiv(T, EVERY)", "blocks")
        b.open()
        b.effect("index", "blocks - 1 - i", "n")
        b.effect("index", "n * EVERY", "begin")
        b.effect("index", "tl.minimum(EVERY, T - begin)", "count")
        if needed:
            _note(b, "The ticks of this block once more: the state before each is left in memory.")
            again.begin(lambda key, dims: memory.fetch(b, begun[key].name, dims, BLOCK))
            b.open()
            b.effect("index", "begin + j", "t")
            again.take_anchors()
            for key, slot in before.items():
                variable = Tile(again.variables[key], again.variable_dims(key))
                memory.keep(b, slot.name, kept_tile(variable), BEFORE)
            again.advance()
            again.reset()
            b.close("for j in range(count):")
            b.effect("store", "tl.debug_barrier()")
            _note(b, "The same ticks from the last one, taken back.")
        b.open()
        b.effect("index", "count - 1 - last", "j")
        b.effect("index", "begin + j", "t")
        back.take_back()
        back.outputs()
        back.add_up(totals)
        back.advance()
        back.give_anchors()
        b.close("for last in range(count):")
        if needed:
            b.effect("store", "tl.debug_barrier()")
        b.close("for i in range(blocks):")
        self._finals(back)
        for source, value in job.sums:
            total = Tile(totals[source.name], back.lowering.dims(value))
            memory.keep(b, source.name, kept_tile(total), LANE)
        for state, (_, source) in job.resets.items():
            memory.store(b, lanes, source, Tile(back.resets[state], back.variable_dims((state, 0))))
        return self._kernel(name, BACKWARD, b, [again, back], columns, begun=begun, before=before, sums=sums)

    # -- parts

    def _start(self, round: Round) -> None:
        round.begin(lambda key, dims: memory.load(round.b, round.lanes, round.job.variables[key], dims))
        for state, (_, source) in round.job.resets.items():
            dims = round.variable_dims((state, 0))
            round.resets[state] = memory.load(round.b, round.lanes, source, dims).name

    def _tick(self, round: Round) -> None:
        round.take_anchors()
        round.outputs()
        round.advance()
        round.reset()

    def _finals(self, round: Round) -> None:
        for key, source in round.job.variables.items():
            tile = Tile(round.variables[key], round.variable_dims(key))
            memory.store(round.b, round.lanes, final(source), tile)

    def _kernel(
        self,
        name: str,
        kind: str,
        b: Builder,
        rounds: Sequence[Round],
        columns: Columns,
        begun: dict[Key, Slot] | None = None,
        before: dict[Key, Slot] | None = None,
        sums: dict[str, Slot] | None = None,
    ) -> TickKernel:
        tensors: list[Source] = []
        for job in (round.job for round in rounds):
            tensors += [*job.sources.values(), *job.variables.values(), *(s for s, _ in job.outputs)]
            tensors += [*(final(s) for s in job.variables.values()), *(s for _, s in job.resets.values())]
        functions: dict[str, str] = {}
        for round in rounds:
            functions.update(round.lowering.functions)
        lines = [f'    """{_DOCS[kind]}"""', *b.text()]
        names = tuple(dict.fromkeys(s.name for s in tensors))
        return TickKernel(name, kind, columns, lines, functions, names, begun or {}, before or {}, sums or {})


_DOCS = {
    FORWARD: "One lane, tick by tick, with the states in registers.",
    BACKWARD: "The way back of one lane, block by block of ticks from the last one.",
    SINGLE: "One tick of one lane.",
}


def _at_tick(job: Job) -> Job:
    """The streams of one tick as tensors without an axis of time."""

    def now(source: Source) -> Source:
        return replace(source, type=replace(source.type, axes=tuple(a for a in source.type.axes if a != TIME)))

    return replace(
        job,
        sources={v: now(s) for v, s in job.sources.items()},
        outputs=tuple((now(s), v) for s, v in job.outputs),
    )


def _zeros(dims: tuple[Extent, ...]) -> str:
    return f"tl.zeros({shape(dims)}, REAL)"


def _index(target: str, text: str) -> Op:
    return Op("index", text, target, keep=True)


class _Note(Op):
    """A comment: its words are no names."""

    def uses(self) -> set[str]:
        return set()


def _note(b: Builder, text: str) -> None:
    b.block.ops.append(_Note("note", f"# {text}", keep=True))


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text) is not None
