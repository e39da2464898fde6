"""Optimizers that look at a parameter as a whole: parameters of one shape are the rows of one batch.

Copies of a memory count one by one. The emitted program runs once for the batch, so that the matrix products of equal
shapes are batched ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from nldsl.backends.registry import backend_named
from nldsl.ir.program import Program
from nldsl.ir.schedule import anchor_key, anchors
from nldsl.passes.schedule import schedule
from nldsl.runtime.initialize import initialize
from nldsl.runtime.lanes import batched
from nldsl.runtime.module import TICK, Emitted

Shape = tuple[int, ...]
Tensors = dict[str, torch.Tensor]
PIECE = 1 << 18  # entries: 1 MiB in float32


@dataclass(frozen=True)
class Compiled:
    """The emitted program of an optimizer for one shape, for many parameters at once."""

    program: Program
    emitted: Emitted
    params: Tensors
    keys: tuple[str, ...]  # of the states, and of their anchors


def compile_rule(program: Program, like: torch.Tensor, seed: int = 0) -> Compiled:
    """The program of an optimizer for one parameter, for many."""
    program = batched(program)
    backend = backend_named("torch")
    planned = replace(schedule(program), autocast=False)  # a step is taken outside of it
    emitted = backend.load(backend.emit(planned), planned)
    params = {n: torch.as_tensor(x).to(like) for n, x in initialize(program, seed).items()}
    keys = tuple(s.name for s in program.states) + tuple(anchor_key(s, p) for s, p in anchors(program))
    return Compiled(program, emitted, params, keys)


class StackedBatch:
    """Parameters of one shape; the entries of ``Optimizer.state`` are views of the stacked states.

    The program runs for as many parameters at a time as fit a cache: a step of an optimizer makes many tensors of that
    size, and new memory costs more than the arithmetic on it.
    """

    def __init__(self, compiled: Compiled, members: list[torch.Tensor], shape: Shape) -> None:
        self.compiled = compiled
        self.members = members
        self.shape = shape
        self.tick = 0
        self._counts = [_count(p, shape) for p in members]
        start = compiled.emitted.init_state(compiled.params, sum(self._counts), members[0].dtype, members[0].device)
        self._states: Tensors = {
            name: start[name].clone(memory_format=torch.contiguous_format) for name in compiled.keys
        }
        self._reads_weight = any(i.name == "weight" for i in compiled.program.inputs)
        self._step = torch.tensor(0)
        cut = members[0].device.type == "cpu" and not any(s.shared for s in compiled.program.states)
        self._parts = list(_parts([p.numel() for p in members], PIECE if cut else None))

    @property
    def source(self) -> str:
        """The code that computes a tick."""
        return self.compiled.emitted.source

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the entries of ``Optimizer.state``, one for each member, all at the same tick."""
        self.tick = int(states[0]["step"])
        self._step.fill_(self.tick)
        for name, held in self._states.items():
            held.copy_(_rows([own[name] for own in states], tuple(held.shape[1:])))

    def publish(self, states: Sequence[dict[str, Any]]) -> None:
        """Make the entries of ``Optimizer.state`` views of the states here."""
        at = 0
        for param, own, count in zip(self.members, states, self._counts, strict=True):
            lead = tuple(param.shape[: param.dim() - len(self.shape)])
            own["step"] = self._step
            for name, held in self._states.items():
                rows = held.narrow(0, at, count)
                own[name] = rows.view((*lead, *rows.shape[1:]))
            at += count

    def update(self, factor: float, _: Sequence[dict[str, Any]]) -> None:
        """One tick; a member without a gradient has the gradient zero."""
        at = 0
        for begin, end in self._parts:
            count = sum(self._counts[begin:end])
            self._update(factor, self.members[begin:end], {n: x.narrow(0, at, count) for n, x in self._states.items()})
            at += count
        self.tick += 1
        self._step.fill_(self.tick)

    def _update(self, factor: float, members: list[torch.Tensor], held: Tensors) -> None:
        inputs = {"g": _rows([torch.zeros_like(p) if p.grad is None else p.grad for p in members], self.shape)}
        if self._reads_weight:
            inputs["weight"] = _rows([p.detach() for p in members], self.shape)
        outputs, _, _, after = self.compiled.emitted.step(self.compiled.params, inputs, {TICK: self.tick, **held})
        (change,) = outputs.values()
        torch._foreach_add_(members, _unstacked(change, members, self.shape), alpha=factor)
        own = {x.untyped_storage().data_ptr() for x in held.values()}
        new = {name: after[name] for name, x in held.items() if after[name] is not x}
        # a state that takes the value of another one must not see that one's new value
        new = {n: x.clone() if x.untyped_storage().data_ptr() in own else x for n, x in new.items()}
        for name, value in new.items():
            held[name].copy_(value)


def _parts(sizes: Sequence[int], entries: int | None) -> Iterator[tuple[int, int]]:
    """Ranges of tensors that hold about so many entries each; None: all at once."""
    begin = total = 0
    for end, size in enumerate(sizes):
        if entries is not None and total and total + size > entries:
            yield begin, end
            begin, total = end, 0
        total += size
    if begin < len(sizes):
        yield begin, len(sizes)


def _count(param: torch.Tensor, shape: Shape) -> int:
    """How many copies a parameter holds."""
    return int(torch.Size(param.shape[: param.dim() - len(shape)]).numel())


def _rows(tensors: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    """All copies in all tensors, as the rows of one."""
    rows = [x.reshape(-1, *shape) for x in tensors]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _unstacked(rows: torch.Tensor, members: list[torch.Tensor], shape: Shape) -> list[torch.Tensor]:
    parts = torch.split(rows, [_count(p, shape) for p in members])
    return [part.reshape(p.shape) for part, p in zip(parts, members, strict=True)]
