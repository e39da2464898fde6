"""Linear memories over sequences, beside fla's kernels, ``torch.compile`` of the torch backend and attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

import nldsl
from bench.gpu.measure import Machine, Row, Run, Shape, Tensors, called, inputs_of, largest_error, largest_rmse, measure

SHAPES: tuple[Shape, ...] = ((8, 2048, 16, 128), (1, 32768, 16, 128), (8, 2048, 16, 64), (1, 32768, 16, 64))
QUICK: tuple[Shape, ...] = ((2, 512, 4, 64),)
TINY: Shape = (1, 20, 1, 16)
HEADS = """
from "memories/delta" import DeltaNet, GatedDelta, KimiDelta
from "memories/gated_linear" import GatedLinearAttention

block Mixer_Gla(q: [heads, d], k: [heads, d], v: [heads, d], keep: [heads, d], heads: dim, d: dim) {
  memory m: heads of GatedLinearAttention(d, d)
  return m.step(q, k, v, keep)
}
block Mixer_Delta(q: [heads, d], k: [heads, d], v: [heads, d], rate: [heads], heads: dim, d: dim) {
  memory m: heads of DeltaNet(d, d)
  return m.step(q, k, v, rate)
}
block Mixer_GatedDelta(q: [heads, d], k: [heads, d], v: [heads, d], rate: [heads], keep: [heads], heads: dim, d: dim) {
  memory m: heads of GatedDelta(d, d)
  return m.step(q, k, v, rate, keep)
}
block Mixer_Kimi(q: [heads, d], k: [heads, d], v: [heads, d], rate: [heads], keep: [heads, d], heads: dim, d: dim) {
  memory m: heads of KimiDelta(d, d)
  return m.step(q, k, v, rate, keep)
}
"""
ENTRIES = ("Mixer_GatedDelta", "Mixer_Delta", "Mixer_Gla", "Mixer_Kimi")


def compiled(entry: str, shape: Shape, **options: Any) -> Any:
    """The module of one of ``HEADS``."""
    return nldsl.compile("mixers.nl", entry, text=HEADS, heads=shape[2], d=shape[3], **options)


def kernels(entry: str, shape: Shape, keep_states: bool | None = None) -> Any:
    """The module with kernels alone. ``keep_states``: see ``nldsl.compile``."""
    return compiled(entry, shape, backend="triton", require_backend=True, keep_states=keep_states)


def check(entry: str, machine: Machine) -> float:
    """The largest relative difference between kernels and the loop over ticks, values and gradients, in float32."""
    shape: Shape = (2, 100, 4, 64) if machine.real else (2, 20, 1, 16)
    found = []
    for module in (kernels(entry, shape), compiled(entry, shape, disabled=frozenset({"chunk"}))):
        module.to(machine.device)
        x = inputs_of(module, shape, torch.float32, machine.device, torch.float32)
        y = module(**x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(x.values()))])
    return largest_error(*found)


def check_low(entry: str, machine: Machine) -> float:
    """The largest relative root mean square difference of what is timed, the module in bfloat16, from the loop over
    ticks in float32 with the same (rounded) inputs."""
    shape: Shape = (2, 100, 4, 64)
    plain = compiled(entry, shape, disabled=frozenset({"chunk"})).to(machine.device)
    ours = kernels(entry, shape).to(machine.device, torch.bfloat16)
    x = inputs_of(ours, shape, torch.bfloat16, machine.device, torch.bfloat16)
    wide = {name: value.detach().float().requires_grad_() for name, value in x.items()}
    found = []
    for module, given in ((ours, x), (plain, wide)):
        y = module(**given)
        found.append([y, *torch.autograd.grad(y, list(given.values()), torch.ones_like(y))])
    return largest_rmse(*found)


def rows(entry: str, shape: Shape, machine: Machine) -> Iterator[tuple[Row, Row]]:
    """Each row with the one that ratios refer to."""
    device, low = machine.device, torch.bfloat16  # the module takes inputs in its own type
    ours = kernels(entry, shape).to(device, low)
    x = inputs_of(ours, shape, low, device, low)
    wide = inputs_of(ours, shape, low, device, torch.float32)
    kept = kernels(entry, shape, keep_states=True).to(device, low)
    runs: list[tuple[str, Run, float]] = [("nldsl triton", partial(called, ours), 20)]
    theirs = peer(entry)
    if theirs is not None:
        runs.append(("fla", theirs, 40))
    runs.append(("attention", attention, 10))
    if shape[1] <= 4096 and machine.real:
        plain = compiled(entry, shape).to(device, low)
        runs.append(("torch.compile", torch.compile(partial(called, plain)), 150))
    runs.append(("  states kept", partial(called, kept), 40))
    base: Row | None = None
    for what, run, needs in runs:
        row = Row(entry, shape, what)
        base = base or row
        if machine.real and machine.budget.left < needs:
            row.note = "left out: no time"
        else:
            measure(row, run, wide if what == "fla" else x, device, 1.0)
        yield row, base


def peer(entry: str) -> Run | None:
    """fla's kernel for the same recurrence, or None."""
    try:
        from fla.ops.delta_rule import chunk_delta_rule
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        from fla.ops.gla import chunk_gla
        from fla.ops.kda import chunk_kda
    except Exception:  # noqa: BLE001  fla fails to import in many ways where it does not fit
        return None

    def args(x: Tensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x["q"], x["k"], x["v"]

    table: Mapping[str, Callable[[Tensors], Any]] = {
        "Mixer_Delta": lambda x: chunk_delta_rule(*args(x), x["rate"].to(x["q"].dtype), scale=1.0),
        "Mixer_GatedDelta": lambda x: chunk_gated_delta_rule(
            *args(x), g=x["keep"].log(), beta=x["rate"].to(x["q"].dtype), scale=1.0
        ),
        "Mixer_Gla": lambda x: chunk_gla(*args(x), x["keep"].log(), scale=1.0),
        "Mixer_Kimi": lambda x: chunk_kda(*args(x), g=x["keep"].log(), beta=x["rate"].to(x["q"].dtype), scale=1.0),
    }
    run = table[entry]
    return lambda x: run(x)[0]


def attention(x: Tensors) -> torch.Tensor:
    """Causal softmax attention over the same queries, keys and values."""
    q, k, v = (x[n].transpose(1, 2) for n in "qkv")
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2)
