"""Which loops become loops over segments, and how long a segment is.

    Schedule with Scan  -->  Schedule with ChunkLoop where that is possible and worth it, and a note on each loop

The length is 64, less where the tensors of a segment would be large, and never matters to the result. For backends
that run a segment in one piece it follows from the cost of a tick (``cost_segment.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nldsl.dims import Dim, substitute
from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.program import Program
from nldsl.ir.schedule import Parallel, Phase, Scan, Schedule
from nldsl.passes.chunk import chunk_scan
from nldsl.passes.cost_segment import best_length
from nldsl.passes.join_loops import joined, one_loop
from nldsl.passes.pack import pack
from nldsl.passes.recurrence import Refusal
from nldsl.source import NO_SPAN, Span

RECURRENT = frozenset(
    "solve_triangular segprod cumprod decay_gram linear_scan matrix_scan two_sided_scan anchor".split()
)


SERIAL = 2  # times as long may a segment be that is done in one piece: fewer states are kept


@dataclass(frozen=True)
class ChunkOptions:
    """``enabled``: off keeps every loop sequential. ``size``: a length for all loops instead of the chosen one.
    ``longest``: the longest that is chosen, ``longest_window`` where there are only windows of streams. ``entries``:
    how large a tensor of one segment of one lane may become. ``shortest``: loops whose clocks fire more often stay
    sequential. ``join``: loops with the same clocks become one. ``pack``: equal computations of one loop are done
    together. ``merge``: writes that share a factor become one. ``hoist``: what needs no state is done for all
    segments at once. ``serial``: for a backend that does all of a segment before the next one, so that nothing is
    gained by what could be done for all of them at once: systems are solved with the states in their right side, and
    sums over earlier ticks are scans."""

    enabled: bool = True
    size: int | None = None
    longest: int = 64
    longest_window: int = 512
    shortest: int = 2
    entries: int = 1 << 17
    join: bool = True
    pack: bool = True
    merge: bool = True
    hoist: bool = True
    serial: bool = False


@dataclass(frozen=True)
class LoopNote:
    """What became of a loop. ``kind`` is its class in words; ``why`` and ``span`` say what kept it sequential;
    ``mixed`` are the states that a scan of matrices makes."""

    states: tuple[str, ...]
    kind: str
    size: int = 1
    why: str = ""
    lift: str = ""
    span: Span = NO_SPAN
    mixed: tuple[str, ...] = ()


def chunk(schedule: Schedule, options: ChunkOptions) -> tuple[Schedule, tuple[LoopNote, ...]]:
    """Every loop of a schedule in its best form."""
    notes: list[LoopNote] = []
    known = streams(schedule)

    def converted(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
        found: list[Phase] = []
        for part in joined(schedule, phases):
            if not isinstance(part, tuple):
                found.append(part)
                continue
            if len(part) > 1 and options.join:
                loop, note = choose(schedule.program, one_loop(schedule, part), options, known)
                if isinstance(loop, ChunkLoop):
                    found.append(loop)
                    notes.append(note)
                    continue
            for scan in part:
                loop, note = choose(schedule.program, scan, options, known)
                found.append(loop)
                notes.append(note)
        return tuple(found)

    result = replace(schedule, phases=converted(schedule.phases), loss_phases=converted(schedule.loss_phases))
    return result, tuple(notes)


def choose(program: Program, scan: Scan, options: ChunkOptions, known: frozenset[int]) -> tuple[Phase, LoopNote]:
    """One loop in its best form."""
    if not options.enabled:
        return scan, LoopNote(scan.states, "sequential", why="chunking is switched off")
    loop = chunk_scan(program, scan, options.size or options.longest, known, options.merge, options.serial)
    if isinstance(loop, ChunkLoop) and not options.hoist:
        loop = replace(loop, hoist=False)
    if isinstance(loop, Refusal):
        return scan, LoopNote(scan.states, loop.kind, 1, loop.why, loop.lift, span(program, loop))
    if options.size is not None:
        return pack(loop, program) if options.pack else loop, LoopNote(
            scan.states, loop.kind, options.size, mixed=loop.mixed
        )
    longest, entries = options.longest, options.entries
    window = only_windows(loop)
    if window:  # every segment looks back over the whole window: longer segments do that less often
        longest, entries = max(longest, min(options.longest_window, window // 4)), entries * 16
    shortest = min((c.period for c in loop.clocks), default=longest)
    if shortest < options.shortest:
        why = f"a clock of the loop fires every {shortest} tick{'s' if shortest > 1 else ''}"
        return scan, LoopNote(scan.states, loop.kind, 1, why)
    size = min(longest, shortest)
    if options.serial and not window:
        size = best_length(loop, program, min(SERIAL * longest, shortest))
    while size > 8 and largest(loop, size) > entries:
        size //= 2
    return replace(pack(loop, program) if options.pack else loop, size=size), LoopNote(
        scan.states, loop.kind, size, mixed=loop.mixed
    )


def streams(schedule: Schedule) -> frozenset[int]:
    """The values that a loop can get from outside."""
    body = schedule.program.body
    found = {v for v, i in enumerate(body) if i.op in ("input", "param", "const", "iota")}
    for phase in schedule.all_phases():
        loop = phase.scan if isinstance(phase, ChunkLoop) else phase
        if isinstance(phase, Parallel):
            found.update(phase.values)
        elif isinstance(loop, Scan):
            found.update(loop.exports)
    return frozenset(found)


def span(program: Program, refusal: Refusal) -> Span:
    """The place of what prevented the parallel form."""
    if 0 <= refusal.value < len(program.body):
        return program.body[refusal.value].span
    return NO_SPAN


def only_windows(loop: ChunkLoop) -> int:
    """The longest window of a loop in which nothing but windows leads from segment to segment; otherwise 0."""
    if any(i.op in RECURRENT for i in loop.body):
        return 0
    carried = {value for _, value in loop.carry}
    if not all(loop.body[value].op == "slice" for value in carried):
        return 0
    return max((i.attr("n") for i in loop.body if i.op in ("unfold", "band", "unband")), default=0)


def largest(loop: ChunkLoop, ticks: int) -> int:
    """Entries of the largest tensor of a segment of that many ticks, for one lane of the mapped axes."""
    return max((_entries(i.type.shape, ticks) for i in loop.body), default=0)


def _entries(shape: tuple[Dim, ...], ticks: int) -> int:
    total = 1
    for size in shape:
        known = substitute(size, {str(TICKS): ticks})
        total *= known if isinstance(known, int) else 64
    return total
