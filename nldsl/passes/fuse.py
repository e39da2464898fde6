"""Pointwise work between the products of a parallel phase, as loops without states.

Needs: a planned schedule. Guarantees: the same values in an order that respects their operands; each ``Fused`` phase
is *convex*: nothing outside of it lies between two of its values.

A value may be fused if it is pointwise, a sum or maximum over dims, or a stretched value. Groups are values of the same
mapped axes that lead from one to another; whatever else lies on the way cuts them, which a depth says: it grows by one
along an operand that may not be in the same group. Groups of little work are left alone: a call of native code
costs about as much as ten small operations of PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.fused import Fused
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Parallel, Phase, Scan, Schedule
from nldsl.ir.types import TIME
from nldsl.passes.backward import backward
from nldsl.passes.ticks import varying

MOVED = frozenset("sum max broadcast stop_grad".split())
FEWEST = 4  # pointwise operations of a group
SMALLEST = 512  # entries of its largest value at one tick
SEGMENT = 16  # ticks done at once: what is stored in between stays in cache, and any length is 16s and single ticks


def with_fused(schedule: Schedule) -> Schedule:
    """The schedule with groups of pointwise work as phases of their own."""
    program = schedule.program
    kept = _kept(schedule)
    found: list[Phase] = []
    for phase in schedule.phases:
        found += _split(program, phase, kept) if type(phase) is Parallel else [phase]
    return replace(schedule, phases=tuple(found))


def _kept(schedule: Schedule) -> frozenset[int]:
    """How values leave their phase: all that are no operand of values of the same phase alone."""
    program = schedule.program
    roots = {v for _, v in (*program.outputs, *program.losses, *program.probes, *program.updates)}
    for phase in schedule.all_phases():
        if isinstance(phase, ChunkLoop):
            roots |= {i.attr("value") for i in phase.body if i.op == "given"}
        elif not isinstance(phase, Parallel):
            roots |= {a for v in getattr(phase, "values", ()) for a in program.body[v].args}
            roots |= {v for v in (getattr(phase, "value", None),) if v is not None}
    parallel = [p for p in schedule.all_phases() if isinstance(p, Parallel)]
    for phase in parallel:
        for other in parallel:
            if other is not phase:
                roots |= {a for v in other.values for a in program.body[v].args}
    return frozenset(roots)


def _split(program: Program, phase: Parallel, kept: frozenset[int]) -> list[Phase]:
    groups = [g for g in _groups(program, phase.values) if _worth(program, g)]
    made = {frozenset(g): fused for g in groups if (fused := _fused(program, g, phase.values, kept)) is not None}
    place = {v: g for g in made for v in g}
    done: set[int] = set()
    inside = set(phase.values)
    left: list[frozenset[int] | int] = list(dict.fromkeys(place.get(v, v) for v in phase.values))
    found: list[Phase] = []
    while left:
        plain = []
        for item in [x for x in left if isinstance(x, int)]:
            if _ready(program, (item,), inside, done):
                plain.append(item)
                done.add(item)
        left = [x for x in left if x not in done]
        if plain:
            found.append(Parallel(tuple(plain)))
        ready = next((x for x in left if isinstance(x, frozenset) and _ready(program, x, inside, done)), None)
        if ready is not None:
            found.append(made[ready])
            done |= ready
            left.remove(ready)
    return found


def _ready(program: Program, values: Sequence[int] | frozenset[int], inside: set[int], done: set[int]) -> bool:
    """Whether all operands are there."""
    return all(a not in inside or a in done or a in values for v in values for a in program.body[v].args)


def _groups(program: Program, values: Sequence[int]) -> list[list[int]]:
    """Sets of values that may be one loop, each in order."""
    changing = varying(program)
    inside = set(values)
    fusable = {v for v in values if v in changing and _may(program, program.body[v])}
    depth: dict[int, int] = {}
    for v in sorted(values):
        axes = program.body[v].type.axes
        depth[v] = max(
            (
                depth[a] + (0 if {a, v} <= fusable and program.body[a].type.axes == axes else 1)
                for a in program.body[v].args
                if a in inside
            ),
            default=0,
        )
    group = {v: v for v in fusable}

    def root(v: int) -> int:
        while group[v] != v:
            v = group[v]
        return v

    for v in sorted(fusable):
        for a in program.body[v].args:
            if a in fusable and depth[a] == depth[v] and program.body[a].type.axes == program.body[v].type.axes:
                group[root(v)] = root(a)
    found: dict[int, list[int]] = {}
    for v in sorted(fusable):
        found.setdefault(root(v), []).append(v)
    return list(found.values())


def _may(program: Program, instr: Instr) -> bool:
    if instr.type.kind != "real" or (instr.op not in ops.POINTWISE and instr.op not in MOVED):
        return False
    return not any(program.body[a].op in ("state", "anchor", "clock") for a in instr.args)


def _worth(program: Program, group: Sequence[int]) -> bool:
    work = sum(program.body[v].op in ops.POINTWISE for v in group)
    return work >= FEWEST and max(_entries(program, program.body[v]) for v in group) >= SMALLEST


def _entries(program: Program, instr: Instr) -> int:
    """At one tick of one sequence; 0 where a size is known only by its name."""
    total = 1
    for size in (*instr.type.shape, *(program.axis_size(a) or 1 for a in instr.type.axes)):
        if not isinstance(size, int):
            return 0
        total *= size
    return total


def _fused(program: Program, group: Sequence[int], values: Sequence[int], kept: frozenset[int]) -> Fused | None:
    """The group as a phase, if its loop can be taken back."""
    own = set(group)
    used = {a for v in values if v not in own for a in program.body[v].args}
    exports = tuple(v for v in group if v in kept or v in used)
    changing = varying(program)
    builder = Builder([a.name for a in program.axes])
    made: dict[int, int] = {}

    def leaf(value: int) -> int:
        instr = program.body[value]
        if instr.op in ("param", "const", "iota"):
            return builder.leaf(instr.op, instr.type, instr.name, instr.span, **dict(instr.attrs))
        axes = builder.order((*instr.type.axes, TIME)) if value in changing else instr.type.axes
        return builder.leaf("given", replace(instr.type, axes=axes), instr.name, instr.span, value=value)

    for v in group:
        instr = program.body[v]
        for a in instr.args:
            if a not in made:
                made[a] = leaf(a)
        made[v] = builder.emit(
            instr.op, *(made[a] for a in instr.args), name=instr.name, span=instr.span, **dict(instr.attrs)
        )
    outputs = tuple((v, made[v]) for v in exports)
    if any(TIME not in builder.type(made[v]).axes for v in exports):
        return None
    scan = Scan((), tuple(group), exports)
    loop = ChunkLoop(scan, tuple(builder.instrs), (), outputs, (), (), SEGMENT, kind="pointwise", serial=True)
    derived = backward(loop, program, shared=True)
    return Fused(tuple(group), loop, derived) if derived is not None else None
