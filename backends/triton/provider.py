"""Kernels for the loops of a module, where a loop has them; what has none is reported with the reason."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field

from nldsl.backends.interface import LoopCall, LoopSource
from nldsl.backends.triton.generate import Choices, generate
from nldsl.backends.triton.host import Frame, Written
from nldsl.backends.triton.jobs import Naming, backward_job, forward_job
from nldsl.backends.triton.kernel import Workspaces
from nldsl.backends.triton.library_text import called
from nldsl.backends.triton.operators import loop_source
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.source import NO_SPAN

IMPORTS = ("import functools", "import torch", "import triton", "import triton.language as tl")
LONGEST = 64  # ticks that a program takes at once


class BackendRemark(UserWarning):
    """Something has another form than the user asked for."""


@dataclass
class LoopKernelWriter:
    """``required``: a loop without kernels is an error. ``refused`` collects the loops without, and why;
    ``written`` the jobs that have kernels."""

    required: bool = False
    choices: Choices = field(default_factory=Choices)
    refused: list[tuple[str, str]] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)

    def loop(self, call: LoopCall) -> LoopSource | None:
        """The function of a loop by kernels, or None with a remark. Raises DiagnosticError if kernels are required."""
        try:
            return self._loop(call)
        except UnsupportedError as reason:
            self._refuse(call, reason)
            return None

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
        frame = Frame(min(call.phase.size, LONGEST), call.phase.clocks)
        forward = generate(forward_job(naming, f"{title}_fwd"), frame, self.choices)
        backward = self._backward(call, naming, forward, frame, title)
        if backward is not None:
            known = {s.name for s in (*forward.inputs, *backward.job.variables.values())}
            known |= {naming.cotangent(s.name) for s, _ in forward.job.outputs}
            forward.extra = [s for s in backward.inputs if s.name not in known]
        self.written += [w for w in (forward, backward) if w is not None]
        text = loop_source(naming, forward, backward, title)
        shared = (*called("library", text), *called("host_library", text))
        return LoopSource(text, IMPORTS, shared)

    def _backward(self, call: LoopCall, naming: Naming, forward: Written, frame: Frame, title: str) -> Written:
        assert call.derived is not None
        job, like = backward_job(naming, call.derived, f"{title}_bwd")
        begun = {key: forward.spaces.kept[key] for key in job.boundaries.values()}
        written = generate(job, frame, self.choices, Workspaces(begun=begun))
        written.like = like
        known = {s.name for s in written.inputs}
        written.extra = [s for s in dict.fromkeys(like.values()) if s.name not in known]
        return written
