"""States the compiler added, told from what they do: sums over a slower clock, past values, windows."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.ir.program import Program
from nldsl.ir.types import Clock


@dataclass(frozen=True)
class Accumulation:
    """``value`` is ``function`` of the stream ``of``; ``state`` is what the compiler keeps for it."""

    state: str
    value: int
    function: str
    of: int
    options: tuple[str, ...] = ()
    words: str = ""


_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def accumulations(program: Program) -> dict[int, Accumulation]:
    """The values that hidden states stand behind, by their number."""
    found: dict[int, Accumulation] = {}
    updates = dict(program.updates)
    for state in program.states:
        if not state.hidden or state.name not in updates:
            continue
        for match in (_reduction, _window, _delay):
            hit = match(program, state.name, updates[state.name])
            if hit is not None:
                found[hit.value] = hit
                break
    return found


def _reads(program: Program, value: int, state: str) -> bool:
    instr = program.body[value]
    return instr.op == "state" and instr.attr("state") == state


def _reduction(program: Program, state: str, update: int) -> Accumulation | None:
    """``when(neutral, state + x; clock)``: the sum of x since the clock last fired."""
    instr = program.body[update]
    if instr.op != "when":
        return None
    clock: Clock = instr.attr("clock")
    total = instr.args[1]
    operation = program.body[total]
    if operation.op not in ("add", "maximum"):
        return None
    others = [a for a in operation.args if not _reads(program, a, state)]
    if len(others) != 1:
        return None
    name = "Σ" if operation.op == "add" else "max"
    kind = "sum" if operation.op == "add" else "largest value"
    words = f"the {kind} of {{}} over the ticks since the last multiple of {clock.period}, this one included"
    return Accumulation(state, total, name + str(clock.period).translate(_SUBSCRIPTS), others[0], (), words)


def _window(program: Program, state: str, update: int) -> Accumulation | None:
    """``state <- tail(concat(state, x))``: the last n values of x."""
    tail = _held(program, state, update)
    instr = program.body[tail]
    if instr.op != "slice":
        return None
    buffer = instr.args[0]
    joined = program.body[buffer]
    if joined.op != "concat" or len(joined.args) != 2 or not _reads(program, joined.args[0], state):
        return None
    newest = program.body[joined.args[1]]
    of = newest.args[0] if newest.op == "reshape" else joined.args[1]
    size = str(joined.type.shape[0])
    return Accumulation(state, buffer, "window", of, (size,), f"the last {size} values of {{}}, this one included")


def _delay(program: Program, state: str, update: int) -> Accumulation | None:
    """``state <- x``: the value of x one tick before."""
    of = _held(program, state, update)
    reading = next((v for v in range(len(program.body)) if _reads(program, v, state)), None)
    if reading is None or reading < of or reading in _ancestors(program, of):
        return None
    return Accumulation(state, reading, "prev", of, (), "the value of {} one tick before, zero at the first")


def _held(program: Program, state: str, update: int) -> int:
    """The value that is assigned, without the ``when`` that holds it."""
    instr = program.body[update]
    return instr.args[0] if instr.op == "when" and _reads(program, instr.args[1], state) else update


def _ancestors(program: Program, value: int) -> set[int]:
    found: set[int] = set()
    stack = [value]
    while stack:
        current = stack.pop()
        if current not in found:
            found.add(current)
            stack.extend(program.body[current].args)
    return found
