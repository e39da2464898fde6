"""Deep memories that learn with the gradient at the start of a segment, beside their compiled sequential form.

The sequential form is a loop over ticks, which ``torch.compile`` unrolls: it is compiled for few ticks, and ratios are
for each tick.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

import nldsl
from bench.gpu.measure import Machine, Row, Run, Shape, Tensors, called, inputs_of, largest_error, measure

SHAPE: Shape = (8, 2048, 16, 64)
TINY: Shape = (1, 20, 1, 16)
SEQUENTIAL_TICKS = 16
DEEP = """
from "memories/titans" import Titans
from "memories/ttt" import TTTMlp
from "structures" import TwoLayer

block Mixer_TttMlp(q: [heads, d], k: [heads, d], v: [heads, d], rate: [heads], heads: dim, d: dim) {
  memory m: heads of TTTMlp(d)
  return m.step(q, k, v, rate)
}
block Mixer_Titans(
  q: [heads, d], k: [heads, d], v: [heads, d], rate: [heads], beta: [heads], keep: [heads], heads: dim, d: dim
) {
  memory m: heads of Titans(d, d, structure = TwoLayer(d, d, 4 * d, silu), chunk = 64)
  return m.step(q, k, v, rate, beta, keep)
}
"""
ENTRIES = ("Mixer_TttMlp", "Mixer_Titans")


def compiled(entry: str, shape: Shape, **options: Any) -> Any:
    """The module of one of ``DEEP``."""
    return nldsl.compile("deep.nl", entry, text=DEEP, heads=shape[2], d=shape[3], **options)


def kernels(entry: str, shape: Shape, keep_states: bool | None = None) -> Any:
    """The module with kernels alone. ``keep_states``: see ``nldsl.compile``."""
    return compiled(entry, shape, backend="triton", require_backend=True, keep_states=keep_states)


def sequential(entry: str, shape: Shape) -> Any:
    """The loop over ticks in PyTorch."""
    return compiled(entry, shape, disabled=frozenset({"chunk"}))


def streams(module: Any, shape: Shape, dtype: torch.dtype, device: str) -> Tensors:
    """Random streams with rates at which a memory of unit inputs learns and stays bounded."""
    x = inputs_of(module, shape, dtype, device, dtype)
    x["rate"] = (0.05 * x["rate"].detach()).requires_grad_()
    return x


def check(entry: str, machine: Machine) -> float:
    """The largest relative difference between kernels and the loop over ticks, values and gradients, in float32."""
    shape: Shape = (2, 100, 2, 64) if machine.real else (1, 20, 1, 16)
    ours, plain = kernels(entry, shape).to(machine.device), sequential(entry, shape).to(machine.device)
    plain.load_state_dict(ours.state_dict())
    found = []
    for module in (ours, plain):
        x = streams(module, shape, torch.float32, machine.device)
        y = module(**x)
        wanted = [*x.values(), *module.parameters()]
        found.append([y, *torch.autograd.grad(y.square().sum(), wanted)])
    return largest_error(*found)


def rows(entry: str, machine: Machine) -> Iterator[tuple[Row, Row]]:
    """Each row with the one that ratios refer to: kernels, then the sequential form for few ticks."""
    shape = SHAPE if machine.real else TINY
    few: Shape = (shape[0], SEQUENTIAL_TICKS, *shape[2:])
    ours = kernels(entry, shape).to(machine.device, machine.low)
    plain = sequential(entry, shape).to(machine.device, machine.low)
    loop: Run = partial(called, plain)
    runs: list[tuple[str, Shape, Run, float]] = [("nldsl triton", shape, partial(called, ours), 40)]
    kept = kernels(entry, shape, keep_states=True).to(machine.device, machine.low)
    kept.load_state_dict(ours.state_dict())
    if machine.real:
        runs.append(("sequential, compiled", few, torch.compile(loop), 120))
    runs.append(("sequential", few, loop, 10))
    runs.append(("  states kept", shape, partial(called, kept), 60))
    base: Row | None = None
    for what, size, run, needs in runs:
        row = Row(entry, size, what)
        base = base or row
        if machine.real and machine.budget.left < needs:
            row.note = "left out: no time"
        else:
            measure(row, run, streams(ours, size, machine.low, machine.device), machine.device, 1.0)
        yield row, base
