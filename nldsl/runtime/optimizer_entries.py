"""Optimizers that do the same to every entry: all parameters of a level in one fused update.

The states are one flat tensor each, of which the entries of ``Optimizer.state`` are views. On a CPU with a C compiler
the tick is one compiled function over all tensors; else ``torch._foreach`` operations on pieces that fit the cache.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nldsl.backends.torch.loader import Emitted, load
from nldsl.backends.torch.update_foreach import write_update
from nldsl.backends.torch.update_native import write_native
from nldsl.ir.entrywise import Entrywise
from nldsl.runtime.native import Native, compile_native

PIECE = 1 << 18  # entries of one piece: with four operands 4 MiB
LEAST_NATIVE = 1 << 18  # below this many entries a compiled function gains less than compiling it costs
MOST_VALUES = 2000  # of a program that is handed to the C compiler
Tensors = Sequence[torch.Tensor]


@dataclass
class EntryBatch:
    """The parameters that one rule trains, all at the same tick. ``native``: None leaves the choice to the size."""

    rule: Entrywise
    members: list[torch.Tensor]
    native: bool | None = None
    tick: int = 0
    numbers: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sizes = [p.numel() for p in self.members]
        self.starts = [0]
        for size in self.sizes:
            self.starts.append(self.starts[-1] + size)
        like = self.members[0]
        self.flat = {
            name: torch.full((self.starts[-1],), start, dtype=like.dtype, device=like.device)
            for name, start, _ in self.rule.states
        }
        self.numbers = {name: start for name, start, _ in self.rule.numbers}
        self._emitted = emitted_update(self.rule)
        self._function = self._compiled()
        self._pieces = [] if self._function else list(_pieces(self.sizes, like.device.type == "cpu"))
        self._zeros: torch.Tensor | None = None
        self._views: list[list[torch.Tensor]] | None = None
        self._starts = (ctypes.c_long * len(self.starts))(*self.starts)
        self._step = torch.tensor(0)

    @property
    def source(self) -> str:
        """The code that computes a tick."""
        return self._function.source if self._function else self._emitted.source

    def _compiled(self) -> Native | None:
        like = self.members[0]
        wanted = self.starts[-1] >= LEAST_NATIVE if self.native is None else self.native
        able = like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64)
        if not wanted or not able or len(self.rule.body) > MOST_VALUES:
            return None
        return compile_native(write_native(self.rule, like.dtype == torch.float64), "update")

    # ------------------------------------------------------------ what the optimizer's ``state`` shows

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the entries of ``Optimizer.state``, one for each member, all at the same tick."""
        self.tick = int(states[0]["step"])
        for start, size, own in zip(self.starts, self.sizes, states, strict=False):
            for name, flat in self.flat.items():
                flat[start : start + size].copy_(own[name].reshape(-1))
        for name in self.numbers:
            self.numbers[name] = float(states[0][name].reshape(-1)[0])
        self._step.fill_(self.tick)

    def publish(self, states: Sequence[dict[str, Any]]) -> None:
        """Make the entries of ``Optimizer.state`` views of the states here."""
        for start, size, member, own in zip(self.starts, self.sizes, self.members, states, strict=False):
            own["step"] = self._step
            for name, flat in self.flat.items():
                own[name] = flat[start : start + size].view(member.shape)
        self._publish_numbers(states)

    def _publish_numbers(self, states: Sequence[dict[str, Any]]) -> None:
        for name, value in self.numbers.items():
            shared = torch.tensor(value, dtype=self.members[0].dtype)
            for own in states:
                own[name] = shared

    # ------------------------------------------------------------ a tick

    def update(self, factor: float, states: Sequence[dict[str, Any]]) -> None:
        """One tick; a member without a gradient has the gradient zero."""
        weights = [p.detach() for p in self.members]
        flat = [w if w.is_contiguous() else w.contiguous() for w in weights]
        self.tick += 1
        shared, new = self._emitted.numbers(self.tick, self.numbers)
        if self._function:
            self._run_native(shared, factor, self._gradients(), flat)
        else:
            self._run_pieces(shared, factor, self._gradients(), flat)
        for weight, changed in zip(weights, flat, strict=True):
            if changed is not weight:
                weight.copy_(changed)
        self._step.fill_(self.tick)
        if new:
            dtype = self.members[0].dtype  # as they are stored, so that going on from a checkpoint is exact
            self.numbers = {name: torch.tensor(value, dtype=dtype).item() for name, value in new.items()}
            self._publish_numbers(states)

    def _gradients(self) -> list[torch.Tensor]:
        found = []
        for param in self.members:
            gradient = param.grad
            if gradient is None:
                if self._zeros is None:
                    self._zeros = torch.zeros(max(self.sizes), dtype=param.dtype, device=param.device)
                gradient = self._zeros[: param.numel()]
            elif gradient.dtype != param.dtype or not gradient.is_contiguous():
                gradient = gradient.to(param.dtype).contiguous()
            found.append(gradient.detach())
        return found

    def _run_native(self, shared: tuple[float, ...], factor: float, gradients: Tensors, weights: Tensors) -> None:
        assert self._function is not None
        count = len(weights)
        pointers = ctypes.c_void_p * count
        self._function.function(
            ctypes.c_long(torch.get_num_threads() if self.starts[-1] >= LEAST_NATIVE else 1),
            ctypes.c_long(count),
            self._starts,
            pointers(*(x.data_ptr() for x in gradients)),
            pointers(*(x.data_ptr() for x in weights)),
            (ctypes.c_void_p * max(1, len(self.flat)))(*(x.data_ptr() for x in self.flat.values())),
            (ctypes.c_double * max(1, len(shared)))(*shared),
            ctypes.c_double(factor),
        )
        for weight in weights:  # autograd must notice that a weight which a graph still holds has changed
            torch.autograd.graph.increment_version(weight)

    def _run_pieces(self, shared: tuple[float, ...], factor: float, gradients: Tensors, weights: Tensors) -> None:
        gradients = [g.reshape(-1) for g in gradients]
        weights = [w.view(-1) for w in weights]
        if self._views is None:
            self._views = [
                [flat[self.starts[n] + a : self.starts[n] + b] for piece in self._pieces for n, a, b in piece]
                for flat in self.flat.values()
            ]
        at = 0
        for piece in self._pieces:
            states = [views[at : at + len(piece)] for views in self._views]
            at += len(piece)
            self._emitted.update(
                shared,
                factor,
                [gradients[n][a:b] for n, a, b in piece],
                [weights[n][a:b] for n, a, b in piece],
                states,
            )


def emitted_update(rule: Entrywise) -> Emitted:
    """The PyTorch form of the update, and the numbers that all entries share."""
    return load(write_update(rule), "update")


def _pieces(sizes: Sequence[int], cut: bool) -> Iterator[list[tuple[int, int, int]]]:
    """Lists of (tensor, begin, end) that hold about PIECE entries each; one list for all where nothing is cut."""
    piece: list[tuple[int, int, int]] = []
    room = PIECE
    for number, size in enumerate(sizes):
        begin = 0
        while begin < size:
            end = min(size, begin + room) if cut else size
            piece.append((number, begin, end))
            room -= end - begin
            begin = end
            if cut and room <= 0:
                yield piece
                piece, room = [], PIECE
    if piece:
        yield piece
