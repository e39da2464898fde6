"""Optimizers that look at a parameter as a whole: parameters of one shape are the rows of one batch.

Copies of a memory count one by one. The emitted program runs once for the batch, so that the matrix products of equal
shapes are batched ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    planned = schedule(program)
    emitted = backend.load(backend.emit(planned), planned)
    params = {n: torch.as_tensor(x).to(like) for n, x in initialize(program, seed).items()}
    keys = tuple(s.name for s in program.states) + tuple(anchor_key(s, p) for s, p in anchors(program))
    return Compiled(program, emitted, params, keys)


class StackedBatch:
    """Parameters of one shape; the entries of ``Optimizer.state`` are views of the stacked states."""

    def __init__(self, compiled: Compiled, members: list[torch.Tensor], shape: Shape) -> None:
        self.compiled = compiled
        self.members = members
        self.shape = shape
        self._state: dict[str, Any] = compiled.emitted.init_state(
            compiled.params, sum(_count(p, shape) for p in members), members[0].dtype, members[0].device
        )

    @property
    def source(self) -> str:
        """The code that computes a tick."""
        return self.compiled.emitted.source

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the entries of ``Optimizer.state``, one for each member, all at the same tick."""
        found: dict[str, Any] = {TICK: int(states[0]["step"])}
        for name in self.compiled.keys:
            rest = tuple(self._state[name].shape[1:])
            found[name] = _rows([own[name] for own in states], rest)
        self._state = found

    def publish(self, states: Sequence[dict[str, Any]]) -> None:
        """Make the entries of ``Optimizer.state`` views of the states here."""
        at = 0
        tick = torch.tensor(self._state[TICK])
        for param, own in zip(self.members, states, strict=True):
            count = _count(param, self.shape)
            lead = tuple(param.shape[: param.dim() - len(self.shape)])
            own["step"] = tick
            for name in self.compiled.keys:
                rows = self._state[name].narrow(0, at, count)
                own[name] = rows.reshape((*lead, *rows.shape[1:]))
            at += count

    def update(self, factor: float, states: Sequence[dict[str, Any]]) -> None:
        """One tick; a member without a gradient has the gradient zero."""
        members, shape, compiled = self.members, self.shape, self.compiled
        inputs = {"g": _rows([torch.zeros_like(p) if p.grad is None else p.grad for p in members], shape)}
        if any(i.name == "weight" for i in compiled.program.inputs):
            inputs["weight"] = _rows([p.detach() for p in members], shape)
        outputs, _, _, self._state = compiled.emitted.step(compiled.params, inputs, self._state)
        (change,) = outputs.values()
        torch._foreach_add_(members, _unstacked(change, members, shape), alpha=factor)
        self.publish(states)


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
