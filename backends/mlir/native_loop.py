"""A loop over segments, forward and backward, as native functions compiled when a length of segment first occurs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from nldsl.backends.again import Differentiable
from nldsl.backends.mlir.engine import Native
from nldsl.backends.mlir.facts import LoopFacts
from nldsl.backends.mlir.forms import BACKWARD, ENDING, FORWARD, Bodies, Forms, fitting, named, write_function
from nldsl.backends.mlir.function import Argument, Kernel, UnsupportedError
from nldsl.backends.mlir.kept import KeptLayout, kept_layout
from nldsl.backends.mlir.known import Parts, answer, function
from nldsl.backends.mlir.launch import call
from nldsl.backends.mlir.pool import pool
from nldsl.backends.mlir.wiring import Wiring, wiring
from nldsl.dims import substitute
from nldsl.ir.chunk import TICKS, ChunkLoop, segments
from nldsl.ir.ending import Endings, endings_of
from nldsl.ir.program import Program
from nldsl.ir.types import BATCH, TIME, Clock, Type, axis_order

READ = ("state", "given", "param", "fixed", "initial")
TAILS = (64, 16, 1)  # lengths of the segments that a short rest is cut into
MOST_CUTS = 64  # calls whose segments are kept
WORTH_ENDING = 0.05  # of the work of a call: what its endings must leave out
BITS = {torch.float32: "f32", torch.float64: "f64"}


def over_sequences(loop: ChunkLoop, program: Program) -> bool:
    """Whether a segment looks over the sequences of a batch, or has a state that they share."""
    shared = any(BATCH not in program.state(s).type.axes for s in loop.states) and BATCH in program.axis_names()
    mean = any(i.op == "batch_mean" or dict(i.attrs).get("axis") == BATCH for i in loop.body)
    return shared or mean


def runs(tick: int, count: int, size: int, clocks: tuple[Clock, ...]) -> list[tuple[int, int]]:
    """The segments of a call as (ticks, number of such segments in a row). Where segments are cut never matters to the
    result: a single short one is cut into a few usual lengths, so that few functions are compiled."""
    lengths = segments(tick, count, size, clocks)
    usual = {n for n, after in pairwise(lengths) if n == after} | {size, *TAILS}
    usual |= {min((c.period for c in clocks), default=size)}
    found: list[tuple[int, int]] = []
    for length in lengths:
        while length:
            part = length if length in usual else max(n for n in usual if n <= length)
            if found and found[-1][0] == part:
                found[-1] = (part, found[-1][1] + 1)
            else:
                found.append((part, 1))
            length -= part
    return found


@dataclass
class Form:
    """How a tensor of a type lies: its axes in order, and its sizes, where the batch and the ticks are names. ``last``:
    the shape of the last call, and for which batch and how many ticks."""

    type: Type
    axes: tuple[str, ...]
    sizes: tuple[int | str, ...]
    last: tuple[int, int, list[int]] = field(default_factory=lambda: (-1, -1, []))


@dataclass
class NativeLoop:
    """``inputs``: what a call takes, in order. ``results``: what it gives: states and anchors, streams, and, where the
    backward pass is wanted, the states at the beginning of each segment, and one tensor with ``kept`` values.
    ``origin``: the entry of its program in the cache and which of its loops this is. ``endings``: what segments still
    do after which nobody reads the states. ``second``: what gives second derivatives, None where they are an error."""

    facts: LoopFacts
    program: Program
    bodies: Bodies
    origin: Parts = ("",)
    endings: Endings | None = None
    second: Differentiable | None = None
    kernels: dict[tuple[str, int, str, int], tuple[Kernel, Native]] = field(default_factory=dict)
    written: dict[tuple[str, int, str, int], Kernel] = field(default_factory=dict)
    cuts: dict[tuple[int, int, bool], tuple[tuple[int, int, int], ...]] = field(default_factory=dict)
    shares: tuple[list[float], bool] | None = None  # of the endings, see ``_shares``
    wirings: dict[int, tuple[Kernel, Wiring]] = field(default_factory=dict)  # by the identity of a function
    forms: dict[int, Form] = field(default_factory=dict)  # by the identity of a type, whose hash takes longer

    def __post_init__(self) -> None:
        self.order = axis_order((TIME, *self.program.axis_names()), self.program.axis_names())
        self.whole = self.facts.whole
        arguments = self.facts.arguments
        self.inputs = tuple(a for a in arguments if a.kind in READ)
        self.states = tuple(a for a in self.inputs if a.kind == "state")
        self.streams = tuple(a for a in arguments if a.kind == "output")
        self.boundaries = tuple(a for a in arguments if a.kind == "boundary")
        self.kept = tuple(a for a in arguments if a.kind == "kept")
        size = self.facts.size  # numbers of a tick of a sequence, in segments of full length
        self.kept_rate = -(-sum(math.prod(self.saved_shape(a, 1, 1, size)) for a in self.kept) // size)

    def check(self) -> None:
        """Write what every loop needs, so that it is refused now and not in the middle of a call; raises
        UnsupportedError."""
        rows = 1 if self.whole else 0
        lengths = (self.facts.size, 1) if self.states else (self.facts.size,)  # pointwise work has a form for any
        for ticks in dict.fromkeys(lengths):
            for which in self.ways():
                self.kernel_text(which, ticks, "f32", rows)

    # -- code

    def ways(self) -> tuple[str, ...]:
        """The functions of a call whose gradients are wanted; where it keeps no values, others serve it."""
        keeps = bool(self.kept)
        return (named(FORWARD, keeps=keeps), named(BACKWARD, keeps=keeps)) if self.facts.derived else (FORWARD,)

    def kernel_text(self, which: str, ticks: int, real: str, rows: int) -> Kernel:
        """A function, written; raises UnsupportedError."""
        key = which, ticks, real, rows
        if key not in self.written:
            self.written[key] = self._write(which, ticks, real, rows)
        return self.written[key]

    def _write(self, which: str, ticks: int, real: str, rows: int) -> Kernel:
        way, _, number = which.partition(ENDING)
        if number:
            assert self.endings is not None
            short = self.endings()[int(number)]
            forms = Forms(short.loop, short.backward, short.keeping)
            kernel = write_function(forms, self.program, way, ticks, real, rows)
            return fitting(kernel, self.kernel_text(way, ticks, real, rows))
        return write_function(self.bodies(), self.program, way, ticks, real, rows)

    def text(self, real: str = "f32") -> str:
        """The MLIR of a segment of full length, forward and backward, with kept values where there are any."""
        rows, size = 1 if self.whole else 0, self.facts.size
        names = dict.fromkeys((FORWARD, *self.ways()))
        texts = [(name.replace(" ", "_"), self.kernel_text(name, size, real, rows).text) for name in names]
        return "\n".join(f"module @{name} {{\n{text}}}\n" for name, text in texts)

    def kernel(self, which: str, ticks: int, real: str, rows: int = 0) -> tuple[Kernel, Native]:
        """A function, compiled; raises UnsupportedError."""
        key = which, ticks, real, rows
        if key not in self.kernels:
            kernel, native, _ = function((*self.origin, *key), lambda: (self.kernel_text(*key), None))
            self.kernels[key] = kernel, native
        return self.kernels[key]

    # -- sizes

    def batch(self, tensors: Sequence[torch.Tensor]) -> int:
        for argument, tensor in zip(self.inputs, tensors, strict=True):
            axes = self.axes_of(argument.type)
            if BATCH in axes:
                return tensor.shape[axes.index(BATCH)]
        return 1

    def form(self, type: Type) -> Form:
        """How a tensor of a type lies; found once."""
        found = self.forms.get(id(type))
        if found is None or found.type is not type:
            axes = tuple(a for a in self.order if a in type.axes)
            sizes = [a if a in (BATCH, TIME) else int(str(self.program.axis_size(a))) for a in axes]
            found = self.forms[id(type)] = Form(type, axes, (*sizes, *(int(str(n)) for n in type.shape)))
        return found

    def axes_of(self, type: Type) -> tuple[str, ...]:
        """The axes of a tensor, in the order in which it lies."""
        return self.form(type).axes

    def shape(self, type: Type, batch: int, count: int) -> list[int]:
        """Of a tensor of a call; not to be changed."""
        form = self.form(type)
        plain = batch.__class__ is int and count.__class__ is int  # both may be symbols while PyTorch traces
        if plain and form.last[0] == batch and form.last[1] == count:
            return form.last[2]
        given = {BATCH: batch, TIME: count}
        found = [given[n] if isinstance(n, str) else n for n in form.sizes]
        if plain:
            form.last = batch, count, found
        return found

    def rows(self, batch: int) -> int:
        """How many sequences a lane has, see ``KernelWriter``."""
        return batch if self.whole else 0

    def laid(self, argument: Argument, tensor: torch.Tensor, rows: int) -> torch.Tensor:
        """A tensor of canonical shape as the functions read it."""
        return (tensor.transpose(0, 1) if rows and self._streams(argument) else tensor).contiguous()

    def empty(self, argument: Argument, batch: int, count: int, rows: int, real: torch.dtype) -> torch.Tensor:
        """Room for a stream that the functions write."""
        shape = self.shape(argument.type, batch, count)
        if rows and self._streams(argument):
            shape = [shape[1], shape[0], *shape[2:]]
        return torch.empty(shape, dtype=real)

    def canonical(self, argument: Argument, tensor: torch.Tensor, rows: int) -> torch.Tensor:
        """What the functions wrote, in its canonical shape."""
        return tensor.transpose(0, 1).contiguous() if rows and self._streams(argument) else tensor

    def _streams(self, argument: Argument) -> bool:
        return self.axes_of(argument.type)[:2] == (BATCH, TIME)

    def saved_shape(self, argument: Argument, batch: int, number: int, ticks: int = 1) -> list[int]:
        """A boundary: of a state, or of a pack, whose axis only the loop has. Or a value that segments of some ticks
        keep."""
        extra = {name: size for name, size in self.facts.lanes if name not in self.order}
        sizes: dict[str, object] = {**extra} | {a.name: a.size for a in self.program.axes if a.size is not None}
        axes = [a for a in (*self.order, *extra) if a in argument.type.axes]
        lead = [batch if a == BATCH else ticks if a == TIME else int(str(sizes[a])) for a in axes]
        return [number, *lead, *(int(str(substitute(s, {str(TICKS): ticks}))) for s in argument.type.shape)]

    def keeps(self, batch: int, count: int, entry: int) -> bool:
        """Whether a call keeps more than the states at the beginning of segments, in numbers of ``entry`` bytes. Simple
        enough for a compiler that looks at it with symbols."""
        return self.kept_rate > 0 and self.kept_rate * batch * count * entry <= self.facts.recompute_above

    def kept_layout(self, plan: Sequence[tuple[int, int, int]], batch: int) -> KeptLayout:
        """Where a call keeps its values."""
        return kept_layout(self.kept, plan, lambda a, n, ticks: math.prod(self.saved_shape(a, batch, n, ticks)))

    def saved_number(self, tick: int, count: int) -> int:
        """How many beginnings of segments a call keeps."""
        return sum(n for _, n, _ in self.cut(tick, count))

    def cut(self, tick: int, count: int, ends: bool = True) -> tuple[tuple[int, int, int], ...]:
        """See ``runs`` and ``endings_of``. The number of the first tick matters only beside clocks."""
        key = tick if self.facts.clocks else 0, count, ends
        found = self.cuts.get(key)
        if found is None:
            if len(self.cuts) >= MOST_CUTS:
                self.cuts.clear()
            segments = runs(key[0], count, self.facts.size, self.facts.clocks)
            given = ([], False) if ends else self._shares()
            found = self.cuts[key] = tuple(endings_of(key[0], segments, self.facts.clocks, *given, WORTH_ENDING))
        return found

    def _shares(self) -> tuple[list[float], bool]:
        """How much of the work of a segment is left at the end of a call whose states nobody reads, from the last one
        backwards, and whether the last form is steady: of the endings whose functions fit beside the usual ones."""
        if self.shares is None:
            shares, steady = answer((*self.origin, "endings"), self._found_shares)
            self.shares = shares, steady
        return self.shares

    def _found_shares(self) -> tuple[list[float], bool]:
        found: list[float] = []
        rows, endings = 1 if self.whole else 0, () if self.endings is None else self.endings()
        try:
            for number, ending in enumerate(endings):
                usual = (FORWARD, BACKWARD) if self.facts.derived else (FORWARD,)
                for way in dict.fromkeys((*usual, *self.ways())):
                    self.kernel_text(f"{way}{ENDING}{number}", self.facts.size, "f32", rows)
                found.append(ending.share)
        except UnsupportedError:
            return found, False
        return found, bool(endings) and endings[-1].steady

    # -- calls

    def forward(
        self,
        tensors: Sequence[torch.Tensor],
        tick: int,
        count: int,
        save: bool,
        ends: bool = True,
        keep: bool = False,
    ) -> list[torch.Tensor]:
        """The states and anchors after ``count`` ticks, the streams, and, with ``save``, the boundaries, and with
        ``keep`` (see ``keeps``) one tensor of kept values. Without ``ends`` nobody reads the states: they have their
        shapes, and hold anything."""
        real = next(t.dtype for t in tensors if t.is_floating_point())
        batch = self.batch(tensors)
        rows = self.rows(batch)
        plan = self.cut(tick, count, ends)
        number = sum(n for _, n, _ in plan)
        # what is not wanted is written to one place by all segments, which stays in cache
        kept = save or any(BATCH not in a.type.axes for a in self.boundaries)
        held: dict[Argument, torch.Tensor] = {}
        for argument, tensor in zip(self.inputs, tensors, strict=True):
            shape = self.shape(argument.type, batch, count)
            if argument.kind == "state" and argument.key[1] and tick % argument.key[1] == 0:
                held[argument] = torch.empty(shape, dtype=real)  # an anchor that is taken at the first tick
                continue
            full = _stretched(tensor, shape)
            if argument.kind == "state":
                held[argument] = full.clone(memory_format=torch.contiguous_format)
            else:
                held[argument] = self.laid(argument, full, rows)
        for argument in self.streams:
            held[argument] = self.empty(argument, batch, count, rows, real)
        for argument in self.boundaries:
            held[argument] = pool().empty(self.saved_shape(argument, batch, number if kept else 1), real)
        layout = self.kept_layout(plan, batch) if save and keep else None
        room = pool().empty((layout.total if layout else 0,), real)
        offset = first = 0
        for run, (ticks, n, ending) in enumerate(plan):
            kernel, native = self.kernel(named(FORWARD, ending, layout is not None), ticks, BITS[real], rows)
            held |= layout.parts(run, room) if layout else {}
            order = [held[a] for a in kernel.arguments]
            lanes, batches = kernel.count(batch), batch if kept else 0
            call(native, kernel, order, lanes, n, count, offset, tick + offset, first, batches, batch)
            offset += ticks * n
            first += n
        results = [self.canonical(a, held[a], rows) for a in (*self.states, *self.streams)]
        return results + ([held[a] for a in self.boundaries] if save else []) + ([room] if layout else [])

    def backpropagate(
        self,
        tensors: Sequence[torch.Tensor],
        boundaries: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor | None],
        tick: int,
        count: int,
        wanted: Sequence[bool] | None = None,
        ends: bool = True,
    ) -> list[torch.Tensor | None]:
        """The cotangents of the real inputs (of those that are ``wanted``), from those of the states and streams, in
        their order, of which None is zero. ``boundaries``: what ``forward`` gave to keep. Without ``ends`` those of the
        states are zero."""
        batch = self.batch(tensors)
        rows = self.rows(batch)
        real = next(t.dtype for t in tensors if t.is_floating_point())
        plan = self.cut(tick, count, ends)
        held: dict[Argument, torch.Tensor] = {}
        used: list[Kernel] = []
        lists: dict[int, list[torch.Tensor]] = {}
        room = boundaries[-1] if len(boundaries) > len(self.boundaries) else None
        layout = None if room is None else self.kept_layout(plan, batch)
        offset, first = count, sum(n for _, n, _ in plan)
        for run, (ticks, n, ending) in reversed([*enumerate(plan)]):
            offset -= ticks * n
            first -= n
            kernel, native = self.kernel(named(BACKWARD, ending, layout is not None), ticks, BITS[real], rows)
            if ending not in lists:
                lists[ending] = self._way_back(kernel, tensors, boundaries, cotangents, count, held)
                used.append(kernel)
            kept = layout.parts(run, room) if layout is not None and room is not None else {}
            order = [kept.get(a, x) for a, x in zip(kernel.arguments, lists[ending], strict=True)]
            call(native, kernel, order, kernel.count(batch), n, count, offset, tick + offset, first, batch, batch)
        return self._gradients(used, tensors, held, batch, wanted)

    def _gradients(
        self,
        used: Sequence[Kernel],
        tensors: Sequence[torch.Tensor],
        held: dict[Argument, torch.Tensor],
        batch: int,
        wanted: Sequence[bool] | None,
    ) -> list[torch.Tensor | None]:
        """What a backward call left for the inputs. ``used``: its functions, one of each form."""
        chosen = wanted if wanted is not None else [True] * len(tensors)
        found: list[torch.Tensor | None] = []
        for n, (argument, tensor, w) in enumerate(zip(self.inputs, tensors, chosen, strict=True)):
            parts = {k.arguments[p]: k for k in used for p in self._wired(k).parts[n]} if w else {}
            found.append(self._gradient(argument, tensor, parts, held, batch) if w else None)
        return found

    def _way_back(
        self,
        back: Kernel,
        tensors: Sequence[torch.Tensor],
        boundaries: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor | None],
        count: int,
        known: dict[Argument, torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """The tensors of a backward function. ``known``: those of functions of the same call; it grows."""
        real = next(t.dtype for t in tensors if t.is_floating_point())
        batch = self.batch(tensors)
        held: list[torch.Tensor] = []
        for argument, n in zip(back.arguments, self._wired(back).sources, strict=True):
            kind = argument.kind
            if known is not None and argument in known:
                held.append(known[argument])
            elif kind in ("boundary", "kept"):
                held.append(boundaries[n])  # of what is kept each run takes its part
            elif kind == "sum":
                held.append(torch.zeros(self._sum_shape(back, argument, batch), dtype=real))
            elif kind == "output":
                held.append(self.empty(argument, batch, count, back.rows, real))
            elif kind in ("state", "cotangent_of"):
                cotangent, shape = cotangents[n], self.shape(argument.type, batch, count)
                if cotangent is None:
                    held.append(self.laid(argument, torch.zeros(shape, dtype=real), back.rows))
                elif kind == "cotangent_of":
                    held.append(self.laid(argument, _stretched(cotangent.to(real), shape), back.rows))
                else:  # it is written
                    whole = cotangent.to(real).expand(shape)
                    held.append(whole.clone(memory_format=torch.contiguous_format))
            else:
                shape = self.shape(argument.type, batch, count)
                held.append(self.laid(argument, _stretched(tensors[n], shape), back.rows))
            if known is not None:
                known[argument] = held[-1]
        return held

    def _wired(self, back: Kernel) -> Wiring:
        """The wiring of a backward function."""
        if id(back) not in self.wirings:
            results = (*self.states, *self.streams)
            self.wirings[id(back)] = back, wiring(back.arguments, self.inputs, results, self.boundaries)
        return self.wirings[id(back)][1]

    def _sum_shape(self, back: Kernel, argument: Argument, batch: int) -> list[int]:
        sizes = {BATCH: back.rows} | {a.name: a.size for a in self.program.axes if a.size is not None}
        inner = [sizes[a] for a in self._inner(back, argument.type)]
        return [back.count(batch), *(int(str(n)) for n in (*inner, *argument.type.shape))]

    def _inner(self, back: Kernel, type: Type) -> list[str]:
        """The axes that a lane has within itself."""
        outer = dict(back.axes)
        return [a for a in self.axes_of(type) if a not in outer and (a != BATCH or back.rows)]

    def _gradient(
        self,
        argument: Argument,
        tensor: torch.Tensor,
        parts: dict[Argument, Kernel],
        held: dict[Argument, torch.Tensor],
        batch: int,
    ) -> torch.Tensor:
        """What a backward call left for one input. ``parts``: where, each with a function that has it."""
        total: torch.Tensor | None = None
        for found, back in parts.items():
            part = held[found]
            if found.kind == "sum":
                part = self._summed(back, found, part, argument.type, batch)
            elif found.kind == "output":
                part = self._shared(found, self.canonical(found, part, back.rows), argument.type)
            total = part if total is None else total + part
        return torch.zeros_like(tensor) if total is None else _reduced(total, tensor.shape)

    def _shared(self, found: Argument, value: torch.Tensor, type: Type) -> torch.Tensor:
        """The parts of the lanes that share a stream, added."""
        surplus = [n for n, a in enumerate(self.axes_of(found.type)) if a not in type.axes]
        return value.sum(surplus) if surplus else value

    def _summed(self, back: Kernel, argument: Argument, value: torch.Tensor, type: Type, batch: int) -> torch.Tensor:
        """The parts of the lanes, added where the sum goes over them; where it does not, they are the same."""
        outer = ([(BATCH, batch // (back.rows or 1))] if back.batched else []) + list(back.axes)
        inner = self._inner(back, argument.type)
        value = value.reshape([n for _, n in outer] + list(value.shape[1:]))
        if BATCH in inner:  # after the lanes, where it comes first
            inner.remove(BATCH)
            value = value.movedim(len(outer), 1).flatten(0, 1)
        names = [a for a, _ in outer] + inner
        for axis in [a for a in names if a not in type.axes]:
            dim = names.index(axis)
            value = value.sum(dim) if axis in argument.key[2] else value.select(dim, 0)
            names.remove(axis)
        order = [names.index(a) for a in self.axes_of(type)]
        return value.permute([*order, *range(len(order), value.dim())])


def _stretched(value: torch.Tensor, shape: list[int]) -> torch.Tensor:
    return value if list(value.shape) == shape else value.expand(shape)


def _reduced(value: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A gradient for a tensor that was stretched."""
    return value.sum_to_size(tuple(shape)) if tuple(value.shape) != tuple(shape) else value
