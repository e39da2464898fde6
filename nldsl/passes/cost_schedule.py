"""What the chosen form of a program costs: operations, bytes and dependent steps per tick, from its schedule alone.

``cost.py`` counts the sequential definition; here a loop over segments is counted as it runs: the products of its
segments, at its length, shared by their ticks. Formulas in the sizes of the program, for one sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from nldsl.dims import Dim, Poly, substitute
from nldsl.ir import ops
from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Delay, Parallel, Scan, Schedule
from nldsl.ir.stages import STEP, stages
from nldsl.ir.types import BATCH, TIME, Type
from nldsl.passes.einsum_cost import contraction

# what PyTorch does without touching the entries
VIEWS = frozenset("reshape broadcast slice spread collect when stop_grad lane unfold".split()) | ops.LEAVES | {"given"}
LEAVES = ops.LEAVES | ops.SEGMENT_LEAVES
MOVES = VIEWS | frozenset("concat pad take one_hot to_real band unband".split())
REDUCTIONS = frozenset("sum max cumsum cumprod axis_sum batch_mean scatter_add".split())


@dataclass(frozen=True)
class Work:
    """Per tick, on average over a segment.

    ``operations``: multiplications, additions and other elementwise functions. ``entries``: numbers read and written if
    every operation goes to memory. ``rounds``: how many rounds of loops one tick takes (1/64 for segments of 64
    ticks). ``steps``: operations that wait for each other, all loops together.
    """

    operations: Dim
    entries: Dim
    rounds: Fraction
    steps: Fraction


def work(schedule: Schedule) -> Work:
    """The work of one tick of a schedule, losses included."""
    total, moved, rounds, steps = _Sum(), _Sum(), Fraction(0), Fraction(0)
    body = schedule.program.body
    plain = Sizes(schedule.program, {}, 1)
    for phase in schedule.all_phases():
        if isinstance(phase, ChunkLoop):
            sizes = Sizes(schedule.program, {a.name: a.size for a in phase.lanes}, phase.size)
            found = stages(phase)
            needed = [v for v, stage in enumerate(found) if stage is not None]
            share = Fraction(1, phase.size)
            total.add(_operations(phase.body, needed, sizes), share)
            moved.add(_entries(phase.body, needed, sizes), share)
            rounds += share
            steps += share * _depth(phase.body, [v for v in needed if found[v] == STEP])
        elif isinstance(phase, (Scan, Parallel)):
            total.add(_operations(body, phase.values, plain))
            moved.add(_entries(body, phase.values, plain))
            if isinstance(phase, Scan):
                rounds += 1
                steps += _depth(body, phase.values)
        elif isinstance(phase, Delay):
            moved.add([2 * plain.entries(body[phase.value].type)])
    return Work(total.value, moved.value, rounds, steps)


class _Sum:
    """A sum of sizes with fractions."""

    def __init__(self) -> None:
        self.value: Dim = 0

    def add(self, sizes: Iterable[Dim], share: Fraction = Fraction(1)) -> None:
        found: Dim = 0
        for size in sizes:
            found = found + size
        if isinstance(found, int) and (found * share).denominator != 1:
            self.value = self.value + _rounded(found * share)
        else:
            self.value = self.value + _scaled(found, share)


def _rounded(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


def _scaled(size: Dim, share: Fraction) -> Dim:
    if isinstance(size, int):
        return int(size * share)
    return Poly(tuple((m, int(c * share) if (c * share).denominator == 1 else c * share) for m, c in size.terms))


@dataclass(frozen=True)
class Sizes:
    """How many entries types have: ``ticks`` for the axis of time, ``lanes`` for axes that only a loop has."""

    program: Program
    lanes: Mapping[str, Dim | None]
    ticks: int

    def number(self, size: Dim) -> Dim:
        return substitute(size, {str(TICKS): self.ticks})

    def axes(self, type: Type) -> Dim:
        found: Dim = 1
        for axis in type.axes:
            if axis == TIME:
                found = found * self.ticks
            elif axis != BATCH:
                size = self.lanes[axis] if axis in self.lanes else self.program.axis_size(axis)
                found = found * (1 if size is None else size)
        return found

    def entries(self, type: Type) -> Dim:
        return self.axes(type) * self.number(ops.product(type.shape))


def _operations(body: tuple[Instr, ...], values: Iterable[int], sizes: Sizes) -> Iterable[Dim]:
    return (operations_of(body, body[v], sizes) for v in values)


def operations_of(body: tuple[Instr, ...], instr: Instr, sizes: Sizes) -> Dim:
    """The operations of one instruction; what is special about an operation stands in ``_SPECIAL``."""
    types = [body[a].type for a in instr.args]
    if instr.op in LEAVES or instr.op in MOVES:
        return 0
    if instr.op == "einsum":
        shapes = [[sizes.number(s) for s in t.shape] for t in types]
        return contraction(instr.attr("spec"), shapes, sizes.axes(instr.type))
    lanes = sizes.axes(instr.type)
    shape = [sizes.number(s) for s in types[0].shape] if types else []
    match instr.op:
        case "solve_triangular":  # half of a product, both its multiplications and its additions
            return shape[0] * sizes.entries(instr.type)
        case "solve":
            return shape[0] * shape[0] * shape[0] * sizes.axes(types[0]) + 2 * shape[0] * sizes.entries(instr.type)
        case "segprod":
            inner = 2 * shape[1] if instr.attr("matrix") else 1
            return inner * sizes.entries(instr.type)
        case "decay_gram":
            return lanes * 3 * shape[0] * shape[0] * shape[1]
        case "decay_gram_grad":
            return lanes * 9 * shape[0] * shape[0] * sizes.number(types[1].shape[1])
        case "linear_scan":
            return 2 * sizes.entries(instr.type)
        case "matrix_scan":
            return 2 * shape[1] * sizes.entries(instr.type)
        case "two_sided_scan":
            return 2 * (shape[1] + sizes.number(types[2].shape[1])) * sizes.entries(instr.type)
    if instr.op in REDUCTIONS:
        return sizes.entries(types[0])
    return sizes.entries(instr.type)


def _entries(body: tuple[Instr, ...], values: Iterable[int], sizes: Sizes) -> Iterable[Dim]:
    return (entries_of(body, body[value], sizes) for value in values)


def entries_of(body: tuple[Instr, ...], instr: Instr, sizes: Sizes) -> Dim:
    """What an operation reads and writes."""
    total: Dim = 0
    if instr.op not in VIEWS:
        total = sizes.entries(instr.type)
        for arg in instr.args:
            total = total + sizes.entries(body[arg].type)
    return total


def _depth(body: tuple[Instr, ...], values: Iterable[int]) -> int:
    """The longest chain of operations that wait for each other."""
    deep: dict[int, int] = {}
    for value in values:
        instr = body[value]
        own = 0 if instr.op in VIEWS else 1
        deep[value] = own + max((deep.get(a, 0) for a in instr.args), default=0)
    return max(deep.values(), default=0)
