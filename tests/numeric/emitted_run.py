"""Emitted modules run in one call or in several, as every comparison with the loop over ticks needs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.backends.torch.emit import emit
from nldsl.backends.torch.loader import load
from nldsl.ir.program import Program
from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.schedule import schedule
from tests.numeric.chunk_run import BATCH_SIZE, Data

Result = tuple[dict[str, Tensor], dict[str, Tensor]]


def calls_of(module: Any, program: Program, data: Data, calls: Sequence[int]) -> Result:
    """The outputs (time first) and the states at the end; ``calls`` are the numbers of ticks of the calls."""
    dtype = next(iter(data.inputs.values())).dtype
    state = module.init_state(data.params, BATCH_SIZE, dtype, torch.device("cpu"))
    parts, at = [], 0
    for count in calls:
        inputs = {k: v[at : at + count].movedim(0, 1) for k, v in data.inputs.items()}
        outputs, _, _, state = module.forward(data.params, inputs, state)
        parts.append(outputs)
        at += count
    joined = {k: torch.cat([p[k] for p in parts], 1).movedim(1, 0) for k in parts[0]}
    return joined, {s.name: state[s.name] for s in program.states}


def run(program: Program, data: Data, options: ChunkOptions, calls: Sequence[int]) -> Result:
    """``calls_of`` the module that the torch backend emits."""
    planned, _ = chunk(schedule(program), options)
    return calls_of(load(emit(planned)), program, data, calls)


def assert_close(expected: Result, found: Result, bound: float = 1e-9) -> None:
    """Equal outputs and states, each entry relative to 1 + its size."""
    for want, got in zip(expected, found, strict=True):
        for name, value in want.items():
            assert ((got[name] - value).abs() / (1 + value.abs())).max() < bound, name
