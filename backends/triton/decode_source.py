"""Loops as they run in a call of one tick: a kernel for each, which reads the states and writes the new ones."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field

from nldsl.backends.interface import LoopCall, LoopSource
from nldsl.backends.triton.jobs import Naming, forward_job
from nldsl.backends.triton.library_text import called
from nldsl.backends.triton.operators import entry_source
from nldsl.backends.triton.provider import IMPORTS, BackendRemark
from nldsl.backends.triton.tick_host import TickWritten, run_source
from nldsl.backends.triton.tick_kernel import TickWriter
from nldsl.backends.triton.tick_source import FRAME, checked, columns, fitting
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.workspaces import Workspaces

WIDE = 1 << 10  # entries that a program with columns has at once: one tick has little work, many programs share it


@dataclass
class DecodeWriter:
    """``written`` are the loops that have a kernel, ``refused`` those that have none, and why."""

    written: list[TickWritten] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    def loop(self, call: LoopCall) -> LoopSource | None:
        """The function of a loop for one tick, or None with a remark."""
        try:
            return self._loop(call)
        except UnsupportedError as reason:
            states = ", ".join(call.phase.states)
            self.refused.append((states, str(reason)))
            text = f"one tick of {states} has no kernel: {reason}; it keeps the form of the torch backend"
            warnings.warn(text, BackendRemark, stacklevel=2)
            return None

    def _loop(self, call: LoopCall) -> LoopSource:
        title = re.sub(r"\W", "_", call.name)
        naming = Naming.of(call)
        job = checked(forward_job(naming, f"{title}_tick"))
        divided = columns(job, WIDE)
        entries = fitting(job, divided)
        kernel = TickWriter(job).write_single(job.name, divided)
        kernel.peak = entries
        written = TickWritten(job, FRAME, [], Workspaces(), ticks=kernel)
        self.written.append(written)
        run = f"{title}_launch"
        texts = [*kernel.functions.values(), kernel.source, run_source(written, run)]
        texts += [text.rstrip() for state, *_, text in naming.call.initials if state in naming.initials]
        texts.append(entry_source(naming, written, run))
        text = "\n\n\n".join(texts)
        return LoopSource(text, IMPORTS, (*called("library", text), *called("host_library", text)))
