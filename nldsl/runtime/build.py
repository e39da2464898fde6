"""From a program to a module: schedule, emit, load, initialize."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nldsl.backends.interface import Backend, Kept
from nldsl.backends.registry import backend_named
from nldsl.driver import Options, middle
from nldsl.ir.program import Program
from nldsl.ir.schedule import RECOMPUTE_ABOVE, Schedule
from nldsl.passes.unread import without_unread
from nldsl.runtime import cache
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module

if TYPE_CHECKING:
    from collections.abc import Set

WORTH_STORING = 0.2  # seconds: what compiles faster is compiled again


def planned_for(chosen: Backend, program: Program, disabled: Set[str], recompute_above: int) -> Schedule:
    """The schedule that a backend gets. The passes are imported here: a module from the cache needs none of them."""
    from nldsl.passes.plan import plan

    return plan(
        program,
        disabled,
        recompute_above=recompute_above,
        ticks=getattr(chosen, "ticks", False),
        serial=getattr(chosen, "serial", False),
        fused=getattr(chosen, "fused", False),
    )


def build_module(
    program: Program,
    backend: str = "auto",
    seed: int = 0,
    disabled: frozenset[str] = frozenset(),
    recompute_above: int = RECOMPUTE_ABOVE,
    required: bool = False,
    keep_states: bool | None = None,
) -> Module:
    """A module with fresh parameters for a program whose derivatives are expanded. ``required``: a loop for which the
    backend has no form is an error. ``keep_states``: see ``nldsl.compile``."""
    chosen = backend_named(backend, required, keep_states)
    planned = planned_for(chosen, program, disabled, recompute_above)
    return _module(program, chosen, chosen.load(chosen.emit(planned), planned), seed)


def build_checked(
    program: Program,
    options: Options,
    backend: str = "auto",
    seed: int = 0,
    required: bool = False,
    keep_states: bool | None = None,
) -> Module:
    """A module for a checked program, from the cache where it has been compiled before.

    Only for backends that can be loaded without a schedule (``stored``), from the source alone or with what they keep
    besides (``Kept``).
    """
    chosen = backend_named(backend, required, keep_states)
    if not getattr(chosen, "stored", False):
        final = middle(program, options)
        return build_module(final, backend, seed, options.disabled, options.recompute_above, required, keep_states)
    more = chosen if isinstance(chosen, Kept) else None
    choices = [*sorted(options.disabled), str(options.recompute_above)]
    key = cache.key_of(program, chosen.name, choices, *((required, more.depends()) if more is not None else ()))
    if more is not None:
        more.begin(key)
    entry = cache.read(key, program)
    if entry is not None:
        return _module(entry.program, chosen, _from_entry(chosen, entry, options), seed)
    start = time.perf_counter()
    final = middle(program, options)
    planned = planned_for(chosen, final, options.disabled, options.recompute_above)
    source = chosen.emit(planned)
    loaded = chosen.load(source, planned)
    if time.perf_counter() - start > WORTH_STORING:
        kept = more.kept(loaded) if more is not None else None
        cache.write(key, cache.Entry(final, source, planned.loss_inputs, kept), program)
    return _module(final, chosen, loaded, seed)


def _from_entry(chosen: Backend, entry: cache.Entry, options: Options) -> Any:
    known = Schedule(without_unread(entry.program), (), loss_inputs=entry.loss_inputs)  # the values of what was emitted
    if not isinstance(chosen, Kept):
        return chosen.load(entry.source, known)

    def planned() -> Schedule:
        return planned_for(chosen, entry.program, options.disabled, options.recompute_above)

    return chosen.load_kept(entry.source, known, entry.kept, planned)


def _module(program: Program, chosen: Backend, loaded: Any, seed: int) -> Module:
    built = Module(program, loaded, initialize(program, seed))
    built.backend = chosen.name
    return built
