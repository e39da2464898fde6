"""The MLIR backend: the torch backend's module, in which loops over segments are native functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nldsl.backends.interface import Backend, LoopCall, LoopSource
from nldsl.backends.mlir.function import FallbackWarning, UnsupportedError
from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.ending import Ending, Endings
from nldsl.ir.program import Program
from nldsl.ir.schedule import Schedule, completing, looking, without_backward
from nldsl.source import NO_SPAN, Span

if TYPE_CHECKING:
    from nldsl.backends.again import Differentiable, TorchForm
    from nldsl.backends.mlir.native_loop import NativeLoop
    from nldsl.backends.mlir.native_step import NativeStep, NoStep

    Step = NativeStep | NoStep | None
    Steps = list[Step]

WAITING = ("complete", "look")  # parts of a tick that waits for its next input


def _parts(program: Program) -> tuple[Program, ...]:
    """Programs of a whole tick and of its parts."""
    return program, completing(program), looking(program)


@dataclass
class NativeKernels:
    """Loops as native functions. ``required``: what cannot be one is an error. ``key``: the entry of the program in the
    cache. ``made`` are the loops so far, with their names; ``said``: what has no native form, and why. ``functions``
    imports source that the backend of the module has written."""

    required: bool = False
    key: str = ""
    made: list[tuple[str, NativeLoop]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    functions: Callable[[str], Any] | None = None

    def loop(self, call: LoopCall) -> LoopSource | None:
        """See ``LoopKernels``."""
        from nldsl.backends.again import Differentiable
        from nldsl.backends.mlir.custom_ops import register
        from nldsl.backends.mlir.make_loop import native_of
        from nldsl.backends.mlir.wrapper import layout_of, source_of, torch_form

        try:
            if call.derived is None:
                why = without_backward(call.program, call.phase.states, shared=True)
                raise UnsupportedError(why or "it has no backward pass of its own")
            native = native_of(call, (self.key, len(self.made)))
            if not self.required and self.functions is not None:
                native.second = Differentiable(lambda: torch_form(call, native), self.functions)
            name = register(native, f"{self.required} {call.recompute_above} {layout_of(call, native)}")
            source = source_of(call, native, name)
        except UnsupportedError as problem:
            if call.last:
                self._refuse(call, problem)
            return None
        self.made.append((name, native))
        return source

    def _refuse(self, call: LoopCall, problem: UnsupportedError) -> None:
        states = ", ".join(call.phase.states)
        message = f"the loop of {states} has no native form: {problem}"
        if self.required:
            raise DiagnosticError(Diagnostic("NL0795", message, _span(call), hints=("use the torch backend",)))
        self.say(f"{message}; it keeps the form of the torch backend")

    def say(self, text: str) -> None:
        """Once for each compilation, also of a program from the cache."""
        self.said.append(text)
        warnings.warn(text, FallbackWarning, stacklevel=2)


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
    fused: bool = True  # pointwise work between products is native too
    stored: bool = True  # with what ``kept`` gives

    def emit(self, schedule: Schedule) -> str:
        return self.emitter.emit(schedule)

    def load(self, source: str, schedule: Schedule) -> Any:
        return self._module(source, schedule, self._steps(schedule), lambda: schedule)

    # -- what a cache of programs keeps, see ``Kept``

    def depends(self) -> tuple[str, ...]:
        """What the code depends on besides the program and this package."""
        from nldsl.backends.mlir.cache import depends

        return depends()

    def begin(self, key: str) -> None:
        """What is emitted from now on is of the entry ``key``."""
        self.kernels.key = key

    def kept(self, loaded: Any) -> Any:
        """What is to be known of a module besides its source, as JSON."""
        steps = [step.stored() if step is not None else None for step in (loaded.tick, *loaded.waiting)]
        loops = [[name, native.facts.stored()] for name, native in self.kernels.made]
        return {"loops": loops, "steps": steps, "said": self.kernels.said}

    def load_kept(self, source: str, schedule: Schedule, kept: Any, planned: Callable[[], Schedule]) -> Any:
        """A module from its source and what ``kept`` gave. ``planned``: its whole schedule, made where code is wanted
        that has not been before. Raises KeyError, TypeError or ValueError for what ``kept`` did not give."""
        from nldsl.backends.mlir.custom_ops import put
        from nldsl.backends.mlir.facts import LoopFacts
        from nldsl.backends.mlir.make_loop import restored_loop

        again, key = Again(self, planned), self.kernels.key
        for number, (name, facts) in enumerate(kept["loops"]):
            forms = again.bodies(number, name), again.endings(number, name)
            native = restored_loop(LoopFacts.read(facts), schedule.program, (key, number), *forms)
            native.second = None if self.kernels.required else again.second(number, name)
            put(native, name)
            self.kernels.made.append((name, native))
        steps = [
            self._kept_step(program, found, part, again.tick(n))
            for n, (program, found, part) in enumerate(
                zip(_parts(schedule.program), kept["steps"], ("tick", *WAITING), strict=False)
            )
        ]
        for text in kept["said"]:
            self.kernels.say(text)
        return self._module(source, schedule, steps, again.schedule)

    def _kept_step(self, program: Program, found: Any, part: str, tick: Callable[[], ChunkLoop]) -> Step:
        from nldsl.backends.mlir.native_step import NativeStep, NoStep

        if found is None:
            return None
        if "refused" in found:
            return NoStep(found["refused"])
        return NativeStep(program, found["whole"], tick, (self.kernels.key, part))

    def _module(self, source: str, schedule: Schedule, steps: Steps, planned: Callable[[], Schedule]) -> Any:
        from nldsl.backends.mlir.step_emitted import NativeModule, Written

        def make() -> Any:
            """No derived way back either: it has no second derivative."""
            bare = replace(planned(), tick_form=None, tick=None, waiting=None, backwards=())
            return self.written.load(self.written.emit(bare), bare)

        tick, *waiting = steps
        return NativeModule(self.emitter.load(source, schedule), tick, Written(make), waiting=tuple(waiting))

    def _steps(self, schedule: Schedule) -> Steps:
        """One tick as one function, for a program that has such a form; where it waits for its next input, its two
        parts, too."""
        loops = (schedule.tick, *(schedule.waiting or ()))
        given = zip(loops, _parts(schedule.program), ("tick", *WAITING), strict=False)
        return [self._step(loop, program, part) for loop, program, part in given]

    def _step(self, tick: ChunkLoop | None, program: Program, part: str) -> Step:
        from nldsl.backends.mlir.native_step import NativeStep, NoStep

        if tick is None:
            return None
        try:
            step = NativeStep.of(tick, program, (self.kernels.key, part))
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
        return "\n".join(f"module @loop_{n} {{\n{loop.text()}}}\n" for n, (_, loop) in enumerate(self.kernels.made))


class Again:
    """A program of the cache, planned and lowered once more when it is needed."""

    def __init__(self, backend: MlirBackend, planned: Callable[[], Schedule]) -> None:
        self.backend = backend
        self._planned = planned
        self._schedule: Schedule | None = None
        self._loops: list[tuple[str, NativeLoop]] = []

    def schedule(self) -> Schedule:
        """What the passes give."""
        if self._schedule is None:
            self._schedule = self._planned()
        return self._schedule

    def tick(self, number: int) -> Callable[[], ChunkLoop]:
        """One tick, or a part of it."""
        return lambda: (self.schedule().tick, *(self.schedule().waiting or ()))[number]

    def bodies(self, number: int, name: str) -> Callable[[], Any]:
        """A loop and its way back."""

        return lambda: self._loop(number, name).bodies()

    def endings(self, number: int, name: str) -> Endings:
        """What its last segments have to do where nobody reads the states."""

        def made() -> Sequence[Ending]:
            found = self._loop(number, name).endings
            return () if found is None else found()

        return made

    def second(self, number: int, name: str) -> Differentiable | None:
        """What gives its second derivatives."""
        functions = self.backend.kernels.functions
        if functions is None:
            return None
        from nldsl.backends.again import Differentiable

        def form() -> TorchForm:
            second = self._loop(number, name).second
            assert second is not None
            return second.form()

        return Differentiable(form, functions)

    def _loop(self, number: int, name: str) -> NativeLoop:
        if not self._loops:
            own = self.backend.kernels
            kernels = NativeKernels(own.required, own.key, functions=own.functions)
            with warnings.catch_warnings():  # it has been said
                warnings.simplefilter("ignore", FallbackWarning)
                replace(self.backend.emitter, kernels=kernels).emit(self.schedule())  # type: ignore[type-var]
            self._loops = kernels.made
        found, native = self._loops[number]
        assert found == name, "the compiler has changed under a running process"
        return native
