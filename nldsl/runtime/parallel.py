"""Compiled modules on several processes: data parallel (DDP), sharded (FSDP2); see ``sequence_parallel.py`` too.

Each rank has its own sequences of a batch. What a program computes must then be the same as on one process with all of
them; where it cannot be, that is said before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from nldsl.ir.demand import reachable, roots
from nldsl.ir.program import Program
from nldsl.ir.types import BATCH
from nldsl.runtime.module import Module
from nldsl.runtime.optimizer import LevelOptimizers


class ParallelError(ValueError):
    """The program, or its optimizer, cannot be divided in this way."""


def mixes_sequences(program: Program) -> str:
    """Where a program reduces over the sequences of its batch, in words; empty if it does not."""
    shared = next((s.name for s in program.states if s.shared), None)
    if shared is not None:
        return f"the state `{shared}` is shared by all sequences of the batch"
    for value in sorted(reachable(program.body, roots(program))):
        instr = program.body[value]
        if instr.op == "batch_mean" or (instr.op == "axis_sum" and instr.attr("axis") == BATCH):
            what = f"`{instr.name}`" if instr.name else "a value"
            return f"{what} is reduced over all sequences of the batch"
    return ""


def _check(program: Program) -> None:
    reason = mixes_sequences(program)
    if reason:
        raise ParallelError(f"`{program.name}` cannot be divided among processes by sequences: {reason}")


class LossOf(nn.Module):
    """The loss of a module as its ``forward``: what wrappers around modules understand."""

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **named: Any) -> torch.Tensor:
        """The loss alone; arguments as for ``Module.loss``."""
        return self.module.loss(*args, **named)[0]


def data_parallel(module: Module, **options: Any) -> nn.parallel.DistributedDataParallel:
    """``DistributedDataParallel`` around the loss of a module: call it with this rank's sequences, then ``backward``.

    Every rank needs the same number of sequences. ``options`` are those of DDP. Raises ParallelError.
    """
    _check(module.program)
    return nn.parallel.DistributedDataParallel(LossOf(module), **options)


def shard(module: Module, **options: Any) -> Module:
    """The module with its parameters divided among the ranks (``fully_shard``), in place.

    ``module(..)``, ``module.loss`` and ``module.step`` gather them for as long as they run; call ``module.unshard()``
    before anything else that reads parameters. ``options`` are those of ``fully_shard``. Raises ParallelError.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    _check(module.program)
    fully_shard(module, **options)
    for name in ("loss", "step"):
        register_fsdp_forward_method(module, name)
    return module


class _Local:
    """What ``LevelOptimizers`` needs of a module, with the shards of this rank as parameters."""

    def __init__(self, module: Module) -> None:
        self.program, self.backend = module.program, module.backend
        self.whole = dict(module.named_parameters())
        self.local = {name: nn.Parameter(_shard(p)) for name, p in self.whole.items()}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.local.items()


def _shard(tensor: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = cast(Any, tensor.detach()).to_local()
    return found


class ShardedOptimizers:
    """The optimizers of the levels of a sharded module. Each rank updates its shards, so a rule must do the same to
    every entry; one that needs whole matrices (``newton_schulz``, norms) is refused with ParallelError."""

    def __init__(self, module: Module, *, lr: float = 1.0, seed: int = 0) -> None:
        self._view = _Local(module)
        self.levels = LevelOptimizers(cast(Module, self._view), lr=lr, seed=seed)
        for level, optimizer in self.levels.optimizers.items():
            for name, param in self.levels._params[level].items():
                if optimizer._program(tuple(self._view.whole[name].shape))[1] is None:
                    raise ParallelError(
                        f"the optimizer of the level `{level}` does not treat the entries of `{name}` "
                        f"{list(param.shape)} one by one, so it cannot train a shard of it: use data_parallel"
                    )

    def step(self) -> tuple[str, ...]:
        """As ``LevelOptimizers.step``."""
        for name, param in self._view.whole.items():
            local = self._view.local[name]
            local.grad = None if param.grad is None else _shard(param.grad)
        return self.levels.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for param in self._view.whole.values():
            param.grad = None
        self.levels.zero_grad()
