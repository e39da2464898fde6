"""A loop over ticks as source: its kernels, the functions that launch them, and operators of PyTorch around these."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from nldsl.backends.interface import LoopCall, LoopSource
from nldsl.backends.triton.columns import Relations
from nldsl.backends.triton.columns import columns as columns_of
from nldsl.backends.triton.host import Frame
from nldsl.backends.triton.job import Job, Source
from nldsl.backends.triton.jobs import Naming, backward_job, forward_job
from nldsl.backends.triton.library_text import called
from nldsl.backends.triton.operators import derivative_source, digest_of, entry_source, operator_source
from nldsl.backends.triton.pressure import Pressure
from nldsl.backends.triton.second_source import TABLE, again_source
from nldsl.backends.triton.tick_host import TickWritten, run_source
from nldsl.backends.triton.tick_job import timeless
from nldsl.backends.triton.tick_kernel import Columns, TickKernel, TickWriter
from nldsl.backends.triton.tick_round import without_outputs
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.workspaces import Workspaces
from nldsl.ir.types import BATCH

ROOM = 1 << 16  # entries that live at once: as many as one multiprocessor has registers
WIDTHS = (64, 32, 16, 8)
WIDE = 1 << 12  # entries that a program with columns may have at once, so that there are more programs
FRAME = Frame(1, ())


def tick_loop(
    call: LoopCall, imports: Sequence[str], second: Callable[[Naming, TickWritten], list[Source]] | None = None
) -> tuple[LoopSource, list[TickWritten]]:
    """The function of a loop over ticks, forward and backward. ``second`` sees to second derivatives, and gives what
    these need besides. Raises UnsupportedError where it has no kernels."""
    if call.derived is None:
        raise UnsupportedError("it has no backward pass of its own")
    title = re.sub(r"\W", "_", call.name)
    naming = Naming.of(call)
    forward_all = checked(forward_job(naming, f"{title}_fwd"))
    backward_all, like = backward_job(naming, call.derived, f"{title}_bwd")
    back = checked(backward_all)
    job = timeless(forward_all)
    again = without_outputs(job, tuple(dict.fromkeys(back.boundaries.values())))
    job = replace(job, keep=tuple(again.variables))
    writer = TickWriter(job, set(_names(naming, job, back)))
    divided = columns(job)
    entries, back_entries = fitting(job, divided), fitting(back, Columns())
    kernel = writer.write_forward(job.name, job.keep, divided)
    kernel.peak = entries
    forward = TickWritten(job, FRAME, [], Workspaces(kept=dict(kernel.begun)), ticks=kernel)
    way_back = writer.write_backward(back.name, back, kernel.begun)
    way_back.peak = back_entries
    backward = TickWritten(back, FRAME, [], Workspaces(begun=dict(kernel.begun)), like, ticks=way_back)
    backward.again = [*again.sources.values(), *(s for _, s in again.resets.values())]
    known = {s.name for s in backward.inputs}
    backward.extra = [s for s in dict.fromkeys(like.values()) if s.name not in known]
    known = {s.name for s in (*forward.inputs, *back.variables.values())}
    known |= {naming.cotangent(s.name) for s, _ in job.outputs}
    forward.extra = [s for s in backward.inputs if s.name not in known]
    if second is not None:
        forward.extra = [*forward.extra, *second(naming, forward)]
    return _source(naming, forward, backward, title, imports, second is not None), [forward, backward]


def checked(job: Job) -> Job:
    """The job without an axis of time. Raises UnsupportedError for integers that are carried or written."""
    found = timeless(job)
    for source in (*found.variables.values(), *(s for s, _ in found.outputs)):
        if source.type.kind != "real":
            raise UnsupportedError(f"`{source.name}` is an integer")
    return found


def _names(naming: Naming, *jobs: Job) -> list[str]:
    found = [a.name for a in naming.call.arguments]
    for job in jobs:
        tensors = (*job.sources.values(), *job.variables.values(), *(s for s, _ in (*job.outputs, *job.sums)))
        found += [s.name for s in tensors]
    return found


def columns(job: Job, wide: int = WIDE) -> Columns:
    """Columns divided where nothing mixes them, and one program would have more than it needs."""
    roots = [*(v for _, v in job.carry), *(v for _, v in job.outputs)]
    if peak(job, Columns()) <= wide:
        return Columns()
    best = Columns()
    for width in WIDTHS:
        places = columns_of(job, roots, (), width)
        if places:
            value, dim = min(places)
            size = Relations(job).sizes(value)[dim]
            assert isinstance(size, int)
            best = Columns(places, width, size)
            if peak(job, best) <= wide:
                break
    return best


def fitting(job: Job, divided: Columns) -> int:
    """The entries that live at once. Raises UnsupportedError where no program can hold them."""
    found = peak(job, divided)
    if found > ROOM:
        raise UnsupportedError(
            f"a program would hold {found} numbers at once, and a multiprocessor has {ROOM} registers"
        )
    return found


def peak(job: Job, divided: Columns) -> int:
    """The entries that live at once, by estimate."""
    pressure = Pressure(Relations(job), 1)
    roots = [*(v for _, v in job.carry), *(v for _, v in (*job.outputs, *job.sums))]
    split: dict[int, set[int]] = {}
    for value, dim in divided.places:
        split.setdefault(value, set()).add(dim)
    totals = sum(pressure.entries(v, split, divided.block) for _, v in job.sums)
    carried = sum(pressure.entries(v, split, divided.block) for v in set(job.carried))
    return max(pressure.peak(roots, (), divided.places, divided.block), carried) + totals


def _source(
    naming: Naming, forward: TickWritten, backward: TickWritten, title: str, imports: Sequence[str], second: bool
) -> LoopSource:
    kernels: list[TickKernel] = [forward.kernel, backward.kernel]
    functions: dict[str, str] = {}
    for kernel in kernels:
        functions.update(kernel.functions)
    run, back_run = f"{title}_launch", f"{title}_back_launch"
    texts = [*functions.values(), *(k.source for k in kernels)]
    texts += [run_source(forward, run), run_source(backward, back_run)]
    name, back = f"{title}_forward", f"{title}_backward"
    texts += [again_source(naming, forward, name)] if second else []
    digest = digest_of(*texts)
    texts.append(operator_source(forward, run, name, digest))
    texts.append(operator_source(backward, back_run, back, digest))
    texts.append(derivative_source(naming, forward, backward, name, back, second))
    texts += [text.rstrip() for state, *_, text in naming.call.initials if state in naming.initials]
    texts.append(entry_source(naming, forward, name))
    text = "\n\n\n".join(texts)
    shared = (*called("library", text), *called("host_library", text), *([TABLE] if second else []))
    held = [a for a in naming.call.arguments if a.kind in ("state", "anchor")]
    packs = all(BATCH in a.type.axes for a in held)
    return LoopSource(text, ("import math", *imports), shared, packs=packs)
