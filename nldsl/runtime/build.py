"""From a program to a module: schedule, emit, load, initialize."""

from __future__ import annotations

import time

from nldsl.backends.registry import backend_named
from nldsl.driver import Options, middle
from nldsl.ir.program import Program
from nldsl.ir.schedule import RECOMPUTE_ABOVE, Schedule
from nldsl.passes.plan import plan
from nldsl.runtime import cache
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module

WORTH_STORING = 0.2  # seconds: what compiles faster is compiled again


def build_module(
    program: Program,
    backend: str = "auto",
    seed: int = 0,
    disabled: frozenset[str] = frozenset(),
    recompute_above: int = RECOMPUTE_ABOVE,
    required: bool = False,
) -> Module:
    """A module with fresh parameters for a program whose derivatives are expanded. ``required``: a loop for which the
    backend has no form is an error."""
    chosen = backend_named(backend, required)
    planned = plan(
        program,
        disabled,
        recompute_above=recompute_above,
        ticks=getattr(chosen, "ticks", False),
        serial=getattr(chosen, "serial", False),
    )
    built = Module(program, chosen.load(chosen.emit(planned), planned), initialize(program, seed))
    built.backend = chosen.name
    return built


def build_checked(
    program: Program, options: Options, backend: str = "auto", seed: int = 0, required: bool = False
) -> Module:
    """A module for a checked program, from the cache where it has been compiled before.

    Only for backends whose code is all text (``stored``): loading it needs no schedule.
    """
    chosen = backend_named(backend, required)
    if not getattr(chosen, "stored", False):
        return build_module(
            middle(program, options), backend, seed, options.disabled, options.recompute_above, required
        )
    key = cache.key_of(program, chosen.name, [*sorted(options.disabled), str(options.recompute_above)])
    entry = cache.read(key, program)
    if entry is None:
        start = time.perf_counter()
        final = middle(program, options)
        planned = plan(final, options.disabled, recompute_above=options.recompute_above)
        entry = cache.Entry(final, chosen.emit(planned), planned.loss_inputs)
        if time.perf_counter() - start > WORTH_STORING:
            cache.write(key, entry, program)
    known = Schedule(entry.program, (), loss_inputs=entry.loss_inputs)
    return Module(entry.program, chosen.load(entry.source, known), initialize(entry.program, seed))
