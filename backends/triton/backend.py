"""The Triton backend: the module of another backend, in which loops over segments are kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.backends.interface import Backend
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.extras import require
from nldsl.ir.schedule import Schedule


@dataclass(frozen=True)
class TritonBackend:
    """``emitter`` is the backend whose module the loops are part of, ``kernels`` its source of loops."""

    emitter: Backend
    kernels: LoopKernelWriter
    name: str = "triton"
    ticks: bool = True  # loops over ticks are kernels too

    def emit(self, schedule: Schedule) -> str:
        """The module as text; needs no Triton."""
        return self.emitter.emit(schedule)

    def load(self, source: str, schedule: Schedule) -> Any:
        """The functions of the module. Raises DiagnosticError where Triton is missing."""
        require("triton", extra="triton", why="to run kernels")
        return self.emitter.load(source, schedule)

    def text(self, schedule: Schedule) -> str:
        """The kernels of every loop of a program, forward and backward."""
        self.emitter.emit(schedule)
        parts = [f"# no kernels for the loop of {states}: {reason}" for states, reason in self.kernels.refused]
        parts += [text for job in self.kernels.written for text in job.texts]
        return "\n\n\n".join(parts or ["# the program has no loop that needs a kernel"]) + "\n"
