"""How often each state and parameter of a program is updated, and in which order within a tick."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from nldsl.ir.program import Program, StateDecl

__all__ = ["Rate", "Rates", "rates_of", "reached_params", "update_roots"]

# Operations that only move entries about: a state changed by nothing else stores its context as it came.
_MOVES = frozenset("slice concat reshape broadcast pad when spread collect".split())
_KINDS = ("nonparametric", "token", "step", "frozen")


@dataclass(frozen=True)
class Rate:
    """Once per `period` of `kind`; `order` counts within one tick."""

    kind: str
    period: int = 0
    order: int = 0

    def key(self) -> tuple[int, int, int]:
        """Fastest first."""
        return _KINDS.index(self.kind), self.period, self.order


@dataclass(frozen=True)
class Rates:
    """`carriers` are states the compiler added to bring a value to a slower clock: part of the flow, not memories."""

    states: dict[str, Rate]
    params: dict[str, Rate]
    carriers: frozenset[str]


def update_roots(program: Program) -> dict[str, int]:
    """The value of each state after the tick, without the states that keep theirs."""
    leaves = {n for n, i in enumerate(program.body) if i.op == "state"}
    return {s: v for s, v in program.updates if v not in leaves or program.body[v].attr("state") != s}


def rates_of(program: Program) -> Rates:
    """The rate of everything that can change, from the updates and the declared levels alone."""
    roots = update_roots(program)
    moved = _moved(program, roots)
    states: dict[str, Rate] = {}
    carriers = set()
    for state in program.states:
        if state.name not in roots:
            states[state.name] = Rate("frozen")
        elif state.clock is None and state.name in moved:
            states[state.name] = Rate("nonparametric")
        else:
            states[state.name] = Rate("token", state.clock.period if state.clock else 1)
            if state.hidden:
                carriers.add(state.name)
    visible = [s for s in program.states if states[s.name].kind == "token" and s.name not in carriers]
    for name, order in _orders(program, visible, roots).items():
        states[name] = Rate("token", states[name].period, order)
    levels = {level.name: Rate(level.base, level.period) for level in program.levels}
    params = {p.name: levels.get(p.level, Rate("frozen")) for p in program.params}
    return Rates(states, params, frozenset(carriers))


def _moved(program: Program, roots: dict[str, int]) -> set[str]:
    """The states that reach their own new value, if at all, through moves alone."""
    bit = {state.name: 1 << n for n, state in enumerate(program.states)}
    touched, changed = [0] * len(program.body), [0] * len(program.body)
    for n, instr in enumerate(program.body):
        if instr.op in ("state", "anchor"):
            touched[n] = bit[instr.attr("state")]
        for arg in instr.args:
            touched[n] |= touched[arg]
            changed[n] |= changed[arg]
        if instr.op not in _MOVES and instr.args:
            changed[n] |= touched[n]
    return {name for name, root in roots.items() if not changed[root] & bit[name]}


def _orders(program: Program, states: list[StateDecl], roots: dict[str, int]) -> dict[str, int]:
    """A before B when B's new value needs A's: the length of the longest such chain that ends in the state.

    Only states of one memory, or of memories side by side, are compared. Elsewhere the new value arrives through the
    stream of the layers, and depth would be taken for frequency.
    """
    bit = {state.name: 1 << n for n, state in enumerate(states)}
    at: dict[int, int] = defaultdict(int)
    for name, b in bit.items():
        at[roots[name]] |= b
    needs = [0] * len(program.body)  # the states whose new value is in the cone of each value, itself included
    for n, instr in enumerate(program.body):
        needs[n] = at[n]
        for arg in instr.args:
            needs[n] |= needs[arg]
    owners = {s.name: s.owner for s in states}
    periods = {s.name: s.clock.period if s.clock else 1 for s in states}
    orders: dict[str, int] = {}
    for name in sorted(bit, key=lambda s: roots[s]):
        mask = needs[roots[name]] & ~at[roots[name]]
        before = [
            orders[other]
            for other, b in bit.items()
            if mask & b and periods[other] == periods[name] and _comparable(owners[other], owners[name])
        ]
        orders[name] = max(before, default=-1) + 1
    return orders


def _comparable(first: str, second: str) -> bool:
    if first == second or first.startswith(second + ".") or second.startswith(first + "."):
        return True
    parents = [owner.rpartition(".")[0] for owner in (first, second)]
    if parents[0] != parents[1]:
        return False
    bare = [re.sub(r"\d+$", "", owner) for owner in (first, second)]
    return bare[0] != bare[1] or not all(owner.rpartition(".")[2].isdigit() for owner in (first, second))


def reached_params(program: Program) -> set[str]:
    """The parameters that the gradient of a loss reaches, through any number of ticks."""
    roots, inits = dict(program.updates), {s.name: s.init for s in program.states}
    bodies = (program.body, program.init)
    work = [(0, value) for _, value in program.losses]
    seen, found = set(work), set()
    while work:
        which, value = work.pop()
        instr = bodies[which][value]
        follow: list[tuple[int, int]] = []
        if instr.op == "param":
            found.add(instr.attr("param"))
        elif instr.op in ("state", "anchor"):
            name = instr.attr("state")
            follow = [(0, roots[name])] if name in roots else []
            follow += [(1, inits[name])] if name in inits and program.init else []
        elif instr.op != "stop_grad":
            follow = [(which, a) for a in instr.args]
        work += [place for place in follow if place not in seen]
        seen.update(follow)
    return found
