"""The host side of a loop over ticks: what it allocates, and how it launches its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nldsl.backends.triton.host import (
    Written,
    arguments,
    counts,
    lanes,
    listed,
    own_type,
    result_lines,
    tensor_shape,
    types_line,
)
from nldsl.backends.triton.job import Source
from nldsl.backends.triton.memory import pointer
from nldsl.backends.triton.printer import INDENT
from nldsl.backends.triton.tick_kernel import CUTS, NUMBERS, SINGLE, TickKernel
from nldsl.backends.triton.tiles import Extent, UnsupportedError, power_of_two
from nldsl.backends.triton.workspaces import Slot
from nldsl.ir.types import BATCH

FULL = 40  # entries of a tile that one thread takes, before there are more threads
MOST_WARPS = 16


@dataclass
class TickWritten(Written):
    """``ticks`` is the kernel. ``again``: the job whose ticks the way back runs once more, which reads tensors too."""

    ticks: TickKernel | None = None
    again: Sequence[Source] = field(default_factory=list)

    @property
    def kernel(self) -> TickKernel:
        assert self.ticks is not None
        return self.ticks

    @property
    def texts(self) -> list[str]:
        return [self.kernel.source]

    @property
    def read(self) -> list[Source]:
        every = [*super().read, *self.again]
        return list({s.name: s for s in every}.values())

    @property
    def left(self) -> list[Slot]:
        return [self.spaces.kept[key] for key in self.job.keep]


def warps(kernel: TickKernel) -> int:
    """More warps for a program that works on more at once."""
    return min(MOST_WARPS, max(1, power_of_two(kernel.peak // (32 * FULL))))


def run_lines(written: TickWritten) -> list[str]:
    """The body of the function that runs a job."""
    job, inputs, kernel = written.job, written.inputs, written.kernel
    first = inputs[0].name
    lines = [f"{name} = {name}.contiguous()" for name in arguments(written)]
    lines += counts(written)
    lines += [f"lanes = {' * '.join(lanes(job)) or '1'}", "rows = sequences * lanes"]
    if kernel.kind != SINGLE:
        lines += ["EVERY = ticks_of_block(TICKS, tuple(cuts))", "N = blocks_of_ticks(TICKS, tuple(cuts))"]
    if kernel.mentioned(["PACKED"]):
        lines.append("PACKED = int(len(cuts) > 0)")
    lines += [
        types_line(written),
        f"wide = torch.promote_types({first}.dtype, torch.float32)",
    ]
    lines += [f"{s.name}_out = torch.empty_like({s.name})" for s in job.variables.values()]
    for source, _ in job.outputs:
        like = written.like.get(source.name)
        if like and like.type == source.type:
            lines.append(f"{source.name} = torch.empty_like({like.name})")
        else:
            lines.append(f"{source.name} = {first}.new_empty({tensor_shape(job, source)}, dtype={own_type(like)})")
    lines += [f"{s.name} = {first}.new_empty({tensor_shape(job, s)})" for s in written.initials]
    own = [(slot, ["rows", "N"]) for slot in written.left]
    own += [(slot, ["rows", "EVERY"]) for slot in kernel.before.values()]
    own += [(slot, ["sequences", "lanes"]) for slot in kernel.sums.values()]
    lines += [f"{slot.name} = {first}.new_empty({_slot_shape(slot, n)}, dtype=wide)" for slot, n in own]
    lines.append("if launch:")
    if kernel.mentioned([pointer(CUTS)]):
        lines.append(f"{INDENT}cuts = sequence_table(TICKS, sequences, tuple(cuts), {first}.device)")
    lines += [INDENT + line for line in launch_lines(kernel)]
    totals = {source.name: _sum(written, source, value) for source, value in job.sums}
    return [*lines, *result_lines(job, written.like, totals, [*written.initials, *written.left])]


def _slot_shape(slot: Slot, lead: list[str]) -> str:
    return listed([*lead, *(Extent(s).whole for s in slot.sizes)])


def _sum(written: TickWritten, source: Source, value: int) -> str:
    """The sum of what the lanes have added up, over those that the result does not have."""
    job, like = written.job, written.like[source.name]
    own = job.body[value].type.axes
    flags = ["sum" if a in own and a not in like.type.axes else "keep" if a in own else "first" for a in job.lanes]
    kept = tuple(a for a in own if a in like.type.axes)
    if kept != tuple(a for a in like.type.axes if a in kept) or len(kept) != len(like.type.axes):
        raise UnsupportedError(f"the axes of the sum of `{like.name}` are mixed")
    sizes = [str(e) for e in written.kernel.sums[source.name].sizes]
    quoted = listed([f'"{flag}"' for flag in flags])
    others = listed([*(["-1"] if BATCH in job.lanes else []), *lanes(job)])
    return f"sum_of_parts({source.name}, {others}, {quoted}, {listed(sizes)}).to({like.name}.dtype)"


def launch_lines(kernel: TickKernel) -> list[str]:
    """The launch."""
    grid = ["rows", *([str(kernel.columns.programs)] if kernel.columns.places else [])]
    given = [*kernel.mentioned(NUMBERS), *([CUTS] if kernel.mentioned([pointer(CUTS)]) else []), *kernel.pointers]
    constants = [f"BV={kernel.columns.block}" if c == "BV" else f'{c}=types["{c}"]' for c in kernel.constants]
    return [
        f"{kernel.name}[{listed(grid)}](",
        f"{INDENT}{', '.join(given)},",
        f"{INDENT}{', '.join([*constants, f'num_warps={warps(kernel)}', 'num_stages=1'])},",
        ")",
    ]


def run_source(written: TickWritten, name: str) -> str:
    """The function that runs a job: the carried values, the results, what is left for the way back. Without ``launch``
    it only allocates."""
    head = f"def {name}({', '.join(['tick', 'TICKS', 'cuts', *arguments(written)])}, launch=True):"
    if len(head) > 110:
        given = "".join(f"{INDENT}{a},\n" for a in ("tick", "TICKS", "cuts", *arguments(written)))
        head = f"def {name}(\n{given}{INDENT}launch=True,\n):"
    return "\n".join([head, *(INDENT + line for line in run_lines(written))])
