"""A native loop from its bodies, or from what the cache says of it."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.backends.mlir.facts import LoopFacts
from nldsl.backends.mlir.known import Parts
from nldsl.backends.mlir.native_loop import FORWARD, Bodies, NativeLoop, over_sequences, write_function
from nldsl.backends.mlir.tick_loop import TickLoop
from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.ending import Endings
from nldsl.ir.program import Program

Both = tuple[ChunkLoop, BackwardLoop | None]


def native_of(
    loop: ChunkLoop, backward: BackwardLoop | None, program: Program, origin: Parts, endings: Endings | None = None
) -> NativeLoop:
    """The loop, checked; raises UnsupportedError where it has no native form."""
    whole = over_sequences(loop, program)
    key = FORWARD, loop.size, "f32", 1 if whole else 0
    kernel = write_function(loop, backward, program, *key)
    lanes = tuple((a.name, a.size if isinstance(a.size, int) else str(a.size)) for a in loop.lanes)
    facts = LoopFacts(loop.size == 1, loop.size, loop.clocks, lanes, whole, backward is not None, kernel.arguments)
    native = restored_loop(facts, program, origin, lambda: (loop, backward), endings)
    native.written[key] = kernel
    native.check()
    return native


def restored_loop(
    facts: LoopFacts,
    program: Program,
    origin: Parts,
    bodies: Callable[[], Both],
    endings: Endings | None = None,
) -> NativeLoop:
    """A loop of which the facts are known. A loop over single ticks has no endings: they would be as many again."""
    if facts.by_ticks:
        return TickLoop(facts, program, Bodies(bodies), origin)
    return NativeLoop(facts, program, Bodies(bodies), origin, endings)
