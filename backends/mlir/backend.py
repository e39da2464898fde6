"""The MLIR backend: the torch backend's module, in which loops over segments are native functions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nldsl.backends.interface import Backend, LoopCall, LoopSource
from nldsl.backends.mlir.native_loop import NativeLoop
from nldsl.backends.mlir.tick_loop import TickLoop
from nldsl.backends.mlir.views import FallbackWarning, UnsupportedError
from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.ir.schedule import Schedule
from nldsl.source import NO_SPAN, Span

if TYPE_CHECKING:
    from nldsl.backends.mlir.native_step import NativeStep, NoStep


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
    """``emitter`` is the backend whose module the loops are part of, ``kernels`` its source of native loops,
    ``written`` the backend of the module without them. The module needs nldsl to run: the native functions are
    compiled when they are first called."""

    emitter: Backend
    kernels: NativeKernels
    written: Backend
    name: str = "mlir"
    standalone: bool = False
    ticks: bool = True  # loops over ticks are native too
    serial: bool = True  # a segment is done in one piece, before the next one

    def emit(self, schedule: Schedule) -> str:
        return self.emitter.emit(schedule)

    def load(self, source: str, schedule: Schedule) -> Any:
        from nldsl.backends.mlir.step_emitted import NativeModule, Written

        def make() -> Any:
            """No derived way back either: it has no second derivative."""
            bare = replace(schedule, tick_form=None, tick=None, backwards=())
            return self.written.load(self.written.emit(bare), bare)

        return NativeModule(self.emitter.load(source, schedule), self._step(schedule), Written(make))

    def _step(self, schedule: Schedule) -> NativeStep | NoStep | None:
        """One tick as one function, for a program that has such a form."""
        from nldsl.backends.mlir.native_step import NativeStep, NoStep

        if schedule.tick is None:
            return None
        try:
            step = NativeStep(schedule.tick, schedule.program)
            if self.kernels.required:
                step.written("f32").write()
        except UnsupportedError as problem:
            if self.kernels.required:
                message = f"`step` has no native form: {problem}"
                hints = ("use the torch backend",)
                raise DiagnosticError(Diagnostic("NL0795", message, NO_SPAN, hints=hints)) from None
            return NoStep(str(problem))
        return step

    def text(self, schedule: Schedule) -> str:
        """The MLIR of every native loop of a program."""
        self.emitter.emit(schedule)
        return "\n".join(f"module @loop_{n} {{\n{loop.text()}}}\n" for n, loop in enumerate(self.kernels.made))
