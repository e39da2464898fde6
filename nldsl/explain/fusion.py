"""`nldsl explain --fusion`: what each fusion does to the loops of a program, one after the other.

Rows add one fusion to those above. A *contraction* is a matrix product or a solve; those of a loop run once per segment
unless they are hoisted, then once for all segments together. *Bytes* are what the results of all operations take per
token and sequence in float32, if each goes to memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from nldsl.dims import substitute
from nldsl.ir import ops
from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Phase, Scan, Schedule
from nldsl.ir.stages import STEP, stages
from nldsl.ir.types import BATCH, TIME
from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.plan import chunk_options
from nldsl.passes.schedule import schedule

FUSIONS = (
    ("chunk", "segments of ticks instead of ticks"),
    ("join", "loops with the same clocks are one"),
    ("merge", "writes that share a factor are one"),
    ("pack", "equal computations of a loop are one"),
    ("hoist", "what needs no state leaves the loop"),
)
CONTRACTIONS = frozenset("einsum solve solve_triangular decay_gram matrix_scan two_sided_scan".split())
FREE = frozenset("reshape broadcast slice spread collect lane unfold stop_grad when given".split()) | ops.LEAVES
BYTES = 4
_HEAD = (
    "  contractions (matrix products, solves) of one round of all loops, how many of those in 1024 ticks, and in all"
)


@dataclass(frozen=True)
class Counts:
    """``loops``; ``inside``: contractions of one round of all loops, ``total``: and those outside; ``often``: how often
    a contraction inside a loop runs per 1024 ticks; ``bytes``: of the results, per tick."""

    loops: int
    inside: int
    total: int
    often: int
    bytes: int


@dataclass(frozen=True)
class Row:
    """What the program is like with a fusion and those before it."""

    name: str
    words: str
    counts: Counts


def fusions(program: Program) -> list[Row]:
    """The rows for a derived and simplified program whose sizes are numbers."""
    names = [name for name, _ in FUSIONS]
    rows = [Row("", "every loop over ticks", counts(schedule(program)))]
    for number, (name, words) in enumerate(FUSIONS):
        options = chunk_options(frozenset(names[number + 1 :]))
        rows.append(Row(name, words, counts(_chunked(program, options))))
    return rows


def _chunked(program: Program, options: ChunkOptions) -> Schedule:
    found, _ = chunk(schedule(program), options)
    return found


def counts(planned: Schedule) -> Counts:
    """What runs for a schedule."""
    loops = inside = total = 0
    often, size = Fraction(0), Fraction(0)
    for phase in planned.all_phases():
        body, values = _body(planned, phase)
        found = sum(body[v].op in CONTRACTIONS and not _elementwise(body[v]) for v in values)
        total += found
        share = Fraction(1)
        if isinstance(phase, ChunkLoop):
            stage = stages(phase)
            found = sum(body[v].op in CONTRACTIONS and not _elementwise(body[v]) for v in values if stage[v] == STEP)
            share = Fraction(1, phase.size)
        if isinstance(phase, (ChunkLoop, Scan)):
            loops += 1
            inside += found
            often += found * share * 1024
        size += share * _entries(planned.program, phase, body, values)
    return Counts(loops, inside, total, int(often), int(size * BYTES))


def _body(planned: Schedule, phase: Phase) -> tuple[tuple[Instr, ...], list[int]]:
    if isinstance(phase, ChunkLoop):
        return phase.body, [v for v, stage in enumerate(stages(phase)) if stage is not None]
    return planned.program.body, list(getattr(phase, "values", ()))


def _elementwise(instr: Instr) -> bool:
    """An einsum that sums over nothing is no matrix product."""
    if instr.op != "einsum":
        return False
    inputs, output = ops.split_spec(instr.attr("spec"))
    return len(inputs) < 2 or all(x in output for x in "".join(inputs))


def _entries(program: Program, phase: Phase, body: tuple[Instr, ...], values: Iterable[int]) -> int:
    ticks = phase.size if isinstance(phase, ChunkLoop) else 1
    lanes = {a.name: a.size for a in phase.lanes} if isinstance(phase, ChunkLoop) else {}
    total = 0
    for value in values:
        type = body[value].type
        if body[value].op in FREE:
            continue
        found = substitute(ops.product(type.shape), {str(TICKS): ticks})
        for axis in type.axes:
            if axis == TIME:
                found = found * ticks
            elif axis != BATCH:
                size = lanes[axis] if axis in lanes else program.axis_size(axis)
                found = found * (1 if size is None else substitute(size, {str(TICKS): ticks}))
        assert isinstance(found, int), "sizes are numbers"
        total += found
    return total


def fusion_page(program: Program, sizes: str = "") -> str:
    """The rows as a table; ``sizes``: what was chosen for this page."""
    rows = fusions(program)
    head = ("", "loops", "in a round", "per 1024 ticks", "in all", "bytes a token", "")
    table: list[tuple[str, ...]] = [head]
    for row in rows:
        c = row.counts
        numbers = (c.loops, c.inside, c.often, c.total, c.bytes)
        table.append((row.name or "nothing", *(f"{n:,}" for n in numbers), row.words))
    widths = [max(len(line[n]) for line in table) for n in range(len(head))]
    lines = [f"fusions of {program.name}", *([f"  sizes chosen for this page: {sizes}"] if sizes else []), _HEAD, ""]
    for line in table:
        cells = [line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:6], widths[1:6], strict=True))]
        lines.append("  ".join([*cells, line[6]]).rstrip())
    off = ", ".join(name for name, _ in FUSIONS)
    lines += ["", f"Each can be switched off: `nldsl.compile(..., disabled=frozenset({{name}}))` with {off}."]
    return "\n".join(lines)
