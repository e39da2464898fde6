"""Times of one compiled program: forward, forward and backward, one decoded token."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from nldsl.ir.program import InputDecl, Program

if TYPE_CHECKING:
    from nldsl.runtime.module import Module


@dataclass(frozen=True)
class Timing:
    """Milliseconds (the median). ``tokens`` are those of one run, all sequences together."""

    name: str
    milliseconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """All sequences together."""
        return 1e3 * self.tokens / self.milliseconds


def measure(module: Module, batch: int, ticks: int, repetitions: int, seed: int = 0) -> list[Timing]:
    """Time a module on random inputs of ``batch`` sequences of ``ticks`` tokens."""
    inputs = random_inputs(module, batch, ticks, seed)
    with torch.no_grad():
        forward = _median(lambda: module(**inputs), repetitions)
    found = [Timing("forward", forward, batch * ticks)]
    if any(p.requires_grad for p in module.parameters()) or any(x.is_floating_point() for x in inputs.values()):
        found.append(Timing("forward+backward", _median(_training(module, inputs), repetitions), batch * ticks))
    found.append(Timing("one token", _median(_decoding(module, inputs, batch), max(repetitions, 10)), batch))
    return found


def random_inputs(module: Module, batch: int, ticks: int, seed: int) -> dict[str, torch.Tensor]:
    """Streams for the inputs: vectors of length one, fractions for scalars (rates, retentions), small integers."""
    generator = torch.Generator().manual_seed(seed)
    program: Program = module.program

    def draw(declared: InputDecl) -> torch.Tensor:
        shape = (batch, ticks, *(int(str(s)) for s in declared.type.shape))
        if declared.type.kind == "int":
            return torch.randint(0, _entries(program), shape, generator=generator)
        if not declared.type.shape:
            return torch.rand(shape, generator=generator)
        return torch.nn.functional.normalize(torch.randn(shape, generator=generator), dim=-1)

    return {d.name: draw(d) for d in program.inputs if not d.ahead}


def _entries(program: Program) -> int:
    """How many values an integer input may take: the rows of the smallest table of the program."""
    first = [p.type.shape[0] for p in program.params if len(p.type.shape) == 2]
    return min((s for s in first if isinstance(s, int)), default=2)


def _training(module: Module, inputs: dict[str, torch.Tensor]) -> Callable[[], Any]:
    leaves = {n: x.clone().requires_grad_() if x.is_floating_point() else x for n, x in inputs.items()}

    def run() -> None:
        module.zero_grad()
        y = module(**leaves)
        parts = y if isinstance(y, tuple) else tuple(y.values()) if isinstance(y, dict) else (y,)
        total = sum((p.float().sum() for p in parts), torch.zeros(()))
        total.backward()

    return run


def _decoding(module: Module, inputs: dict[str, torch.Tensor], batch: int) -> Callable[[], Any]:
    state = module.init_state(batch)
    first = {n: x[:, 0] for n, x in inputs.items()}

    def run() -> None:
        nonlocal state
        with torch.no_grad():
            _, state = module.step(**first, state=state)

    return run


def _median(run: Callable[[], Any], repetitions: int) -> float:
    """Median milliseconds; the first call warms up and does not count."""
    times = []
    for n in range(repetitions + 1):
        start = time.perf_counter()
        run()
        if n:
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
