"""One tick of a program: the values of a body whose inputs and states are known, and the states after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nldsl.backends.iree.body import Body
from nldsl.backends.iree.loop import clock_value, fires, refreshed
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import INT, Node
from nldsl.ir.backward import Key
from nldsl.ir.demand import reachable
from nldsl.ir.program import Program


@dataclass
class Tick:
    """``done``: ticks before this one, and ``last``: with it, as i64. ``states``: before the tick, with anchors."""

    low: Lower
    program: Program
    done: str
    last: str
    states: Mapping[Key, Node]

    def values(self, roots: list[int], params: Mapping[str, Node], inputs: Mapping[str, Node]) -> dict[int, Node]:
        """The values that are wanted, by number. Anchors that are due have the value of their state from here on."""
        low, program = self.low, self.program
        self.now: dict[Key, Node] = dict(self.states)
        refreshed(low, self.now, self.done)
        needed = sorted(reachable(program.body, roots))
        known: dict[int, Node] = {}
        for v in needed:
            instr = program.body[v]
            if instr.op == "param":
                known[v] = params[instr.attr("param")]
            elif instr.op == "input":
                known[v] = inputs[instr.attr("input")]
            elif instr.op == "state":
                known[v] = self.now[instr.attr("state"), 0]
            elif instr.op == "anchor":
                known[v] = self.now[instr.attr("state"), instr.attr("period")]
            elif instr.op == "clock":
                known[v] = clock_value(low, instr, low.scalar(self.last, INT))
        body = Body(low, program.body, lambda clock: fires(low, clock, self.last), 1, known, one_by_one=True)
        body.run([v for v in needed if v not in known], roots)
        return known

    def after(self, known: Mapping[int, Node], initials: Mapping[str, Node]) -> dict[Key, Node]:
        """The states and anchors after the tick; ``initials``: of those that a clock resets."""
        for name, v in self.program.updates:
            self.now[name, 0] = known[v]
        ended: dict[Key, Node] = {}
        for key, value in self.now.items():
            reset = self.program.state(key[0]).reset
            if reset.kind == "clock" and reset.clock is not None:
                value = self.low.point("where", fires(self.low, reset.clock, self.last), initials[key[0]], value)
            ended[key] = value
        return ended
