"""The host side of a job: what it allocates, and how it launches its kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.backends.triton.builder import INDENT
from nldsl.backends.triton.job import Job, Key, Source
from nldsl.backends.triton.kernel import Kernel, Slot, Workspaces
from nldsl.backends.triton.tiles import Extent, UnsupportedError, power_of_two
from nldsl.ir.stages import STEP
from nldsl.ir.types import BATCH, TIME, Clock

LEAST_BLOCK, MOST_BLOCK = 16, 128


@dataclass(frozen=True)
class Frame:
    """How the ticks of a call are cut: at most ``size``, and after every tick at which one of ``clocks`` fires."""

    size: int
    clocks: tuple[Clock, ...]

    @property
    def block(self) -> int:
        return max(LEAST_BLOCK, power_of_two(self.size))


@dataclass
class Written:
    """The kernels of a job with what they leave in memory."""

    job: Job
    frame: Frame
    kernels: list[Kernel]
    spaces: Workspaces

    @property
    def inputs(self) -> list[Source]:
        """The tensors that kernels read, each once: carried values first."""
        resets = [s for _, s in self.job.resets.values()]
        every = [*self.job.variables.values(), *self.job.sources.values(), *resets]
        return list({s.name: s for s in every}.values())

    @property
    def saved(self) -> list[Key]:
        return list(self.job.keep)


def clock_pairs(clocks: Sequence[Clock]) -> str:
    """The clocks as ``segment_bounds`` takes them."""
    pairs = [f"({c.period}, {1 % c.period if c.start else 0})" for c in clocks]
    return f"({', '.join(pairs)}{',' if len(pairs) == 1 else ''})"


def size_of(axis: str, sources: Sequence[Source], default: str) -> str:
    """The size of a mapped axis, from a tensor that has it."""
    for source in sources:
        if axis in source.type.axes:
            return f"{source.name}.shape[{source.type.axes.index(axis)}]"
    return default


def rows(job: Job) -> str:
    """The number of lanes."""
    factors = []
    for axis in job.lanes:
        size = job.axis_size(axis)
        factors.append("B" if size is None else str(size))
    return " * ".join(factors) or "1"


def tensor_shape(job: Job, source: Source) -> str:
    """The shape of a tensor in canonical layout."""
    words = []
    for axis in source.type.axes:
        size = job.axis_size(axis) if axis != TIME else None
        words.append("TICKS" if axis == TIME else "B" if size is None else str(size))
    words += [str(s) for s in source.type.shape]
    return f"({', '.join(words)}{',' if len(words) == 1 else ''})"


def slot_shape(slot: Slot) -> str:
    """The shape of a workspace."""
    blocks = [Extent(s).whole for s in slot.sizes]
    return f"({', '.join(['rows', 'N', *blocks])})"


def setup_lines(written: Written, most: int) -> list[str]:
    """Sizes, types and segments, from the tensors of a call."""
    job, inputs = written.job, written.inputs
    streams = [s.name for s in inputs if TIME in s.type.axes]
    tensors = [s.name for s in inputs]
    first = tensors[0]
    lines = [f"{name} = {name}.contiguous()" for name in tensors]
    lines.append(f"B = {size_of(BATCH, inputs, '1')}")
    if streams:
        lines.append(f"TICKS = {size_of(TIME, inputs, '')}")
    lines += [
        f"rows = {rows(job)}",
        f"BT = {written.frame.block}",
        f"bounds = segment_bounds(tick, TICKS, {most}, {clock_pairs(written.frame.clocks)}, {first}.device)",
        "N = bounds.shape[0] - 1",
        f"low, types = kernel_types({_tuple(tensors)}, {_tuple(streams)})",
        "constants = {**types, 'BT': BT, 'LOG_BT': BT.bit_length() - 1}",
        f"wide = torch.promote_types({first}.dtype, torch.float32)",
    ]
    return lines


def _tuple(names: Sequence[str]) -> str:
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def allocation_lines(written: Written, like: str) -> list[str]:
    """Results and workspaces."""
    job, slots = written.job, dict.fromkeys((*written.spaces.values.values(), *written.spaces.kept.values()))
    return [
        *(f"{s.name}_out = torch.empty_like({s.name})" for s in job.variables.values()),
        *(f"{s.name} = {like}.new_empty({tensor_shape(job, s)}, dtype=low)" for s, _ in job.outputs),
        *(f"{slot.name} = {like}.new_empty({slot_shape(slot)}, dtype=wide)" for slot in slots),
    ]


def launch_lines(kernel: Kernel) -> list[str]:
    """One launch."""
    grid = ["rows"] + (["N"] if kernel.stage != STEP else [])
    block = 1
    if kernel.columns is not None:
        if not isinstance(kernel.columns, int):
            raise UnsupportedError("columns of unknown number")
        block = min(kernel.column_block, power_of_two(kernel.columns))
        grid.append(str(-(-kernel.columns // block)))
    arguments = ["bounds", "tick", "TICKS", "N", *kernel.arguments, *kernel.workspaces]
    return [
        f"{kernel.name}[{_tuple(grid)}](",
        f"{INDENT}{', '.join(arguments)},",
        f"{INDENT}BV={block}, **constants,",
        ")",
    ]


def run_lines(written: Written) -> list[str]:
    """The body of the function that runs a job: the carried values, the outputs, and what was kept, as a tuple."""
    job = written.job
    lines = setup_lines(written, written.frame.size)
    lines += allocation_lines(written, written.inputs[0].name)
    for kernel in written.kernels:
        lines += launch_lines(kernel)
    results = [f"{s.name}_out" for s in job.variables.values()] + [s.name for s, _ in job.outputs]
    results += [written.spaces.kept[key].name for key in written.saved]
    lines.append(f"return {_tuple(results)}")
    return lines


def run_source(written: Written, name: str) -> str:
    """The function that runs a job."""
    arguments = ["tick", *(s.name for s in written.inputs)]
    if not any(TIME in s.type.axes for s in written.inputs):
        arguments.append("TICKS")
    lines = [f"def {name}({', '.join(arguments)}):", *(INDENT + line for line in run_lines(written))]
    return "\n".join(lines)
