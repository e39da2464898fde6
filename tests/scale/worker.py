"""One process of a run on several: trains the model of ``memory.nl`` and writes its parameters.

    python -m torch.distributed.run --nproc-per-node N worker.py MODE STEPS FILE

MODE: one (all data here), ddp, fsdp, sequence. The data are the same in all modes: ranks have sequences, or ticks.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

import nldsl
from nldsl.runtime.module import Module
from nldsl.runtime.optimizer import LevelOptimizers
from nldsl.runtime.parallel import ShardedOptimizers, data_parallel, shard
from nldsl.runtime.sequence_parallel import SequenceParallel

BATCH, TICKS, WIDTH = 4, 24, 6


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(BATCH, TICKS, WIDTH, generator=generator)
    return x, x.roll(1, 1) * 0.5


def mine(x: Tensor, dim: int) -> Tensor:
    """This rank's part along a dim; the parts of ticks differ in length."""
    rank, size = dist.get_rank(), dist.get_world_size()
    if dim == 0:
        return x.chunk(size, 0)[rank]
    cuts = [round(TICKS * r / size) + (1 if 0 < r < size else 0) for r in range(size + 1)]
    return x[:, cuts[rank] : cuts[rank + 1]]


def train(mode: str, steps: int) -> dict[str, Tensor]:
    module: Module = nldsl.compile(Path(__file__).parent / "memory.nl")
    if mode == "one":
        optimizer = LevelOptimizers(module)
        for step in range(steps):
            x, y = batch(step)
            optimizer.zero_grad()
            module.loss(x=x, y=y)[0].backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    elif mode == "ddp":
        wrapped, optimizer = data_parallel(module), LevelOptimizers(module)
        for step in range(steps):
            x, y = (mine(v, 0) for v in batch(step))
            optimizer.zero_grad()
            wrapped(x=x, y=y).backward()
            optimizer.step()
    elif mode == "fsdp":
        shard(module)
        sharded = ShardedOptimizers(module)
        for step in range(steps):
            x, y = (mine(v, 0) for v in batch(step))
            sharded.zero_grad()
            module.loss(x=x, y=y)[0].backward()  # type: ignore[no-untyped-call]
            sharded.step()
        return {n: p.full_tensor().clone() for n, p in module.named_parameters()}  # type: ignore[attr-defined]
    else:
        parts, optimizer = SequenceParallel(module), LevelOptimizers(module)
        for step in range(steps):
            x, y = (mine(v, 1) for v in batch(step))
            optimizer.zero_grad()
            parts.loss(x=x, y=y, micro_batches=2 if mode == "pipeline" else 1).backward()  # type: ignore[no-untyped-call]
            parts.sum_gradients()
            optimizer.step()
    return {n: p.detach().clone() for n, p in module.named_parameters()}


def main() -> None:
    mode, steps, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    if mode != "one":
        dist.init_process_group("gloo")
    params = train(mode, steps)
    if mode == "one" or dist.get_rank() == 0:
        save_file({n: p.contiguous() for n, p in params.items()}, path)
    if mode != "one":
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
