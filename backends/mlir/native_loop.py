"""A loop over segments, forward and backward, as native functions compiled when a length of segment first occurs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from nldsl.backends.mlir.cache import compiled
from nldsl.backends.mlir.engine import Native, vector_bytes
from nldsl.backends.mlir.function import Argument, Kernel, Key
from nldsl.backends.mlir.kernel import KernelWriter
from nldsl.backends.mlir.launch import call
from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop, segments
from nldsl.ir.program import Program
from nldsl.ir.types import BATCH, TIME, Type, axis_order

READ = ("state", "given", "param", "fixed", "initial")
TAILS = (16, 1)  # lengths of the segments that a short rest is cut into
BITS = {torch.float32: "f32", torch.float64: "f64"}


def over_sequences(loop: ChunkLoop, program: Program) -> bool:
    """Whether a segment looks over the sequences of a batch, or has a state that they share."""
    shared = any(BATCH not in program.state(s).type.axes for s in loop.states) and BATCH in program.axis_names()
    mean = any(i.op == "batch_mean" or dict(i.attrs).get("axis") == BATCH for i in loop.body)
    return shared or mean


def runs(tick: int, count: int, size: int, loop: ChunkLoop) -> list[tuple[int, int]]:
    """The segments of a call as (ticks, number of such segments in a row). Where segments are cut never matters to the
    result: a single short one is cut into a few usual lengths, so that few functions are compiled."""
    lengths = segments(tick, count, size, loop.clocks)
    usual = {n for n, after in pairwise(lengths) if n == after} | {size, *TAILS}
    usual |= {min((c.period for c in loop.clocks), default=size)}
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
class NativeLoop:
    """``inputs``: what a call takes, in order. ``results``: what it gives: states and anchors, streams, and, where the
    backward pass is wanted, the states at the beginning of each segment."""

    loop: ChunkLoop
    backward: BackwardLoop | None
    program: Program
    kernels: dict[tuple[bool, int, str, int], tuple[Kernel, Native]] = field(default_factory=dict)
    written: dict[tuple[bool, int, str, int], Kernel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.order = axis_order((TIME, *self.program.axis_names()), self.program.axis_names())
        self.whole = over_sequences(self.loop, self.program)
        rows = 1 if self.whole else 0
        shape = self._written(True, self.loop.size, "f32", rows)
        self.arguments = shape.arguments
        self.inputs = tuple(a for a in shape.arguments if a.kind in READ)
        self.states = tuple(a for a in self.inputs if a.kind == "state")
        self.streams = tuple(a for a in shape.arguments if a.kind == "output")
        self.boundaries = tuple(a for a in shape.arguments if a.kind == "boundary")
        if self.backward is not None:
            self._written(False, self.loop.size, "f32", rows)
        if self.loop.size > 1:  # what has no form for a rest of one tick is refused now, not in the middle of a call
            self._written(True, 1, "f32", rows)
            if self.backward is not None:
                self._written(False, 1, "f32", rows)

    # -- code

    def _saved(self) -> tuple[Key, ...]:
        return self.backward.boundaries if self.backward is not None else ()

    def _written(self, forward: bool, ticks: int, real: str, rows: int) -> Kernel:
        key = forward, ticks, real, rows
        if key not in self.written:
            loop = self.loop if forward else self.backward
            assert loop is not None
            lanes, saved = vector_bytes() // (4 if real == "f32" else 8), self._saved() if forward else ()
            self.written[key] = KernelWriter(loop, self.program, ticks, real, lanes, saved, rows=rows).write()
        return self.written[key]

    def text(self, real: str = "f32") -> str:
        """The MLIR of a segment of full length, forward and backward."""
        rows = 1 if self.whole else 0
        found = [f"module @forward {{\n{self._written(True, self.loop.size, real, rows).text}}}\n"]
        if self.backward is not None:
            found.append(f"module @backward {{\n{self._written(False, self.loop.size, real, rows).text}}}\n")
        return "\n".join(found)

    def kernel(self, forward: bool, ticks: int, real: str, rows: int = 0) -> tuple[Kernel, Native]:
        key = forward, ticks, real, rows
        if key not in self.kernels:
            kernel = self._written(forward, ticks, real, rows)
            self.kernels[key] = kernel, compiled(kernel.text, kernel.name)
        return self.kernels[key]

    # -- sizes

    def batch(self, tensors: Sequence[torch.Tensor]) -> int:
        for argument, tensor in zip(self.inputs, tensors, strict=True):
            axes = self.axes_of(argument.type)
            if BATCH in axes:
                return tensor.shape[axes.index(BATCH)]
        return 1

    def axes_of(self, type: Type) -> tuple[str, ...]:
        """The axes of a tensor, in the order in which it lies."""
        return tuple(a for a in self.order if a in type.axes)

    def shape(self, type: Type, batch: int, count: int) -> list[int]:
        given = {BATCH: batch, TIME: count}  # symbols while PyTorch traces: they must stay as they are
        axes = [given[a] if a in given else int(str(self.program.axis_size(a))) for a in self.axes_of(type)]
        return [*axes, *(int(str(n)) for n in type.shape)]

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
            shape[:2] = shape[1], shape[0]
        return torch.empty(shape, dtype=real)

    def canonical(self, argument: Argument, tensor: torch.Tensor, rows: int) -> torch.Tensor:
        """What the functions wrote, in its canonical shape."""
        return tensor.transpose(0, 1).contiguous() if rows and self._streams(argument) else tensor

    def _streams(self, argument: Argument) -> bool:
        return self.axes_of(argument.type)[:2] == (BATCH, TIME)

    def saved_shape(self, argument: Argument, batch: int, number: int) -> list[int]:
        """A boundary: of a state, or of a pack, whose axis only the loop has."""
        extra = {a.name: a.size for a in self.loop.lanes if a.name not in self.order}
        sizes = extra | {a.name: a.size for a in self.program.axes if a.size is not None}
        axes = [a for a in (*self.order, *extra) if a in argument.type.axes]
        lead = [batch if a == BATCH else int(str(sizes[a])) for a in axes]
        return [number, *lead, *(int(str(s)) for s in argument.type.shape)]

    def saved_number(self, tick: int, count: int) -> int:
        """How many beginnings of segments a call keeps."""
        return sum(n for _, n in runs(tick, count, self.loop.size, self.loop))

    # -- calls

    def forward(self, tensors: Sequence[torch.Tensor], tick: int, count: int, save: bool) -> list[torch.Tensor]:
        """The states and anchors after ``count`` ticks, the streams, and, with ``save``, the boundaries."""
        real = next(t.dtype for t in tensors if t.is_floating_point())
        batch = self.batch(tensors)
        rows = self.rows(batch)
        plan = runs(tick, count, self.loop.size, self.loop)
        number = sum(n for _, n in plan)
        # what is not wanted is written to one place by all segments, which stays in cache
        kept = save or any(BATCH not in a.type.axes for a in self.boundaries)
        held: dict[Argument, torch.Tensor] = {}
        for argument, tensor in zip(self.inputs, tensors, strict=True):
            full = tensor.expand(self.shape(argument.type, batch, count))
            if argument.kind == "state":
                held[argument] = full.clone(memory_format=torch.contiguous_format)
            else:
                held[argument] = self.laid(argument, full, rows)
        for argument in self.streams:
            held[argument] = self.empty(argument, batch, count, rows, real)
        for argument in self.boundaries:
            held[argument] = torch.empty(self.saved_shape(argument, batch, number if kept else 1), dtype=real)
        offset = first = 0
        for ticks, n in plan:
            kernel, native = self.kernel(True, ticks, BITS[real], rows)
            order = [held[a] for a in kernel.arguments]
            lanes, batches = kernel.count(batch), batch if kept else 0
            call(native, kernel, order, lanes, n, count, offset, tick + offset, first, batches, batch)
            offset += ticks * n
            first += n
        results = [self.canonical(a, held[a], rows) for a in (*self.states, *self.streams)]
        return results + ([held[a] for a in self.boundaries] if save else [])

    def backpropagate(
        self,
        tensors: Sequence[torch.Tensor],
        boundaries: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor],
        tick: int,
        count: int,
    ) -> list[torch.Tensor]:
        """The cotangents of the real inputs, from those of the states and streams, in their order."""
        batch = self.batch(tensors)
        rows = self.rows(batch)
        real = next(t.dtype for t in tensors if t.is_floating_point())
        plan = runs(tick, count, self.loop.size, self.loop)
        back = self.kernel(False, plan[-1][0], BITS[real], rows)[0]
        held = self._way_back(back, tensors, boundaries, cotangents, count)
        offset, first = count, sum(n for _, n in plan)
        for ticks, n in reversed(plan):
            offset -= ticks * n
            first -= n
            kernel, native = self.kernel(False, ticks, BITS[real], rows)
            call(native, kernel, held, kernel.count(batch), n, count, offset, tick + offset, first, batch, batch)
        return [self._gradient(back, a, t, held, batch) for a, t in zip(self.inputs, tensors, strict=True)]

    def _way_back(
        self,
        back: Kernel,
        tensors: Sequence[torch.Tensor],
        boundaries: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor],
        count: int,
    ) -> list[torch.Tensor]:
        """The tensors of the backward function."""
        real = next(t.dtype for t in tensors if t.is_floating_point())
        batch = self.batch(tensors)
        given = {(a.kind, a.key): t for a, t in zip(self.inputs, tensors, strict=True)}
        results = dict(zip((*self.states, *self.streams), cotangents, strict=True))
        saved = {a.key: t for a, t in zip(self.boundaries, boundaries, strict=True)}
        held: list[torch.Tensor] = []
        for argument in back.arguments:
            kind, key = argument.kind, argument.key
            if kind == "boundary":
                held.append(saved[key])
                continue
            shape = self.shape(argument.type, batch, count) if kind != "sum" else []
            if kind == "state":
                start = next(c for a, c in results.items() if a.kind == "state" and a.key == key)
                held.append(start.to(real).expand(shape).clone(memory_format=torch.contiguous_format))
            elif kind == "cotangent_of":
                stream = next(c for a, c in results.items() if a.kind == "output" and a.key == key)
                held.append(self.laid(argument, stream.to(real).expand(shape), back.rows))
            elif kind == "output":
                held.append(self.empty(argument, batch, count, back.rows, real))
            elif kind == "sum":
                held.append(torch.zeros(self._sum_shape(back, argument, batch), dtype=real))
            else:
                held.append(self.laid(argument, given[kind, key].expand(shape), back.rows))
        return held

    def _sum_shape(self, back: Kernel, argument: Argument, batch: int) -> list[int]:
        sizes = {BATCH: back.rows} | {a.name: a.size for a in self.program.axes if a.size is not None}
        inner = [sizes[a] for a in self._inner(back, argument.type)]
        return [back.count(batch), *(int(str(n)) for n in (*inner, *argument.type.shape))]

    def _inner(self, back: Kernel, type: Type) -> list[str]:
        """The axes that a lane has within itself."""
        outer = dict(back.axes)
        return [a for a in self.axes_of(type) if a not in outer and (a != BATCH or back.rows)]

    def _gradient(
        self, back: Kernel, argument: Argument, tensor: torch.Tensor, held: Sequence[torch.Tensor], batch: int
    ) -> torch.Tensor:
        """What a backward call left for one input."""
        total: torch.Tensor | None = None
        for found, value in zip(back.arguments, held, strict=True):
            if argument.kind == "given" and TIME in argument.type.axes:
                own = found.kind == "output" and found.key == argument.key
            elif argument.kind == "state":
                own = found.kind == "state" and found.key == argument.key
            else:
                leaf = "state" if argument.kind == "fixed" else argument.kind
                own = found.kind == "sum" and found.key[:2] == (leaf, argument.key)
            if own:
                part = self._summed(back, found, value, argument.type, batch) if found.kind == "sum" else value
                if found.kind == "output":
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


def _reduced(value: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """A gradient for a tensor that was stretched."""
    return value.sum_to_size(tuple(shape)) if tuple(value.shape) != tuple(shape) else value
