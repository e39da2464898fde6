"""The tick of an optimizer, and the numbers that follow from it for all entries: on the host, or on the device.

On the host they are Python numbers, and go to kernels as arguments: nothing is copied, nothing is compiled anew. With
``capturable`` the tick is a tensor on the device and a kernel counts it, so that a CUDA graph may hold the step.
"""

from __future__ import annotations

from typing import Any

import torch

from nldsl.backends.torch.loader import load
from nldsl.backends.torch.update_numbers import write_numbers_module
from nldsl.backends.triton.update_numbers import NAME, write_numbers_kernel
from nldsl.ir.entrywise import Entrywise
from nldsl.runtime.optimizer_rows import state_type


class SharedNumbers:
    """``stored``: whether the numbers are tensors of one entry, in the type that kernels compute in."""

    def __init__(self, rule: Entrywise, like: torch.Tensor, capturable: bool) -> None:
        self.rule, self.capturable = rule, capturable
        self.device, self.dtype = like.device, state_type(like.dtype)
        self.stored = capturable or self.dtype == torch.float64
        self.step = torch.tensor(0, device=self.device if capturable else "cpu")
        starts = {name: start for name, start, _ in rule.numbers}
        self._held = starts
        self._numbers = None if capturable else load(write_numbers_module(rule), "numbers").numbers
        if capturable:
            self._kernel = load(write_numbers_kernel(rule), "numbers_kernel")
            self._on_device = torch.tensor([*starts.values(), 0.0], dtype=self.dtype).to(self.device)
            count = len(rule.needed_numbers()) + len(rule.needed_clocks())
            self._shared = torch.zeros(count + 1, dtype=self.dtype, device=self.device)
            self._rate = torch.zeros(1, dtype=self.dtype, device=self.device)
            self._factor: float | None = None

    @property
    def tick(self) -> int:
        """How many ticks were done; waits for the device where it counts."""
        return int(self.step)

    def restore(self, own: dict[str, Any]) -> None:
        """Go on from the entries of ``Optimizer.state`` for one parameter."""
        self.step.fill_(int(own["step"]))
        self._held = {name: float(own[name].reshape(-1)[0]) for name in self._held}
        if self.capturable:
            self._on_device.copy_(torch.tensor([*self._held.values(), 0.0]))

    def shown(self) -> dict[str, torch.Tensor]:
        """What ``Optimizer.state`` has for every parameter."""
        if self.capturable:
            return {"step": self.step, **{name: self._on_device[n] for n, name in enumerate(self._held)}}
        return {"step": self.step, **{n: torch.tensor(x, dtype=self.dtype) for n, x in self._held.items()}}

    def next(self, factor: float | torch.Tensor) -> tuple[list[Any], tuple[bool, ...]]:
        """One tick: the shared values, the flags of clocks, the rate; and the flags as the host knows them (true where
        only the device does)."""
        clocks = len(self.rule.needed_clocks())
        if self.capturable:
            getattr(self._kernel, NAME)[(1,)](self.step, self._on_device, self._shared, num_warps=1)
            rate = factor if isinstance(factor, torch.Tensor) and factor.device == self.device else self._rate
            if rate is self._rate and (not isinstance(factor, float) or factor != self._factor):
                rate.fill_(factor)
                self._factor = factor if isinstance(factor, float) else None
            return [*self._shared[:-1].unbind(0), rate], (True,) * clocks
        self.step += 1
        assert self._numbers is not None
        shared, new = self._numbers(int(self.step), self._held)
        # as they are stored, so that going on from a checkpoint is exact
        self._held = {name: torch.tensor(value, dtype=self.dtype).item() for name, value in new.items()}
        numbers: list[Any] = [*shared, float(factor)]
        if self.stored:  # a number of the host would be float32
            numbers = list(torch.tensor(numbers, dtype=self.dtype).to(self.device).unbind(0))
        return numbers, tuple(bool(x) for x in shared[len(shared) - clocks :]) if clocks else ()
