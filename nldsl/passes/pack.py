"""Computations of one form, done together: horizontal fusion of a segment's body.

    y_1 = f(W_1, x), y_2 = f(W_2, x), ..   -->   y = f(W, x) with W and y along a new mapped axis

States of one type are put side by side (a ``Pack``), then every operation whose operands lie side by side, or are the
same for all, is done once. What is needed alone is taken out again. Nothing changes but the number of operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import product

from nldsl.dims import Dim
from nldsl.ir.build import Builder
from nldsl.ir.chunk import ChunkLoop, Pack
from nldsl.ir.program import Attrs, Axis, Instr, Program
from nldsl.ir.types import Clock, Type

LEAST = 8  # operations that packing must save


@dataclass(frozen=True)
class Unit:
    """Values of the old body that are one value of the new one: ``members[i]`` is on lane ``lanes[i]``."""

    members: tuple[int, ...]
    lanes: tuple[int, ...]
    pack: str = ""  # for the states of a pack and their anchors


Place = tuple[int, int]  # unit, lane
Key = tuple[str, Attrs, Type, Clock | None, tuple[tuple[str, int], ...]]


def pack(loop: ChunkLoop, program: Program) -> ChunkLoop:
    """The loop with equal computations packed, or as it is where that saves little."""
    plan = _Plan(loop, program)
    if plan.saved < LEAST:
        return loop
    return _Writer(loop, program, plan).write()


class _Plan:
    """What is done together."""

    def __init__(self, loop: ChunkLoop, program: Program) -> None:
        self.body = loop.body
        self.units: list[Unit] = []
        self.place: dict[int, Place] = {}
        owners = list(dict.fromkeys(program.state(s).owner or s for s in loop.states))
        self.owner = {s: owners.index(program.state(s).owner or s) for s in loop.states}
        self.packs = [group for group in _packs(loop, program) if self._seed(group)]
        self.depth = self._depths()
        by_depth: dict[int, list[int]] = {}
        for value, depth in enumerate(self.depth):
            by_depth.setdefault(depth, []).append(value)
        for depth in sorted(by_depth):
            self._group(by_depth[depth])
        self.saved = sum(len(u.members) - 1 for u in self.units if not u.pack)
        for value in range(len(self.body)):
            if value not in self.place:
                self._add((value,), (0,))

    def _add(self, members: tuple[int, ...], lanes: tuple[int, ...], name: str = "") -> None:
        self.units.append(Unit(members, lanes, name))
        self.place.update({v: (len(self.units) - 1, lane) for v, lane in zip(members, lanes, strict=True)})

    def _seed(self, group: Pack) -> bool:
        """Put the states of a group and their anchors side by side, if the body reads all of them alike."""
        found: dict[tuple[str, int], dict[int, int]] = {}
        for value, instr in enumerate(self.body):
            if instr.op in ("state", "anchor") and instr.attr("state") in group.states:
                period = instr.attr("period") if instr.op == "anchor" else 0
                found.setdefault((instr.op, period), {})[self.owner[instr.attr("state")]] = value
        if any(len(members) < len(group.states) for members in found.values()):
            return False
        for members in found.values():
            self._add(tuple(members[n] for n in sorted(members)), tuple(sorted(members)), group.name)
        return True

    def _depths(self) -> list[int]:
        found: list[int] = []
        for instr in self.body:
            found.append(1 + max((found[a] for a in instr.args), default=-1))
        return found

    def _group(self, values: list[int]) -> None:
        groups: dict[Key, dict[int, int]] = {}
        for value in values:
            instr = self.body[value]
            for lane, args in self._choices(instr):
                groups.setdefault((instr.op, instr.attrs, instr.type, instr.guard, args), {})[lane] = value
        for found in sorted(groups.values(), key=len, reverse=True):
            members = {lane: v for lane, v in sorted(found.items()) if v not in self.place}
            if len(members) > 1:
                self._add(tuple(members.values()), tuple(members))

    def _choices(self, instr: Instr) -> list[tuple[int, tuple[tuple[str, int], ...]]]:
        """The ways to see an operation as one lane: each operand from its unit, or as the same for all lanes."""
        found = []
        places = [self.place.get(a) for a in instr.args]
        for taken in product(*([True, False] if p is not None else [False] for p in places)):
            lanes = {p[1] for p, unit in zip(places, taken, strict=True) if unit and p is not None}
            if len(lanes) == 1:
                args = tuple(
                    ("unit", p[0]) if unit and p is not None else ("value", a)
                    for a, p, unit in zip(instr.args, places, taken, strict=True)
                )
                found.append((lanes.pop(), args))
        return found


def _packs(loop: ChunkLoop, program: Program) -> list[Pack]:
    """States of one type and the same anchors that have the same place among the states of their owners, and are never
    reset within the sequence."""
    groups: dict[tuple[Type, tuple[int, ...], int], list[str]] = {}
    count: dict[str, int] = {}
    for name in loop.states:
        state = program.state(name)
        place = count[state.owner] = count.get(state.owner, -1) + 1
        if state.reset.kind != "clock":
            periods = tuple(p for s, p in loop.anchors if s == name)
            groups.setdefault((state.type, periods, place if state.owner else -1), []).append(name)
    shared = [states for states in groups.values() if len(states) > 1]
    return [Pack(f"{states[0]}+{len(states) - 1}", _axis(len(states)), tuple(states)) for states in shared]


def _axis(count: int) -> str:
    return f"packed{count}"


class _Writer:
    """Writes the new body."""

    def __init__(self, loop: ChunkLoop, program: Program, plan: _Plan) -> None:
        self.loop = loop
        self.plan = plan
        self.body = loop.body
        counts = sorted(
            {len(u.members) for u in plan.units if len(u.members) > 1} | {len(p.states) for p in plan.packs}
        )
        self.axes = [Axis(_axis(n), n) for n in counts]
        self.builder = Builder([*program.axis_names(), *(a.name for a in (*loop.lanes, *self.axes))])
        self.made: dict[int, int] = {}  # unit -> new value
        self.parts: dict[tuple[int, tuple[int, ...]], int] = {}

    def write(self) -> ChunkLoop:
        for unit in self._order():
            self.made[unit] = self._unit(unit)
        packed = {s: p for p in self.plan.packs for s in p.states}
        carry = dict(self.loop.carry)
        new: dict[str, int] = {}
        for name, value in self.loop.carry:
            if name not in packed:
                new[name] = self.alone(value)
            elif packed[name].name not in new:
                new[packed[name].name] = self.together([carry[s] for s in packed[name].states])
        outputs = tuple((v, self.alone(inside)) for v, inside in self.loop.outputs)
        anchors = dict.fromkeys((packed[s].name if s in packed else s, p) for s, p in self.loop.anchors)
        return replace(
            self.loop,
            body=tuple(self.builder.instrs),
            carry=tuple(new.items()),
            outputs=outputs,
            anchors=tuple(anchors),
            lanes=(*self.loop.lanes, *self.axes),
            packs=tuple(self.plan.packs),
        )

    def _order(self) -> list[int]:
        """Units, each after what it needs, otherwise in the order of the old body."""
        units, place = self.plan.units, self.plan.place
        needs = [{place[a][0] for v in u.members for a in self.body[v].args} for u in units]
        users: list[list[int]] = [[] for _ in units]
        for unit, own in enumerate(needs):
            for need in own:
                users[need].append(unit)
        left = [len(own) for own in needs]
        ready: list[tuple[int, int]] = []
        for unit, count in enumerate(left):
            if not count:
                heappush(ready, (min(units[unit].members), unit))
        found = []
        while ready:
            _, unit = heappop(ready)
            found.append(unit)
            for user in users[unit]:
                left[user] -= 1
                if not left[user]:
                    heappush(ready, (min(units[user].members), user))
        assert len(found) == len(units), "packed values wait for one another"
        return found

    def _unit(self, number: int) -> int:
        unit = self.plan.units[number]
        instr = self.body[unit.members[0]]
        self.builder.guard = instr.guard
        value = self._written(unit, instr)
        self.builder.guard = None
        return value

    def _written(self, unit: Unit, instr: Instr) -> int:
        builder, attrs = self.builder, dict(instr.attrs)
        if unit.pack:
            type = replace(instr.type, axes=builder.order((*instr.type.axes, _axis(len(unit.members)))))
            return builder.leaf(instr.op, type, **(attrs | {"state": unit.pack}))
        args = []
        for position, arg in enumerate(instr.args):
            if len(unit.members) == 1 or all(self.body[v].args[position] == arg for v in unit.members):
                args.append(self.alone(arg))
            else:
                args.append(self.lanes(self.plan.place[arg][0], unit.lanes))
        if not instr.args:
            return builder.leaf(instr.op, instr.type, instr.name, instr.span, **attrs)
        return builder.emit(instr.op, *args, name=instr.name, span=instr.span, **attrs)

    def lanes(self, number: int, wanted: tuple[int, ...]) -> int:
        """Some lanes of a unit, along the axis for their count."""
        unit = self.plan.units[number]
        if unit.lanes == wanted:
            return self.made[number]
        key = number, wanted
        if key not in self.parts:
            guard, self.builder.guard = self.builder.guard, None
            self.parts[key] = self._spread([self._rows(number, wanted)], len(wanted))
            self.builder.guard = guard
        return self.parts[key]

    def _rows(self, number: int, wanted: tuple[int, ...]) -> int:
        """Some lanes of a unit as the first dim."""
        builder, unit = self.builder, self.plan.units[number]
        count = len(unit.members)
        rows = builder.emit("collect", self.made[number], axis=_axis(count), size=count)
        places = [unit.lanes.index(lane) for lane in wanted]
        pieces = [builder.emit("slice", rows, dim=0, start=a, stop=b) for a, b in _runs(places)]
        return pieces[0] if len(pieces) == 1 else builder.emit("concat", *pieces, dim=0)

    def alone(self, value: int) -> int:
        """One value of the old body."""
        number, lane = self.plan.place[value]
        if len(self.plan.units[number].members) == 1:
            return self.made[number]
        key = number, (lane,)
        if key not in self.parts:
            guard, self.builder.guard = self.builder.guard, None
            unit = self.plan.units[number]
            at = unit.lanes.index(lane)
            self.parts[key] = self.builder.emit(
                "lane", self.made[number], axis=_axis(len(unit.lanes)), index=at, size=len(unit.lanes)
            )
            self.builder.guard = guard
        return self.parts[key]

    def together(self, values: list[int]) -> int:
        """Old values side by side."""
        places = [self.plan.place[v] for v in values]
        first = self.plan.units[places[0][0]]
        if len({unit for unit, _ in places}) == 1 and first.lanes == tuple(lane for _, lane in places):
            return self.made[places[0][0]]
        rows, at = [], 0
        while at < len(values):
            number, lane = places[at]
            if len(self.plan.units[number].members) == 1:
                alone = self.made[number]
                shape: tuple[Dim, ...] = (1, *self.builder.type(alone).shape)
                rows.append(self.builder.emit("reshape", alone, shape=shape))
                at += 1
                continue
            wanted = [lane]
            while at + len(wanted) < len(values) and places[at + len(wanted)][0] == number:
                wanted.append(places[at + len(wanted)][1])
            rows.append(self._rows(number, tuple(wanted)))
            at += len(wanted)
        return self._spread(rows, len(values))

    def _spread(self, rows: list[int], count: int) -> int:
        whole = rows[0] if len(rows) == 1 else self.builder.emit("concat", *rows, dim=0)
        return self.builder.emit("spread", whole, axis=_axis(count))


def _runs(places: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive places as (start, stop)."""
    found: list[tuple[int, int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found
