"""The host side of a job: what it allocates, and how it launches its kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nldsl.backends.triton.job import Job, Source
from nldsl.backends.triton.kernel import Kernel
from nldsl.backends.triton.pressure import FROM_MEMORY, ROOM
from nldsl.backends.triton.printer import INDENT
from nldsl.backends.triton.tiles import Extent, UnsupportedError, more_blocks, power_of_two
from nldsl.backends.triton.workspaces import Slot, Workspaces
from nldsl.ir.stages import STEP
from nldsl.ir.types import BATCH, TIME, Clock

LEAST_BLOCK = 16
# The ticks of a segment where products are not in half precision: what is there once for each pass of a product would
# not fit into registers; and where streams have more columns than these, or more is held: of those that are wide.
SINGLE, SINGLE_WIDE, NARROW = 32, 16, 64
WARPS, MANY_WARPS, STAGES = 4, 8, 2


@dataclass(frozen=True)
class Frame:
    """How the ticks of a call are cut: at most ``size``, and after every tick at which one of ``clocks`` fires; at most
    ``single`` where products are not in half precision."""

    size: int
    clocks: tuple[Clock, ...]
    single: int = SINGLE

    @property
    def block(self) -> int:
        return max(LEAST_BLOCK, power_of_two(self.size))

    @property
    def cycle(self) -> int:
        """After how many ticks the clocks are as they were."""
        return math.lcm(*(c.period for c in self.clocks))

    @property
    def pairs(self) -> str:
        """The clocks as ``segment_starts`` takes them."""
        return listed([f"({c.period}, {1 % c.period if c.start else 0})" for c in self.clocks])


@dataclass
class Written:
    """The kernels of a job with what they leave in memory. ``like`` has the tensor that an output or a sum is the
    cotangent of, by the name of the result. ``extra`` are tensors that only the way back reads. ``keeps``: what the way
    back reads of the forward run is a result of that; else it has a ``rerun`` that makes it again."""

    job: Job
    frame: Frame
    kernels: list[Kernel]
    spaces: Workspaces
    like: Mapping[str, Source] = field(default_factory=dict)
    extra: Sequence[Source] = ()
    keeps: bool = True
    rerun: Rerun | None = None

    @property
    def inputs(self) -> list[Source]:
        """The tensors that the function of the run takes, each once."""
        again = self.rerun.forward.inputs if self.rerun else []
        return list({s.name: s for s in (*self.read, *again)}.values())

    @property
    def read(self) -> list[Source]:
        """The tensors that kernels read, each once: carried values first."""
        resets = [s for _, s in self.job.resets.values() if not self.job.reverse]
        every = [*self.job.variables.values(), *self.job.sources.values(), *resets, *self.extra]
        return list({s.name: s for s in every}.values())

    @property
    def texts(self) -> list[str]:
        """The source of the kernels."""
        return [kernel.source for kernel in self.kernels]

    @property
    def begun(self) -> list[Slot]:
        """What the forward run has left for this one."""
        return list(self.spaces.begun.values()) if self.keeps else []

    @property
    def initials(self) -> list[Source]:
        """The cotangents of initial values, on the way back."""
        return [s for _, s in self.job.resets.values()] if self.job.reverse else []

    @property
    def left(self) -> list[Slot]:
        """What this run leaves for the way back."""
        return [self.spaces.kept[key] for key in self.job.keep] if self.keeps else []


@dataclass(frozen=True)
class Rerun:
    """The function ``name`` runs ``kernels``, those of the ``forward`` run that make ``slots`` again."""

    name: str
    forward: Written
    kernels: Sequence[Kernel]
    slots: Sequence[Slot]


def listed(names: Sequence[str]) -> str:
    """A tuple as code."""
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def lanes(job: Job) -> list[str]:
    """The sizes of the lanes of a sequence."""
    return [str(job.axis_size(axis)) for axis in job.lanes if axis != BATCH]


def tensor_shape(job: Job, source: Source) -> str:
    """The shape of a tensor in canonical layout: of a stream as many rows as the inputs have, else one a sequence."""
    words = []
    batch = "B" if TIME in source.type.axes else "sequences"
    for axis in source.type.axes:
        size = job.axis_size(axis) if axis != TIME else None
        words.append("TICKS" if axis == TIME else batch if size is None else str(size))
    return listed([*words, *(str(s) for s in source.type.shape)])


def slot_shape(slot: Slot) -> str:
    """The shape of a workspace."""
    return listed(["N", "lanes", *(Extent(s).whole for s in slot.sizes)])


def arguments(written: Written) -> list[str]:
    """The tensors of a run: what kernels read, then what the forward run has left."""
    return [*(s.name for s in written.inputs), *(s.name for s in written.begun)]


def frame_lines(written: Written) -> list[str]:
    """What a run knows of its inputs: how many sequences, lanes and segments there are, which types it computes in."""
    inputs, frame = written.inputs, written.frame
    tick = f"tick % {frame.cycle}" if frame.cycle > 1 else "0"
    block = f"segment_block(types, {frame.block}, {frame.single})" if shortened(written) else str(frame.block)
    size = "BT" if frame.size == frame.block else f"min(BT, {frame.size})" if shortened(written) else str(frame.size)
    return [
        *(f"{name} = {name}.contiguous()" for name in arguments(written)),
        *counts(written),
        f"lanes = {' * '.join(lanes(written.job)) or '1'}",
        types_line(written),
        f"BT = {block}",
        *(f"{name} = {size}" for name, size in _window_blocks(written).items()),
        f"segments = ({tick}, TICKS, sequences, tuple(cuts), {size}, {frame.pairs})",
        "N = segment_count(*segments)",
        f"wide = torch.promote_types({inputs[0].name}.dtype, torch.float32)",
        *(["narrow = product_type(types)"] if any(s.narrow for s in written.spaces.every()) else []),
    ]


def run_lines(written: Written) -> list[str]:
    """The body of the function that runs a job."""
    job, first = written.job, written.inputs[0].name
    lines = frame_lines(written)
    kept = dict.fromkeys((*written.left, *written.spaces.sums.values()))
    between = [s for s in (*written.spaces.values.values(), *written.spaces.kept.values()) if s not in kept]
    lines += [f"{s.name}_out = torch.empty_like({s.name})" for s in job.variables.values()]
    for source, _ in job.outputs:
        like = written.like.get(source.name)
        same = like is not None and like.type == source.type
        new = (
            f"torch.empty_like({like.name})"
            if like and same
            else f"{first}.new_empty({tensor_shape(job, source)}, dtype={own_type(like)})"
        )
        lines.append(f"{source.name} = {new}")
    for source in written.initials:
        lines.append(f"{source.name} = {first}.new_empty({tensor_shape(job, source)})")
    lines += [_new(slot, first) for slot in kept]
    lines.append("if launch:")
    inside = launches(written, written.kernels, between, written.rerun)
    lines += [INDENT + line for line in inside]
    totals = {source.name: _sum(written, source, value) for source, value in job.sums}
    return [*lines, *result_lines(job, written.like, totals, [*written.initials, *written.left])]


def launches(
    written: Written, kernels: Sequence[Kernel], between: Sequence[Slot], rerun: Rerun | None = None
) -> list[str]:
    """The launches of kernels. Each workspace ``between`` them is allocated before the first that has it, and given
    back after the last. What ``rerun`` makes is made before the first that reads it."""
    first, made = written.inputs[0].name, rerun.slots if rerun else ()
    lines = [f"bounds, since, shared, owner, cuts = segment_tables(*segments, {first}.device)"]
    names = [kernel.workspaces for kernel in kernels]
    waiting = rerun
    for n, kernel in enumerate(kernels):
        own = [slot for slot in dict.fromkeys((*between, *made)) if slot.name in kernel.workspaces]
        if waiting and any(slot in made for slot in own):
            lines.append(_again(waiting))
            waiting = None
        begins = [slot for slot in own if slot not in made and not any(slot.name in x for x in names[:n])]
        lines += [_new(slot, first) for slot in begins]
        lines += launch_lines(kernel)
        ended = [slot.name for slot in own if not any(slot.name in x for x in names[n + 1 :])]
        lines += [f"del {', '.join(ended)}"] if ended else []
    return lines


def _again(rerun: Rerun) -> str:
    """The call that makes again what was not kept. The tables have taken the name of the cuts."""
    given = ["tick", "TICKS", "segments[3]", *(s.name for s in rerun.forward.inputs)]
    return f"{listed([slot.name for slot in rerun.slots])} = {rerun.name}({', '.join(given)})"


def types_line(written: Written) -> str:
    """Which types the kernels compute in: gates, which are float32 whatever the others are, have no say."""
    own = [s for s in written.read if not s.wide] or written.read
    streams = [s.name for s in own if TIME in s.type.axes]
    return f"low, types = kernel_types({listed([s.name for s in own])}, {listed(streams)})"


def own_type(like: Source | None) -> str:
    """The type of a result, as code: that of what it is the cotangent of where this is a gate."""
    return f"{like.name}.dtype" if like is not None and like.wide else "low"


def result_lines(
    job: Job, like: Mapping[str, Source], totals: Mapping[str, str], more: Sequence[Source | Slot]
) -> list[str]:
    """The end of the function that runs a job: cotangents summed over axes that what they belong to does not have,
    ``totals`` (code, by name) of what lanes left, and all results, ``more`` last."""
    lines = []
    for source, _ in job.outputs:
        own = like.get(source.name)
        if own is not None and own.type != source.type:
            over = [str(d) for d, axis in enumerate(source.type.axes) if axis not in own.type.axes]
            lines.append(f"{source.name} = {source.name}.sum({listed(over)}).to({own.name}.dtype)")
    lines += [f"{name} = {code}" for name, code in totals.items()]
    results = [f"{s.name}_out" for s in job.variables.values()]
    results += [s.name for s, _ in (*job.outputs, *job.sums)]
    results += [s.name for s in more]
    return [*lines, f"return [{', '.join(results)}]"]


def single_ticks(job: Job, capability: int) -> int:
    """The ticks of a segment where products are not in half precision: less where a tick has many columns, where
    products take their operands from registers, and where decays of each channel are there besides."""
    columns = [
        math.prod(power_of_two(n) for n in source.type.shape if isinstance(n, int))
        for source in job.sources.values()
        if TIME in source.type.axes
    ]
    channels = any(i.op == "decay_gram" for i in job.body)
    many = max(columns, default=1) > NARROW or channels or capability // 10 not in FROM_MEMORY
    return SINGLE_WIDE if many else SINGLE


def shortened(written: Written) -> bool:
    """Whether segments are shorter where products are not in half precision. Those that see a window stay as long as
    the window wants them."""
    return written.frame.block > written.frame.single and not _window_blocks(written)


def _window_blocks(written: Written) -> dict[str, int]:
    shapes = " ".join(slot_shape(s) for s in written.spaces.every())
    return more_blocks(" ".join([shapes, *(b for k in written.kernels for b in k.blocks)]), written.frame.block)


def counts(written: Written) -> list[str]:
    """``B``, the rows of streams, and ``sequences``: as many, but where sequences are packed in a row."""
    if BATCH not in written.job.lanes:
        return ["sequences = 1"]  # nothing differs from sequence to sequence
    batched = [s for s in written.inputs if BATCH in s.type.axes]
    streams = [s.name for s in batched if TIME in s.type.axes]
    others = [s.name for s in batched if TIME not in s.type.axes]
    rows = f"B = {[*streams, *others][0]}.shape[0]"
    return [rows, f"sequences = {others[0]}.shape[0]" if others else "sequences = len(cuts) - 1 if cuts else B"]


def _new(slot: Slot, like: str) -> str:
    return f"{slot.name} = {like}.new_empty({slot_shape(slot)}, dtype={'narrow' if slot.narrow else 'wide'})"


def _sum(written: Written, source: Source, value: int) -> str:
    """The sum of what all segments left, over the lanes that the result does not have."""
    job, like = written.job, written.like[source.name]
    own = job.body[value].type.axes
    flags = ["sum" if a in own and a not in like.type.axes else "keep" if a in own else "first" for a in job.lanes]
    segments = flags.pop(0) if BATCH in job.lanes else "sum"
    kept = tuple(a for a in own if a in like.type.axes)
    if kept != tuple(a for a in like.type.axes if a in kept) or len(kept) != len(like.type.axes):
        raise UnsupportedError(f"the axes of the sum of `{like.name}` are mixed")
    sizes = [str(e) for e in written.spaces.sums[source.name].sizes]
    quoted, others = listed([f'"{flag}"' for flag in flags]), lanes(job)
    whole = source.name
    if segments != "sum":
        whole = f"parts_of_sequences({whole}, segments)"
        quoted, others = listed([f'"{flag}"' for flag in (segments, *flags)]), ["-1", *others]
    return f"sum_of_parts({whole}, {listed(others)}, {quoted}, {listed(sizes)}).to({like.name}.dtype)"


def launch_lines(kernel: Kernel) -> list[str]:
    """One launch."""
    grid = ["sequences * lanes" if kernel.stage == STEP else "N * lanes"]
    block = column_block(kernel)
    if isinstance(kernel.columns, int):
        grid.append(str(power_of_two(kernel.columns) // block))
    if kernel.parts:
        grid.append(str(power_of_two(kernel.parts) // kernel.part_block))
    columns = f"tile_columns(types, {block})" if kernel.tiles else str(block)
    sizes = {"BT": "BT", "LOG_BT": "BT.bit_length() - 1", "BV": columns, "BP": str(kernel.part_block)}
    constants = [f"{name}={sizes.get(name) or f'types[{chr(34)}{name}{chr(34)}]'}" for name in kernel.constants]
    constants += [f"{name}={name}" for name in kernel.blocks]
    given = [*kernel.frame, *kernel.arguments, *kernel.workspaces]
    return [
        f"{kernel.name}[{listed(grid)}](",
        f"{INDENT}{', '.join(given)},",
        f"{INDENT}{', '.join(constants)}, num_warps={warps(kernel)}, num_stages={stages(kernel)},",
        ")",
    ]


def column_block(kernel: Kernel) -> int:
    """How many columns a program takes, or goes through at a time; 1 if they are not divided."""
    if kernel.columns is None:
        return kernel.column_block
    if not isinstance(kernel.columns, int):
        raise UnsupportedError("columns of unknown number")
    return min(kernel.column_block, power_of_two(kernel.columns))


def warps(kernel: Kernel) -> int:
    """More warps where one program works on much at once."""
    return MANY_WARPS if 2 * kernel.peak > ROOM else WARPS


def stages(kernel: Kernel) -> int:
    """How many rounds of a loop are on their way at once: reading ahead costs what goes through tiles registers."""
    return 1 if kernel.tiles else STAGES


def rerun_lines(rerun: Rerun) -> list[str]:
    """The body of the function that runs kernels again: what they make, nothing else outlives it. Where they write
    results of the run, these go into memory that nobody reads."""
    written, names = rerun.forward, {a for kernel in rerun.kernels for a in kernel.arguments}
    first = written.inputs[0].name
    spaces = written.spaces
    between = [s for s in (*spaces.values.values(), *spaces.kept.values()) if s not in rerun.slots]
    lines = frame_lines(written)
    lines += [f"{s.name}_out = torch.empty_like({s.name})" for s in written.job.variables.values()]
    for source, _ in written.job.outputs:
        if source.name in names:
            lines.append(f"{source.name} = {first}.new_empty({tensor_shape(written.job, source)}, dtype=low)")
    lines += [_new(slot, first) for slot in rerun.slots]
    lines += launches(written, rerun.kernels, between)
    return [*lines, f"return {listed([slot.name for slot in rerun.slots])}"]


def rerun_source(rerun: Rerun) -> str:
    """The function that runs kernels of the forward run again on the way back."""
    head = function_head(rerun.name, [*(s.name for s in rerun.forward.inputs)])
    what = f'{INDENT}"""What the forward run does not keep for the way back: its kernels again, without the outputs."""'
    return "\n".join([head, what, *(INDENT + line for line in rerun_lines(rerun))])


def function_head(name: str, tensors: Sequence[str], more: Sequence[str] = ()) -> str:
    """The first line of a function of the host, or several where it is long."""
    parameters = ["tick", "TICKS", "cuts", *tensors, *more]
    head = f"def {name}({', '.join(parameters)}):"
    if len(head) > 110:
        head = f"def {name}(\n" + "".join(f"{INDENT}{a},\n" for a in parameters) + "):"
    return head


def run_source(written: Written, name: str) -> str:
    """The function that runs a job: the carried values, the results, what is left for the way back. Without ``launch``
    it only allocates."""
    head = function_head(name, arguments(written), ["launch=True"])
    return "\n".join([head, *(INDENT + line for line in run_lines(written))])
