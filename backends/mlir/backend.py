"""The MLIR backend: the torch backend's module, in which loops over segments are native functions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from nldsl.backends.interface import Backend, LoopCall, LoopSource
from nldsl.backends.mlir.native_loop import NativeLoop
from nldsl.backends.mlir.tick_loop import TickLoop
from nldsl.backends.mlir.views import UnsupportedError
from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.ir.schedule import Schedule
from nldsl.source import NO_SPAN, Span


class FallbackWarning(UserWarning):
    """A loop that keeps the torch form."""


@dataclass
class NativeKernels:
    """Loops as native functions. ``required``: what cannot be one is an error. ``made`` are the loops so far."""

    required: bool = False
    made: list[NativeLoop] = field(default_factory=list)

    def loop(self, call: LoopCall) -> LoopSource | None:
        """See ``LoopKernels``."""
        from nldsl.backends.mlir.custom_ops import register
        from nldsl.backends.mlir.wrapper import source_of

        try:
            if call.derived is None:
                raise UnsupportedError("it has no backward pass of its own")
            kind = TickLoop if call.phase.size == 1 else NativeLoop
            native = kind(call.phase, call.derived, call.program)
            source = source_of(call, native, register(native))
        except UnsupportedError as problem:
            if call.last:
                self._refuse(call, problem)
            return None
        self.made.append(native)
        return source

    def _refuse(self, call: LoopCall, problem: UnsupportedError) -> None:
        states = ", ".join(call.phase.states)
        message = f"the loop of {states} has no native form: {problem}"
        if self.required:
            raise DiagnosticError(Diagnostic("NL0795", message, _span(call), hints=("use the torch backend",)))
        warnings.warn(f"{message}; it keeps the form of the torch backend", FallbackWarning, stacklevel=2)


def _span(call: LoopCall) -> Span:
    spans = [call.program.state(s).span for s in call.phase.states]
    return next((s for s in spans if not s.is_none), NO_SPAN)


@dataclass(frozen=True)
class MlirBackend:
    """``emitter`` is the backend whose module the loops are part of, ``kernels`` its source of native loops. The module
    needs nldsl to run: the native functions are compiled when they are first called."""

    emitter: Backend
    kernels: NativeKernels
    name: str = "mlir"
    standalone: bool = False
    ticks: bool = True  # loops over ticks are native too
    serial: bool = True  # a segment is done in one piece, before the next one

    def emit(self, schedule: Schedule) -> str:
        return self.emitter.emit(schedule)

    def load(self, source: str, schedule: Schedule) -> Any:
        emitted = self.emitter.load(source, schedule)
        if schedule.tick is None:
            return emitted
        from nldsl.backends.mlir.native_step import NativeStep
        from nldsl.backends.mlir.step_emitted import WithStep

        try:
            step = NativeStep(schedule.tick, schedule.program)
            if self.kernels.required:
                step.written("f32").write()
        except UnsupportedError as problem:
            message = f"`step` has no native form: {problem}"
            if self.kernels.required:
                raise DiagnosticError(
                    Diagnostic("NL0795", message, NO_SPAN, hints=("use the torch backend",))
                ) from None
            return emitted
        return WithStep(emitted, step)

    def text(self, schedule: Schedule) -> str:
        """The MLIR of every native loop of a program."""
        self.emitter.emit(schedule)
        return "\n".join(f"module @loop_{n} {{\n{loop.text()}}}\n" for n, loop in enumerate(self.kernels.made))
