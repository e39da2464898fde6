"""What belongs to a memory's own equations: what depends on its states, and where what it is given comes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nldsl.ir.ops import LEAVES
from nldsl.ir.program import Instr, MemoryInfo, Program


def states_of(program: Program, memory: MemoryInfo) -> tuple[str, ...]:
    """The states of a memory and of the instances inside it, hidden ones not."""
    inner = [m for m in program.memories if m is memory or m.path.startswith(memory.path + ".") or not memory.path]
    owned = {name for m in inner if m.kind == "memory" or m is memory for name in m.states}
    return tuple(s.name for s in program.states if s.name in owned and not s.hidden)


def top_memories(program: Program) -> tuple[MemoryInfo, ...]:
    """The memories with states that are not parts of another memory with states."""
    stateful = [m for m in program.memories if m.kind == "memory" and states_of(program, m)]
    return tuple(
        m for m in stateful if not any(o is not m and (not o.path or m.path.startswith(o.path + ".")) for o in stateful)
    )


def user_name(instr: Instr) -> str:
    """The name that the program gives a value; what the compiler called a window or a derivative is none."""
    made = (instr.op == "concat" and instr.name.startswith("window_")) or instr.name.startswith("d_")
    return "" if made else instr.name


def dependent(body: Sequence[Instr], states: Iterable[str]) -> set[int]:
    """The values that depend on these states within the tick, whether read or anchored."""
    wanted, found = set(states), set()
    for number, instr in enumerate(body):
        reads = instr.op in ("state", "anchor") and instr.attr("state") in wanted
        if reads or any(a in found for a in instr.args):
            found.add(number)
    return found


def cone(body: Sequence[Instr], roots: Iterable[int], stop: Iterable[int] = ()) -> set[int]:
    """The values that the roots need, not looking behind ``stop``."""
    found: set[int] = set()
    border = set(stop)
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            if value not in border:
                stack.extend(body[value].args)
    return found


def frontier(body: Sequence[Instr], roots: Iterable[int], own: set[int]) -> list[int]:
    """The values with a name in the program where the way from the roots leaves ``own``: what a memory is given."""
    found: set[int] = set()
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        instr = body[value]
        if value not in own and user_name(instr) and instr.op not in LEAVES:
            found.add(value)
        else:
            stack.extend(instr.args)
    return sorted(found)


def readings(program: Program, states: Sequence[str]) -> list[int]:
    """The first values with a name that are made from the states outside their updates: what is read of them."""
    body = program.body
    own = dependent(body, states)
    after = {v for name, v in program.updates if name in states}
    inside = cone(body, after)
    reached: set[int] = set()  # carry a value of the state that has not been given a name yet
    found: list[int] = []
    live = cone(body, [v for _, v in (*program.updates, *program.outputs, *program.losses)])
    results = {v for _, v in program.outputs}
    for number, instr in enumerate(body):
        if number not in live:
            continue
        source = instr.op in ("state", "anchor") and instr.attr("state") in states
        if source or number in after:
            reached.add(number)
        elif number in inside and number in own:
            if not user_name(instr):
                reached.add(number)
        elif any(a in reached for a in instr.args):
            if instr.op == "collect":
                found += [a for a in instr.args if a in reached]  # what one of several copies gives
            elif user_name(instr) or number in results:
                found.append(number)
            else:
                reached.add(number)
    return list(dict.fromkeys(found))


_SUMS = frozenset("add sub neg when where stop_grad maximum minimum".split())


def between(program: Program) -> dict[int, str]:
    """The values of states between two assignments of a tick: made from the state by adding to it and by scaling it
    with what does not depend on states."""
    body = program.body
    moving = dependent(body, [s.name for s in program.states])
    found: dict[int, str] = {}
    for number, instr in enumerate(body):
        if instr.op == "state":
            found[number] = instr.attr("state")
            continue
        scaling = instr.op in ("mul", "div") and sum(a in moving for a in instr.args) == 1
        if instr.op in _SUMS or scaling:
            states = {found[a] for a in instr.args if a in found and body[a].type.shape == instr.type.shape}
            if len(states) == 1:
                found[number] = states.pop()
    updates = {v: name for name, v in program.updates if not program.state(name).hidden}
    kept = set(updates)
    for number in sorted(found, reverse=True):  # only what goes on to the state's own update in the same way
        if number in kept:
            kept.update(a for a in body[number].args if found.get(a) == found[number])
    return {v: s for v, s in found.items() if v in kept and body[v].op != "state" and body[v].type.shape}
