"""The torch backend: a readable standalone Python module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.backends.interface import LoopKernels
from nldsl.backends.torch.loader import Emitted, load
from nldsl.backends.torch.names import identifier
from nldsl.ir.schedule import Schedule, needs_next


@dataclass(frozen=True)
class TorchBackend:
    """``kernels``: what another backend has for loops over segments; then ``name`` is that of the other backend."""

    name: str = "torch"
    stored: bool = True  # the source is all there is: the cache may keep it
    kernels: LoopKernels | None = None

    def emit(self, schedule: Schedule) -> str:
        from nldsl.backends.torch.emit import emit  # not needed for a module from the cache

        return emit(schedule, kernels=self.kernels)

    def functions(self, source: str) -> Any:
        """The functions of source that this backend has written for another one, see ``LoopCall.plain``."""
        return load(source, "functions")

    def load(self, source: str, schedule: Schedule) -> Emitted:
        return load(source, identifier(schedule.program.name), schedule.loss_inputs, needs_next(schedule))
