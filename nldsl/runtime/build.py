"""From a program to a module: schedule, emit, load, initialize."""

from __future__ import annotations

from nldsl.backends.registry import backend_named
from nldsl.ir.program import Program
from nldsl.ir.schedule import Schedule
from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.schedule import schedule
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module


def schedule_of(program: Program, disabled: frozenset[str] = frozenset()) -> Schedule:
    """The loop structure that backends see; ``disabled`` names optional passes to leave out (``chunk``)."""
    planned = schedule(program)
    if "chunk" in disabled:
        return planned
    chunked, _ = chunk(planned, ChunkOptions())
    return chunked


def build_module(
    program: Program, backend: str = "auto", seed: int = 0, disabled: frozenset[str] = frozenset()
) -> Module:
    """A module with fresh parameters for a program whose derivatives are expanded."""
    chosen = backend_named(backend)
    planned = schedule_of(program, disabled)
    return Module(program, chosen.load(chosen.emit(planned), planned), initialize(program, seed))
