"""The Triton backend: the module of another backend, in which loops are kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nldsl.backends.interface import Backend
from nldsl.backends.triton.decode_source import DecodeWriter
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.extras import require
from nldsl.ir.schedule import Schedule


@dataclass(frozen=True)
class TritonBackend:
    """``emitter`` is the backend whose module the loops are part of, ``kernels`` its source of loops; ``decoder`` gives
    such a backend for calls of one tick; ``functions`` imports source that it has written, for second derivatives."""

    emitter: Backend
    kernels: LoopKernelWriter
    decoder: Callable[[DecodeWriter], Backend] | None = None
    functions: Callable[[str], Any] | None = None
    name: str = "triton"
    ticks: bool = True  # loops over ticks are kernels too

    def emit(self, schedule: Schedule) -> str:
        """The module as text; needs no Triton."""
        return self.emitter.emit(schedule)

    def load(self, source: str, schedule: Schedule) -> Any:
        """The functions of the module. Raises DiagnosticError where Triton is missing."""
        triton = require("triton", extra="triton", why="to run kernels")
        emitted = self.emitter.load(source, schedule)
        if self.functions is not None and self.kernels.seconds:
            from nldsl.backends.again import Differentiable

            made = {name: Differentiable(form, self.functions) for name, form in self.kernels.seconds.items()}
            emitted.module.SECOND.update(made)
        if self.decoder is None or schedule.decode is None or not schedule.program.states:
            return emitted
        from nldsl.backends.triton.decode import DecodeStep, DecodingModule, runs_on

        return DecodingModule(emitted, DecodeStep(schedule.program, lambda: self._decoding(schedule), runs_on(triton)))

    def _decoding(self, schedule: Schedule) -> Any:
        """The module of single ticks, or None where no loop of it is a kernel."""
        assert self.decoder is not None
        assert schedule.decode is not None
        writer, planned = DecodeWriter(), schedule.decode()
        backend = self.decoder(writer)
        source = backend.emit(planned)
        return backend.load(source, planned) if writer.written else None

    def text(self, schedule: Schedule) -> str:
        """The kernels of every loop of a program, forward and backward, then those of a single tick."""
        self.emitter.emit(schedule)
        parts = [f"# no kernels for the loop of {states}: {reason}" for states, reason in self.kernels.refused]
        parts += [text for job in self.kernels.written for text in job.texts]
        parts = parts or ["# the program has no loop that needs a kernel"]
        if self.decoder is not None and schedule.decode is not None and schedule.program.states:
            writer = DecodeWriter()
            self.decoder(writer).emit(schedule.decode())
            refused = [f"# no kernel for one tick of {states}: {reason}" for states, reason in writer.refused]
            own = [*refused, *(text for job in writer.written for text in job.texts)]
            parts += ["# -- one tick: module.step", *own] if own else []
        return "\n\n\n".join(parts) + "\n"
