"""From a program to its loop structure.

Needs: a program without ``grad``, sizes known. Gives: a ``Schedule`` in which every value that no recurrence touches is
computed for all ticks at once, and every region of states that feed one another (``ir/regions.py``) is one loop.
"""

from __future__ import annotations

from nldsl.ir.demand import reachable
from nldsl.ir.program import Program
from nldsl.ir.regions import Regions, find_regions
from nldsl.ir.schedule import Delay, Parallel, Phase, Scan, Schedule

GIVEN = frozenset(("input", "param", "const"))


def schedule(program: Program) -> Schedule:
    """The schedule of a program; phases are in the order in which their operands become available."""
    regions = find_regions(program)
    return _Scheduler(regions).run()


class _Scheduler:
    """Emits phases as soon as what they need is there: all parallel values that are ready, then all loops that are."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self.program = program = regions.program
        updates = dict(program.updates)
        names = [s.name for s in program.states if s.name not in regions.held]
        self.delays = {name: updates[name] for name in names if name not in regions.of}
        wanted = {v for _, v in (*program.outputs, *program.losses, *program.probes)} | set(self.delays.values())
        self.loops: dict[int, list[int]] = {number: [] for number in regions.of.values()}
        self.pending: list[int] = []
        for value in regions.live:
            if value in regions.of:
                self.loops[regions.of[value]].append(value)
            elif value not in regions.inlined or value in wanted:
                self.pending.append(value)
        self.available = {v for v in self.pending if self._is_given(v)}
        self.pending = [v for v in self.pending if v not in self.available]
        self.states = {n: tuple(s for s in names if regions.of.get(s) == n) for n in set(regions.of.values())}
        self.used = self._used_outside()

    def _is_given(self, value: int) -> bool:
        instr = self.program.body[value]
        return instr.op in GIVEN or (instr.op in ("state", "anchor") and instr.attr("state") in self.regions.held)

    def _used_outside(self) -> set[int]:
        """Values of loops that something outside their loop needs."""
        of = self.regions.of
        used = {v for _, v in (*self.program.outputs, *self.program.losses, *self.program.probes)}
        used.update(self.delays.values())
        used.update(v for name, v in self.program.updates if of.get(name) != of.get(v))
        for value in self.regions.live:
            if value not in self.regions.inlined or value in self.pending:
                used.update(a for a in self.regions.operands(value) if of.get(a) != of.get(value))
        return used

    def run(self) -> Schedule:
        late = self._late()
        phases = self._phases([v for v in self.pending if v not in late])
        assert not self.loops, "a loop waits for a value that only losses need"
        assert not self.delays
        loss_phases = self._phases([v for v in self.pending if v in late])
        return Schedule(self.program, tuple(phases), tuple(loss_phases), self.regions.loss_inputs, frozenset(late))

    def _late(self) -> set[int]:
        """Values that only serve losses or probes which need the inputs of the losses."""
        if not self.regions.loss_inputs:
            return set()
        named = (*self.program.updates, *self.program.outputs, *self.program.losses, *self.program.probes)
        early = reachable(self.program.body, [v for _, v in named if v not in self.regions.late])
        for values in self.loops.values():
            early |= reachable(self.program.body, values)
        return set(self.regions.live) - early

    def _phases(self, values: list[int]) -> list[Phase]:
        phases: list[Phase] = []
        waiting = values
        while waiting or self.loops or self.delays:
            before = len(self.available)
            ready = []
            for value in waiting:
                if self._ready(value):
                    ready.append(value)
                    self.available.add(value)
            waiting = [v for v in waiting if v not in self.available]
            if ready:
                phases.append(Parallel(self._with_inlined(ready)))
            found = self._loops() + self._delays()
            phases += found
            if not found and len(self.available) == before:
                break
        assert not waiting, "values wait for one another"
        return phases

    def _ready(self, value: int) -> bool:
        instr = self.program.body[value]
        if instr.op == "state":
            return False  # comes with its Delay
        return all(a in self.available for a in self.regions.operands(value))

    def _loops(self) -> list[Phase]:
        found: list[Phase] = []
        for number, values in list(self.loops.items()):
            own = set(values)
            new = {v for name, v in self.program.updates if name in self.states[number]}
            made = [*values, *(v for v in new if v in self.regions.inlined)]
            needed = {a for v in made for a in self.regions.operands(v)} | (new - set(made))
            if all(a in self.available or a in own for a in needed):
                exports = tuple(v for v in values if v in self.used)
                found.append(Scan(self.states[number], self._with_inlined(made), exports))
                self.available.update(exports)
                del self.loops[number]
        return found

    def _delays(self) -> list[Phase]:
        found: list[Phase] = []
        for name, value in list(self.delays.items()):
            if value in self.available:
                found.append(Delay(name, value))
                body = self.program.body
                self.available.update(
                    v for v in self.regions.live if body[v].op == "state" and body[v].attr("state") == name
                )
                del self.delays[name]
        return found

    def _with_inlined(self, values: list[int]) -> tuple[int, ...]:
        found: set[int] = set()
        stack = list(values)
        while stack:
            value = stack.pop()
            if value not in found:
                found.add(value)
                stack.extend(a for a in self.program.body[value].args if a in self.regions.inlined)
        return tuple(sorted(found))
