"""Steps of optimizers on a GPU: generated kernels beside PyTorch's own optimizers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bench.gpu.measure import said
from bench.optimizers import RULE, Shapes, newton_schulz_operations, shapes
from nldsl.api import load_program
from nldsl.runtime.optimizer import MemoryOptimizer

Params = list[torch.nn.Parameter]
Timed = Callable[[Callable[[], Any], str, float], float]
CALLS = {"AdamW": ("AdamW(rate = 1e-3)", "optimizers/adam"), "Muon": ("Muon(rate = 1e-3)", "optimizers/muon")}


@dataclass
class StepRow:
    """``milliseconds`` of a step; ``rate`` in GB/s of weights, gradients and states for AdamW, in TFLOP/s of
    Newton-Schulz (without what symmetry saves) for Muon."""

    optimizer: str
    dtype: str
    what: str
    milliseconds: float = float("nan")
    rate: float = float("nan")
    note: str = ""

    def shown(self) -> str:
        """A line of the table."""
        unit = "GB/s" if self.optimizer == "AdamW" else "TFLOP/s"
        head = f"{self.optimizer:8}{self.dtype:10}{self.what:24}"
        return f"  {head}{self.milliseconds:9.3f} ms {self.rate:9.1f} {unit} {self.note}"


def parameters(chosen: Shapes, dtype: torch.dtype, device: str) -> Params:
    """Random parameters with random gradients, the same for everybody."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in chosen:
        found.append(torch.nn.Parameter((0.02 * torch.randn(shape, generator=generator)).to(device, dtype)))
        found[-1].grad = torch.randn(shape, generator=generator).to(device, dtype)
    return found


def ours(name: str, params: Params, backend: str) -> Callable[[], Any]:
    """A step of an optimizer of the standard library."""
    call, file = CALLS[name]
    text = RULE.format(imports=f'from "{file}" import {name}', call=call)
    rule = load_program("rule", text=text).levels[0].optimizer
    return MemoryOptimizer(params, rule, backend=backend).step


def peer(name: str, params: Params, device: str) -> Callable[[], Any]:
    """PyTorch's: fused AdamW; Muon for matrices with fused AdamW for the rest."""
    fused = device == "cuda"
    if name == "AdamW":
        return torch.optim.AdamW(params, lr=1e-3, fused=fused).step
    matrices, rest = [p for p in params if p.dim() == 2], [p for p in params if p.dim() != 2]
    muon, adam = torch.optim.Muon(matrices, lr=1e-3), torch.optim.AdamW(rest, lr=1e-3, fused=fused)

    def step() -> None:
        muon.step()  # type: ignore[no-untyped-call]
        adam.step()

    return step


def check(name: str, device: str) -> float:
    """The largest difference of the change of a step between kernels and PyTorch's operations, in float32, relative to
    the largest change."""
    chosen: Shapes = [(33, 65), (64, 48), (7,), (48, 64)]
    found = []
    for backend in ("torch", "triton"):
        params = parameters(chosen, torch.float32, device)
        before = [p.detach().clone() for p in params]
        step = ours(name, params, backend)
        for _ in range(2):
            step()
        found.append([p.detach() - b for p, b in zip(params, before, strict=True)])
    errors = [(a - b).abs().max() / a.abs().max() for a, b in zip(*found, strict=True)]
    return float(torch.stack(errors).max())


def rows(device: str, timed: Timed, quick: bool, seconds: float) -> Iterator[StepRow]:
    """A transformer of 85 million parameters (six tensors where ``quick``), as long as there is time."""
    begin = time.perf_counter()
    chosen: Shapes = [(40, 24), (24, 40), (24,)] * 2 if quick else shapes(12, 768)
    entries = sum(torch.Size(s).numel() for s in chosen)
    for name in CALLS:
        for dtype in (torch.float32, torch.bfloat16):
            makers: dict[str, Callable[[Params], Callable[[], Any]]] = {
                "nldsl triton": lambda p, n=name: ours(n, p, "triton"),  # type: ignore[misc]
                "nldsl torch": lambda p, n=name: ours(n, p, "torch"),  # type: ignore[misc]
                "torch.optim": lambda p, n=name: peer(n, p, device),  # type: ignore[misc]
            }
            for what, make in makers.items():
                row = StepRow(name, str(dtype).removeprefix("torch."), what)
                if time.perf_counter() - begin > seconds:
                    row.note = "left out: no time"
                else:
                    _measure(row, make, chosen, dtype, device, timed, entries)
                yield row


def _measure(
    row: StepRow, make: Any, chosen: Shapes, dtype: torch.dtype, device: str, timed: Timed, entries: int
) -> None:
    try:
        row.milliseconds = timed(make(parameters(chosen, dtype, device)), device, 1.0)
    except Exception as problem:  # noqa: BLE001  a table is worth more than its weakest row
        row.note = said(problem)
        return
    if row.optimizer == "AdamW":
        own = dtype.itemsize if "torch" in row.what else 4  # states: float32 with kernels
        row.rate = 1e-6 * entries * (3 * dtype.itemsize + 4 * own) / row.milliseconds
    else:
        row.rate = 1e-9 * newton_schulz_operations(chosen) / row.milliseconds
