"""A loop whose segments are single ticks: what is kept for the way back are the states every so many ticks.

On the way back the ticks of such a block run once more from the state at its beginning, and keep the state before each
tick, and values that are dear to compute a third time; then the block is taken back. Nothing of the whole length is
kept but inputs and results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from nldsl.backends.mlir.forms import BACKWARD, FORWARD, REPLAY, named
from nldsl.backends.mlir.function import Argument, UnsupportedError
from nldsl.backends.mlir.known import answer
from nldsl.backends.mlir.launch import call
from nldsl.backends.mlir.native_loop import BITS, NativeLoop
from nldsl.backends.mlir.pool import pool
from nldsl.ir.types import BATCH, TIME

SHORTEST, LONGEST = 8, 64  # ticks of a block
MOST_ROWS = 16  # sequences of a lane


def block_ticks(count: int) -> int:
    """Ticks between two states that are kept: with about the root of all of them, the least is held at once."""
    return min(LONGEST, max(SHORTEST, math.isqrt(max(count - 1, 0)) + 1))


def rows_of(batch: int, lanes: int) -> int:
    """How many sequences a lane has where a weight is worth reading once for several: a power of two, so that few
    functions are compiled, which leaves a lane for each thread. ``lanes``: of one sequence."""
    rows, threads = 1, torch.get_num_threads()
    while rows < MOST_ROWS and batch % (2 * rows) == 0 and batch // (2 * rows) * lanes >= min(threads, batch * lanes):
        rows *= 2
    return rows if rows > 1 else 0


@dataclass
class TickLoop(NativeLoop):
    """Has one function more, ``REPLAY``, which runs a block once more and keeps the state before each tick."""

    possible: dict[int, bool] = field(default_factory=dict)  # numbers of sequences of a lane

    def __post_init__(self) -> None:
        super().__post_init__()
        self.boundaries = tuple(replace(a, kind="boundary") for a in self.states)

    def ways(self) -> tuple[str, ...]:
        keeps = bool(self.kept)
        return (FORWARD, named(BACKWARD, keeps=keeps), named(REPLAY, keeps=keeps)) if self.facts.derived else (FORWARD,)

    def rows(self, batch: int) -> int:
        """All sequences where the loop looks over them; some of them where its weights are larger than its states."""
        if self.whole:
            return batch
        own = shared = 0
        for argument in self.inputs:
            axes = set(self.axes_of(argument.type)) - {TIME}
            size = math.prod(n for n in self.shape(argument.type, 1, 1))
            if BATCH not in axes:
                shared += size
            elif argument.kind == "state":
                own += size
        rows = rows_of(batch, 1) if shared > own else 0
        return rows if rows and self._has_rows(rows) else 0

    def _has_rows(self, rows: int) -> bool:
        """Whether there are functions for lanes of so many sequences."""
        if rows not in self.possible:
            self.possible[rows] = bool(answer((*self.origin, "rows", rows), lambda: self._can_have(rows)))
        return self.possible[rows]

    def _can_have(self, rows: int) -> bool:
        try:
            for which in self.ways():
                self.kernel_text(which, 1, "f32", rows)
        except UnsupportedError:
            return False
        return True

    def saved_number(self, tick: int, count: int) -> int:
        return -(-count // block_ticks(count))

    def keeps(self, batch: int, count: int, entry: int) -> bool:
        """A block keeps its values while it is taken back."""
        return False

    def forward(
        self,
        tensors: Sequence[torch.Tensor],
        tick: int,
        count: int,
        save: bool,
        ends: bool = True,
        keep: bool = False,
    ) -> list[torch.Tensor]:
        real = next(t.dtype for t in tensors if t.is_floating_point())
        batch = self.batch(tensors)
        rows = self.rows(batch)
        held: dict[Argument, torch.Tensor] = {}
        for argument, tensor in zip(self.inputs, tensors, strict=True):
            full = tensor.expand(self.shape(argument.type, batch, count))
            if argument.kind == "state":
                held[argument] = full.clone(memory_format=torch.contiguous_format)
            else:
                held[argument] = self.laid(argument, full, rows)
        for argument in self.streams:
            held[argument] = self.empty(argument, batch, count, rows, real)
        number = self.saved_number(tick, count) if save else 0
        kept = [pool().empty(self.saved_shape(a, batch, number), real) for a in self.boundaries if save]
        kernel, native = self.kernel(FORWARD, 1, BITS[real], rows)
        order = [held[a] for a in kernel.arguments]
        lanes, step = kernel.count(batch), block_ticks(count) if save else count
        for block, start in enumerate(range(0, count, step)):
            for boundary, state in zip(kept, self.states, strict=False):
                boundary[block] = held[state]
            ticks = min(step, count - start)
            call(native, kernel, order, lanes, ticks, count, start, tick + start, 0, batch, batch)
        return [*(self.canonical(a, held[a], rows) for a in (*self.states, *self.streams)), *kept]

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
        real = next(t.dtype for t in tensors if t.is_floating_point())
        batch, step = self.batch(tensors), block_ticks(count)
        rows = self.rows(batch)
        keeps = super().keeps(batch, step, real.itemsize)
        replayed, native_replay = self.kernel(named(REPLAY, keeps=keeps), 1, BITS[real], rows)
        held: dict[Argument, torch.Tensor] = {}
        for argument, tensor in zip(self.inputs, tensors, strict=True):
            shape = self.shape(argument.type, batch, count)
            if argument.kind == "state":
                held[argument] = torch.empty(shape, dtype=real)
            elif argument in replayed.arguments:
                held[argument] = self.laid(argument, tensor.expand(shape), rows)
        for argument in replayed.arguments:
            if argument.kind == "boundary":
                held[argument] = pool().empty(self.saved_shape(argument, batch, step), real)
        layout = self.kept_layout([(1, step, -1)] if keeps else [], batch)  # of a block
        kept = layout.parts(0, pool().empty((layout.total,), real)) if keeps else {}
        held |= kept
        again = [held[a] for a in replayed.arguments]
        before = {a.key: held[a] for a in replayed.arguments if a.kind == "boundary"}
        saved = [before.get(a.key, b) for a, b in zip(self.boundaries, boundaries, strict=True)]
        kernel, native = self.kernel(named(BACKWARD, keeps=keeps), 1, BITS[real], rows)
        known = {**kept}
        back = self._way_back(kernel, tensors, saved, cotangents, count, known)
        for block in reversed(range(-(-count // step))):
            start = block * step
            ticks = min(step, count - start)
            for state, boundary in zip(self.states, boundaries, strict=True):
                held[state].copy_(boundary[block])
            number, tick_number = replayed.count(batch), tick + start
            call(native_replay, replayed, again, number, ticks, count, start, tick_number, 0, batch, batch)
            call(native, kernel, back, kernel.count(batch), ticks, count, start, tick_number, 0, batch, batch)
        return self._gradients([kernel], tensors, dict(zip(kernel.arguments, back, strict=True)), batch, wanted)
