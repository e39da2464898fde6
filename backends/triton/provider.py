"""Kernels for the loops of a module, where a loop has them; what has none is reported with the reason."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from nldsl.backends.again import TorchForm
from nldsl.backends.interface import LoopCall, LoopSource
from nldsl.backends.triton.alike import left_alike
from nldsl.backends.triton.describe import describe
from nldsl.backends.triton.generate import Choices, generate
from nldsl.backends.triton.host import Frame, Written, single_ticks
from nldsl.backends.triton.job import Job, Source
from nldsl.backends.triton.jobs import Naming, backward_job, forward_job
from nldsl.backends.triton.library_text import called
from nldsl.backends.triton.narrow import narrow_keys
from nldsl.backends.triton.operators import loop_source
from nldsl.backends.triton.rerun import KEPT_BYTES, kept_bytes, read_of, rerun_of
from nldsl.backends.triton.second_source import TABLE, missing, torch_form
from nldsl.backends.triton.tick_source import tick_loop
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.tune import capability, read
from nldsl.backends.triton.workspaces import Workspaces
from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.ir.schedule import without_backward
from nldsl.ir.types import BATCH
from nldsl.source import NO_SPAN

IMPORTS = ("import functools", "import itertools", "import torch", "import triton", "import triton.language as tl")


class BackendRemark(UserWarning):
    """Something has another form than the user asked for."""


@dataclass
class LoopKernelWriter:
    """``required``: a loop without kernels is an error. ``choices``: for all loops; None: those that were tuned, or the
    defaults. ``capability``: of the GPU that they are made for, 80 for sm_80; None: this one. ``refused`` collects the
    loops without, and why; ``written`` the jobs that have kernels; ``seconds``, by loop, the form in which it has
    second derivatives, of all loops that are not ``required`` to be kernels. ``keep_states``: loops over segments keep
    the states at the beginning of each for the way back, which else makes them again; None: where they are small."""

    packs: ClassVar[bool] = True  # loops take sequences that lie in one row
    required: bool = False
    choices: Choices | None = None
    capability: int | None = None
    keep_states: bool | None = None
    refused: list[tuple[str, str]] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    waiting: dict[tuple[str, ...], UnsupportedError] = field(default_factory=dict)
    seconds: dict[str, Callable[[], TorchForm]] = field(default_factory=dict)

    def loop(self, call: LoopCall) -> LoopSource | None:
        """The function of a loop by kernels, or None with a remark. Raises DiagnosticError if kernels are required."""
        try:
            alone = without_backward(call.program, call.phase.states)  # a program of a kernel has one sequence
            if alone:
                raise UnsupportedError(alone)
            return self._ticked(call) if call.phase.size == 1 else self._loop(call)
        except UnsupportedError as reason:
            if call.last:
                self._refuse(call, self.waiting.get(call.phase.states, reason))
            else:
                self.waiting[call.phase.states] = reason
            return None

    def _ticked(self, call: LoopCall) -> LoopSource:
        """A loop over ticks. One over segments whose ticks could be kernels stays PyTorch, which does the ticks of a
        segment together, unless it has to be kernels."""
        segments = self.waiting.get(call.phase.states)
        if segments is not None and not self.required:
            raise segments
        source, written = tick_loop(call, IMPORTS, None if self.required else self._second)
        self.written += written
        return source

    def _refuse(self, call: LoopCall, reason: UnsupportedError) -> None:
        states = ", ".join(call.phase.states)
        message = f"the loop of {states} has no kernels: {reason}"
        self.refused.append((states, str(reason)))
        if self.required:
            spans = (call.program.state(name).span for name in call.phase.states)
            span = next((s for s in spans if not s.is_none), NO_SPAN)
            raise DiagnosticError(Diagnostic("NL0795", message, span, hints=("use the torch backend",)))
        warnings.warn(f"{message}; it keeps the form of the torch backend", BackendRemark, stacklevel=2)

    def _loop(self, call: LoopCall) -> LoopSource:
        if call.derived is None:
            raise UnsupportedError("it has no backward pass of its own")
        title = re.sub(r"\W", "_", call.name)
        naming = Naming.of(call)
        choices = self.choices or read().get(key_of(call)) or Choices()
        job, (back, like) = forward_job(naming, f"{title}_fwd"), backward_job(naming, call.derived, f"{title}_bwd")
        single = single_ticks(job, self._target)
        frame = Frame(min(call.phase.size, choices.segment), call.phase.clocks, single)
        spaces = Workspaces(narrow=narrow_keys(job, back))
        forward = generate(job, frame, choices, spaces, self._target)
        forward.keeps = kept_bytes(forward) <= KEPT_BYTES if self.keep_states is None else self.keep_states
        backward = self._backward(back, like, forward, choices)
        known = {s.name for s in (*forward.inputs, *backward.job.variables.values())}
        known |= {naming.cotangent(s.name) for s, _ in forward.job.outputs}
        forward.extra = [s for s in backward.inputs if s.name not in known]
        self.written += [forward, backward]
        second = not self.required
        forward.extra = [*forward.extra, *(self._second(naming, forward) if second else ())]
        text = loop_source(naming, forward, backward, title, second)
        shared = (*called("library", text), *called("host_library", text), *([TABLE] if second else []))
        held = [a for a in call.arguments if a.kind in ("state", "anchor")]
        return LoopSource(text, IMPORTS, shared, packs=all(BATCH in a.type.axes for a in held))

    @property
    def _target(self) -> int:
        return capability() if self.capability is None else self.capability

    def _second(self, naming: Naming, forward: Written) -> list[Source]:
        """See to second derivatives; what these need besides."""
        call = naming.call
        self.seconds[call.name] = lambda: torch_form(call)
        return missing(naming, forward)

    def _backward(self, job: Job, like: dict[str, Source], forward: Written, choices: Choices) -> Written:
        begun = {key: forward.spaces.kept[key] for key in job.boundaries.values()}
        alike = {} if forward.keeps else left_alike(forward, job)
        names = {s.name for s in forward.inputs}
        spaces = Workspaces(values=dict(alike), begun=begun, names=names, narrow=narrow_keys(job))
        written = generate(job, forward.frame, choices, spaces, self._target)
        given = read_of([*begun.values(), *alike.values()], written)
        describe(forward.job, forward.kernels, forward.spaces, {slot.name for slot in given})
        if given and not forward.keeps:
            written.rerun = rerun_of(forward, given, job.name.removesuffix("_bwd") + "_states")
        written.like, written.keeps = like, forward.keeps
        known = {s.name for s in written.inputs}
        written.extra = [s for s in dict.fromkeys(like.values()) if s.name not in known]
        return written


def key_of(call: LoopCall) -> str:
    """What a loop computes, as the key of its tuned choices: its body with the sizes, without names."""
    rows = [f"{i.op} {i.args} {i.attrs} {i.type}" for i in call.phase.body if i.op != "given"]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
