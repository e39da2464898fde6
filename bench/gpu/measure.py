"""What every part of the benchmark shares: rows, the time that is left, random streams, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
Run = Callable[[Tensors], torch.Tensor]
Shape = tuple[int, int, int, int]  # batch, ticks, heads, width of a head


@dataclass
class Row:
    """Milliseconds; GiB at the peak, and ``kept`` between forward and backward beside inputs and the result."""

    program: str
    shape: Shape
    what: str
    forward: float = float("nan")
    both: float = float("nan")
    memory: float = float("nan")
    kept: float = float("nan")
    note: str = ""

    def shown(self, base: Row | None = None) -> str:
        """A line of the table. ``base``: the row that ratios refer to, for each tick of each sequence."""
        ratio = ""
        if base is not None and base.both == base.both and self.both == self.both:
            ratio = f"{self.both / ticks(self) / (base.both / ticks(base)):6.2f}x"
        times = f"{self.forward:9.3f} {self.both:9.3f} ms {ratio:>8} {self.memory:6.2f} GiB, {self.kept:6.3f} kept"
        return f"  {self.program:18} {'x'.join(map(str, self.shape)):18} {self.what:18} {times} {self.note}"


def ticks(row: Row) -> int:
    """Ticks of all sequences."""
    return row.shape[0] * row.shape[1]


@dataclass
class Budget:
    """The time that the benchmark may take, in seconds."""

    seconds: float
    begin: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.begin)


@dataclass(frozen=True)
class Machine:
    """``device`` is ``cuda``, or ``cpu`` with Triton's interpreter, where all sizes are tiny and times say nothing."""

    device: str
    budget: Budget

    @property
    def real(self) -> bool:
        return self.device == "cuda"

    @property
    def low(self) -> torch.dtype:
        """The type that is timed: Triton's interpreter has no products of bfloat16."""
        return torch.bfloat16 if self.real else torch.float32


def inputs_of(module: Any, shape: Shape, dtype: torch.dtype, device: str, gates: torch.dtype) -> Tensors:
    """Random streams: keys of length 1, gates near 1 (in a type of their own: the peers want them in float32)."""
    generator = torch.Generator(device=device).manual_seed(0)
    found = {}
    for declared in module.program.inputs:
        sizes = [int(str(s)) for s in declared.type.shape]
        x = torch.randn(*shape[:2], *sizes, generator=generator, device=device)
        if declared.name == "k":
            x = torch.nn.functional.normalize(x, dim=-1)
        if declared.name in ("rate", "keep", "beta"):
            gate = torch.sigmoid(x + (4.0 if declared.name == "keep" else 0.0))
            found[declared.name] = gate.to(gates).requires_grad_()
        else:
            found[declared.name] = x.to(dtype).requires_grad_()
    return found


def called(module: Any, x: Tensors) -> torch.Tensor:
    """The only output of a module."""
    found: torch.Tensor = module(**x)
    return found


def timed(run: Callable[[], Any], device: str, seconds: float) -> float:
    """The median in milliseconds, after two runs that do not count."""
    for _ in range(2):
        run()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 30 and (len(times) < 3 or time.perf_counter() - begin < seconds):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(row: Row, run: Run, x: Tensors, device: str, seconds: float) -> Row:
    """Fill in the times of a row; what fails is said in its note."""

    def both() -> None:
        y = run(x)
        torch.autograd.grad(y, list(x.values()), torch.ones_like(y), allow_unused=True)

    try:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with torch.no_grad():
            row.forward = timed(lambda: run(x), device, seconds)
        row.both = timed(both, device, seconds)
        if device == "cuda":
            row.memory = torch.cuda.max_memory_allocated() / 2**30
            row.kept = kept(run, x) / 2**30
    except Exception as problem:  # noqa: BLE001  a table is worth more than its weakest row
        row.note = said(problem)
    return row


def kept(run: Run, x: Tensors) -> int:
    """The bytes of a GPU that a call holds for its backward pass, beside what it was given and its result."""
    before = torch.cuda.memory_allocated()
    y = run(x)
    return int(torch.cuda.memory_allocated() - before - y.untyped_storage().nbytes())


def said(problem: Exception) -> str:
    """A failure in a line."""
    lines = str(problem).splitlines()
    return f"{type(problem).__name__}: {lines[0][:90] if lines else ''}"


def largest_error(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest difference relative to the largest value, over all tensors; NaN if one is."""
    errors = [((a - b).abs().max() / b.abs().max()).detach() for a, b in zip(found, wanted, strict=True)]
    return float(torch.stack(errors).max())


def largest_rmse(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest relative root mean square difference, over all tensors; NaN if one is."""
    errors = []
    for got, want in zip(found, wanted, strict=True):
        errors.append(((got.float() - want).square().mean().sqrt() / want.square().mean().sqrt()).detach())
    return float(torch.stack(errors).max())
