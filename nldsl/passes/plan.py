"""The passes that lead from a simplified program to the loops that backends see, in order."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from functools import partial

from nldsl.ir.program import Program
from nldsl.ir.schedule import RECOMPUTE_ABOVE, Schedule
from nldsl.passes.backward import with_backward
from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.decode import decode_schedule
from nldsl.passes.derivations import derivations
from nldsl.passes.fuse import with_fused
from nldsl.passes.precision import wide_values
from nldsl.passes.schedule import schedule
from nldsl.passes.ticks import with_ticks
from nldsl.passes.unread import without_unread

OPTIONAL = ("chunk", "join", "merge", "pack", "hoist", "backward")


def chunk_options(disabled: Set[str], serial: bool = False) -> ChunkOptions:
    """The options of chunking without the passes of these names; ``serial``: for a backend that runs a segment in one
    piece."""
    names = ("join", "merge", "pack", "hoist")
    return ChunkOptions(**{name: name not in disabled for name in names}, serial=serial)


def plan(
    program: Program,
    disabled: Set[str] = frozenset(),
    options: ChunkOptions | None = None,
    recompute_above: int = RECOMPUTE_ABOVE,
    ticks: bool = False,
    serial: bool = False,
    fused: bool = False,
) -> Schedule:
    """``disabled`` names passes of ``OPTIONAL`` to leave out: ``chunk`` (loops stay sequential), ``join`` (loops with
    the same clocks stay apart), ``merge`` (writes that share a factor stay apart), ``pack`` (equal computations of a
    loop are not done together), ``hoist`` (what needs no state is not done for all segments at once), ``backward``
    (loops have no backward pass of their own: what is emitted is differentiated). ``ticks``: loops over ticks also get
    the form of a loop over segments, for a backend that runs these natively. ``serial``: for a backend that does
    all of a segment before the next one. ``fused``: pointwise work between products becomes loops without states."""
    program = without_unread(program)
    planned = replace(schedule(program), derivations=derivations(), wide=wide_values(program))
    if "chunk" in disabled:
        return planned
    chosen = options or chunk_options(disabled, serial)
    chunked, _ = chunk(planned, chosen)
    if "backward" in disabled:
        return chunked
    derived = with_backward(chunked, shared=serial)
    if fused:
        derived = with_fused(derived)
    if ticks:
        derived = replace(with_ticks(derived), decode=partial(decode_schedule, program))
    return replace(derived, recompute_above=recompute_above)
