"""A native loop from its bodies, or from what the cache says of it."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.backends.interface import LoopCall
from nldsl.backends.mlir.facts import LoopFacts
from nldsl.backends.mlir.forms import FORWARD, Bodies, Forms, write_function
from nldsl.backends.mlir.function import Argument, UnsupportedError
from nldsl.backends.mlir.known import Parts
from nldsl.backends.mlir.native_loop import NativeLoop, over_sequences
from nldsl.backends.mlir.tick_loop import TickLoop
from nldsl.ir.ending import Endings
from nldsl.ir.program import Program


def native_of(call: LoopCall, origin: Parts) -> NativeLoop:
    """The loop, checked; raises UnsupportedError where it has no native form."""
    wanted = call.keeping if call.recompute_above > 0 else None
    keeping = wanted() if wanted is not None else None
    if keeping is not None:
        try:
            return _checked(call, Forms(call.phase, call.derived, keeping), origin)
        except UnsupportedError:  # of values that would be kept
            pass
    return _checked(call, Forms(call.phase, call.derived), origin)


def _checked(call: LoopCall, forms: Forms, origin: Parts) -> NativeLoop:
    loop, whole = call.phase, over_sequences(call.phase, call.program)
    key = FORWARD, loop.size, "f32", 1 if whole else 0
    kernel = write_function(forms, call.program, *key)
    lanes = tuple((a.name, a.size if isinstance(a.size, int) else str(a.size)) for a in loop.lanes)
    kept = forms.keeping.loop.kept if forms.keeping is not None else ()
    if any(isinstance(size, str) and axis in k.type.axes for axis, size in lanes for k in kept):
        raise UnsupportedError("a kept value with an axis as long as a segment")
    arguments = (*kernel.arguments, *(Argument("kept", k.value, k.type) for k in kept))
    derived = call.derived is not None
    facts = LoopFacts(loop.size == 1, loop.size, loop.clocks, lanes, whole, derived, arguments, call.recompute_above)
    endings = None if call.endings is None else call.endings(forms.keeping)
    native = restored_loop(facts, call.program, origin, lambda: forms, endings)
    native.written[key] = kernel
    native.check()
    return native


def restored_loop(
    facts: LoopFacts,
    program: Program,
    origin: Parts,
    bodies: Callable[[], Forms],
    endings: Endings | None = None,
) -> NativeLoop:
    """A loop of which the facts are known. A loop over single ticks has no endings: they would be as many again."""
    if facts.by_ticks:
        return TickLoop(facts, program, Bodies(bodies), origin)
    return NativeLoop(facts, program, Bodies(bodies), origin, endings)
