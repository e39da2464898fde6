"""One sequence on several processes: each has a part of the ticks, and states go from rank to rank.

Rank r starts from the states that rank r - 1 ends with, so the result is that of one process, for every program. What
is sent is the state, whose size does not depend on the number of ticks; its cotangent comes back the same way. While
rank r works on one micro-batch, rank r - 1 works on the next: with m micro-batches on n ranks the time is that of
(m + n - 1) / m parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from nldsl.runtime.module import Module
from nldsl.runtime.parallel import ParallelError, mixes_sequences
from nldsl.runtime.state import State


class _Receive(torch.autograd.Function):
    """Tensors from another rank; their cotangents go back there."""

    @staticmethod
    def forward(ctx: Any, source: int, group: Any, anchor: torch.Tensor, *like: torch.Tensor) -> Any:  # noqa: ARG004
        ctx.source, ctx.group = source, group
        found = []
        for tensor in like:
            buffer = torch.empty_like(tensor, memory_format=torch.contiguous_format)
            dist.recv(buffer, source, group=group)
            found.append(buffer)
        ctx.mark_non_differentiable(*(x for x in found if not x.is_floating_point()))
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        for grad in grads:
            if grad.is_floating_point():
                dist.send(grad.contiguous(), ctx.source, group=ctx.group)
        return None, None, None, *(None for _ in grads)


class _Send(torch.autograd.Function):
    """Tensors to another rank. The result is a zero that must be part of what is differentiated."""

    @staticmethod
    def forward(ctx: Any, target: int, group: Any, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.target, ctx.group = target, group
        ctx.like = [(x.shape, x.dtype, x.device) for x in tensors]
        for tensor in tensors:
            dist.send(tensor.contiguous(), target, group=group)
        return tensors[0].new_zeros((), dtype=torch.get_default_dtype())

    @staticmethod
    def backward(ctx: Any, _grad: torch.Tensor) -> Any:
        grads: list[torch.Tensor | None] = []
        for shape, dtype, device in ctx.like:
            if not dtype.is_floating_point:
                grads.append(None)
                continue
            buffer = torch.empty(shape, dtype=dtype, device=device)
            dist.recv(buffer, ctx.target, group=ctx.group)
            grads.append(buffer)
        return None, None, *grads


class SequenceParallel:
    """A module whose sequences are divided among the ranks of a group: rank 0 has the first ticks."""

    def __init__(self, module: Module, group: Any = None) -> None:
        if module.emitted.needs_next:
            raise ParallelError(
                f"the states of `{module.program.name}` depend on the next input, which is on another rank at the end "
                "of a part"
            )
        self.module = module
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._anchor = torch.zeros((), requires_grad=True)

    def loss(self, *args: torch.Tensor, micro_batches: int = 1, **named: Any) -> torch.Tensor:
        """This rank's share of the mean loss over all ticks: the sum over the ranks is what one process computes.

        Arguments as for ``Module.loss``, this rank's ticks only; targets must be given. After ``backward`` the
        gradients of the ranks are to be added: ``sum_gradients``.
        """
        return self._run(args, named, micro_batches)

    def sum_gradients(self) -> None:
        """Add up the gradients of all ranks."""
        for param in self.module.parameters():
            if param.grad is None:
                param.grad = torch.zeros_like(param)
            dist.all_reduce(param.grad, group=self.group)

    def _run(self, args: Sequence[torch.Tensor], named: dict[str, Any], micro_batches: int) -> torch.Tensor:
        first = args[0] if args else next(v for v in named.values() if isinstance(v, torch.Tensor))
        batch, ticks = first.shape[:2]
        if batch % micro_batches:
            raise ParallelError(f"{batch} sequences cannot be divided into {micro_batches} equal micro-batches")
        if micro_batches > 1 and mixes_sequences(self.module.program):
            raise ParallelError(f"no micro-batches: {mixes_sequences(self.module.program)}")
        lengths = [torch.zeros((), dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor(ticks), group=self.group)
        before, whole = int(sum(lengths[: self.rank])), int(sum(lengths))
        share = ticks / whole / micro_batches
        parts = []
        for n in range(micro_batches):
            cut = _Cut(n, batch // micro_batches)
            state = self._receive(batch // micro_batches, before)
            total, logs = self.module.loss(*map(cut, args), **{k: cut(v) for k, v in named.items()}, state=state)
            parts.append(total * share + self._send(logs["state"]))
        return torch.stack(parts).sum()

    def _neighbour(self, rank: int) -> int:
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def _receive(self, batch: int, tick: int) -> State:
        """The states at the beginning of this part."""
        start = self.module.init_state(batch)
        if self.rank == 0:
            return start
        like = [x.detach() for x in start.states.values()]
        source = self._neighbour(self.rank - 1)
        found = _Receive.apply(source, self.group, self._anchor, *like)  # type: ignore[no-untyped-call]
        return State(tick, dict(zip(start.states, found, strict=True)))

    def _send(self, state: State) -> torch.Tensor:
        """Hand the states over; a zero that brings their cotangents back."""
        if self.rank == self.size - 1 or not state.states:
            return torch.zeros(())
        target, held = self._neighbour(self.rank + 1), state.states.values()
        zero: torch.Tensor = _Send.apply(target, self.group, *held)  # type: ignore[no-untyped-call]
        return zero


class _Cut:
    """The n-th of equal groups of sequences."""

    def __init__(self, n: int, size: int) -> None:
        self.n, self.size = n, size

    def __call__(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.narrow(0, self.n * self.size, self.size)
        if isinstance(value, dict):
            return {k: self(v) for k, v in value.items()}
        return value
