"""A loop whose segments are single ticks: what is kept for the way back are the states every so many ticks.

On the way back the ticks of such a block run once more from the state at its beginning, and keep the state before each
tick; then the block is taken back. Nothing of the whole length is kept but inputs and results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from nldsl.backends.mlir.cache import compiled
from nldsl.backends.mlir.engine import Native, vector_bytes
from nldsl.backends.mlir.kernel import Argument, Kernel, KernelWriter, Key
from nldsl.backends.mlir.launch import call
from nldsl.backends.mlir.native_loop import BITS, NativeLoop

SHORTEST, LONGEST = 8, 64  # ticks of a block


def block_ticks(count: int) -> int:
    """Ticks between two states that are kept: with about the root of all of them, the least is held at once."""
    return min(LONGEST, max(SHORTEST, math.isqrt(max(count - 1, 0)) + 1))


@dataclass
class TickLoop(NativeLoop):
    """``replays``: the functions that run a block once more and keep the state before each tick."""

    replays: dict[str, tuple[Kernel, Native]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.boundaries = tuple(replace(a, kind="boundary") for a in self.states)
        if self.backward is not None:
            self._replay_written("f32")

    def _saved(self) -> tuple[Key, ...]:
        return ()

    def _replay_written(self, real: str) -> Kernel:
        assert self.backward is not None
        lanes = vector_bytes() // (4 if real == "f32" else 8)
        loop = replace(self.loop, outputs=())
        return KernelWriter(loop, self.program, 1, real, lanes, self.backward.boundaries).write()

    def replay(self, real: str) -> tuple[Kernel, Native]:
        if real not in self.replays:
            kernel = self._replay_written(real)
            self.replays[real] = kernel, compiled(kernel.text, kernel.name)
        return self.replays[real]

    def saved_number(self, tick: int, count: int) -> int:
        return -(-count // block_ticks(count))

    def forward(self, tensors: Sequence[torch.Tensor], tick: int, count: int, save: bool) -> list[torch.Tensor]:
        real = next(t.dtype for t in tensors if t.is_floating_point())
        batch = self.batch(tensors)
        held: dict[Argument, torch.Tensor] = {}
        for argument, tensor in zip(self.inputs, tensors, strict=True):
            full = tensor.expand(self.shape(argument.type, batch, count))
            whole = torch.contiguous_format
            held[argument] = full.clone(memory_format=whole) if argument.kind == "state" else full.contiguous()
        for argument in self.streams:
            held[argument] = torch.empty(self.shape(argument.type, batch, count), dtype=real)
        number = self.saved_number(tick, count) if save else 0
        kept = [torch.empty(self.saved_shape(a, batch, number), dtype=real) for a in self.boundaries if save]
        kernel, native = self.kernel(True, 1, BITS[real])
        order = [held[a] for a in kernel.arguments]
        lanes, step = self.lanes(kernel, batch), block_ticks(count) if save else count
        for block, start in enumerate(range(0, count, step)):
            for boundary, state in zip(kept, self.states, strict=False):
                boundary[block] = held[state]
            ticks = min(step, count - start)
            call(native, kernel, order, lanes, ticks, count, start, tick + start, 0, batch)
        return [*(held[a] for a in (*self.states, *self.streams)), *kept]

    def backpropagate(
        self,
        tensors: Sequence[torch.Tensor],
        boundaries: Sequence[torch.Tensor],
        cotangents: Sequence[torch.Tensor],
        tick: int,
        count: int,
    ) -> list[torch.Tensor]:
        assert self.backward is not None
        real = next(t.dtype for t in tensors if t.is_floating_point())
        batch, step = self.batch(tensors), block_ticks(count)
        replayed, native_replay = self.replay(BITS[real])
        held: dict[Argument, torch.Tensor] = {}
        for argument, tensor in zip(self.inputs, tensors, strict=True):
            shape = self.shape(argument.type, batch, count)
            if argument.kind == "state":
                held[argument] = torch.empty(shape, dtype=real)
            elif argument in replayed.arguments:
                held[argument] = tensor.expand(shape).contiguous()
        for argument in replayed.arguments:
            if argument.kind == "boundary":
                held[argument] = torch.empty(self.saved_shape(argument, batch, step), dtype=real)
        again = [held[a] for a in replayed.arguments]
        before = {a.key: held[a] for a in replayed.arguments if a.kind == "boundary"}
        saved = [before.get(a.key, b) for a, b in zip(self.boundaries, boundaries, strict=True)]
        back, lanes = self._way_back(tensors, saved, cotangents, count)
        kernel, native = self.kernel(False, 1, BITS[real])
        for block in reversed(range(-(-count // step))):
            start = block * step
            ticks = min(step, count - start)
            for state, boundary in zip(self.states, boundaries, strict=True):
                held[state].copy_(boundary[block])
            number = self.lanes(replayed, batch)
            call(native_replay, replayed, again, number, ticks, count, start, tick + start, 0, batch)
            call(native, kernel, back, lanes, ticks, count, start, tick + start, 0, batch)
        return [self._gradient(a, t, back, batch) for a, t in zip(self.inputs, tensors, strict=True)]
