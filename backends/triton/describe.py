"""What stands at the head of a kernel: the equations it is a part of, its grid, what it gives and who reads it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence

from nldsl.backends.triton.job import Job
from nldsl.backends.triton.kernel import Kernel
from nldsl.backends.triton.tiles import Extent
from nldsl.backends.triton.workspaces import Workspaces
from nldsl.ir.stages import FINISH, PREPARE, STEP
from nldsl.ir.types import TIME

WIDTH = 112
WORK = {
    PREPARE: "What needs no carried value",
    STEP: "The loop over the segments of a sequence",
    FINISH: "What is left when the carried values are known",
}


def describe(job: Job, kernels: Sequence[Kernel], spaces: Workspaces, back: Collection[str] = ()) -> None:
    """Write the head of every kernel of a job. ``back``: the workspaces that the way back reads."""
    for at, kernel in enumerate(kernels):
        kernel.doc = _doc(job, kernel, kernels[at + 1 :], spaces, back)


def _doc(job: Job, kernel: Kernel, later: Sequence[Kernel], spaces: Workspaces, back: Collection[str]) -> list[str]:
    way = ", on the way back" if job.reverse else ""
    who = "sequence" if kernel.stage == STEP else "segment"
    grid = f"Grid: (number of {who}s * lanes"
    if kernel.columns is not None:
        grid += f", {kernel.columns} / BV columns"
    if kernel.parts:
        grid += f", {kernel.parts} / BP columns"
    grid += ")."
    if kernel.stage == STEP:
        ends = "last segment to the first" if job.reverse else "first segment to the last"
        grid += f" A program goes from the {ends}."
    if kernel.tiles:
        grid += f" A program takes {kernel.tiles} columns{' of another dim' * bool(kernel.parts)} in tiles of BV."
    paragraphs = [grid]
    results = [s.name for s, _ in (*job.outputs, *job.sums)]
    results += [f"{s.name}_out" for s in job.variables.values()]
    tensors = (*kernel.arguments, *kernel.workspaces)
    given = [name for name in tensors if name in results and writes(kernel, name)]
    sizes = _sizes(job, spaces)
    read = [name for name in tensors if name not in given and reads(kernel, name)]
    if read:
        paragraphs.append(f"Reads {', '.join(f'{name} {sizes[name]}' for name in read)}.")
    if given:
        paragraphs.append(f"Gives {', '.join(f'{name} {sizes[name]}' for name in given)}.")
    readers: dict[tuple[str, ...], list[str]] = {}
    for name in kernel.workspaces:
        if name in results or not writes(kernel, name):
            continue
        own = [k.name for k in later if name in k.workspaces]
        own += ["the way back"] if name in back else []
        readers.setdefault(tuple(own or [kernel.name]), []).append(f"{name} {sizes[name]}")
    paragraphs += [f"Leaves {', '.join(names)} for {', '.join(who)}." for who, names in readers.items()]
    lines = [f'"""{WORK[kernel.stage]}{way}.', "", *(f"    {e}" for e in job.equations)]
    lines += [""] * bool(job.equations)
    for paragraph in paragraphs:
        lines += textwrap.wrap(paragraph, WIDTH, subsequent_indent="  ")
    return [*lines, '"""']


def _sizes(job: Job, spaces: Workspaces) -> dict[str, str]:
    """What a program sees of each tensor: its axes that are no lanes, T ticks of a segment, and its logical dims; of a
    workspace the tile of a segment, with its padding."""
    outside = [s for _, s in job.resets.values()]
    sources = [*job.sources.values(), *job.variables.values(), *(s for s, _ in (*job.outputs, *job.sums)), *outside]
    found = {slot.name: _listed([Extent(size).whole for size in slot.sizes]) for slot in spaces.every()}
    for source in sources:
        axes = [a for a in source.type.axes if a not in job.lanes]
        sizes = ["T" if a == TIME else str(job.axis_size(a)) for a in axes]
        text = _listed([*sizes, *(str(s) for s in source.type.shape)])
        found.setdefault(source.name, text)
        found.setdefault(f"{source.name}_out", text)
    return found


def _listed(sizes: Sequence[str]) -> str:
    return f"[{', '.join(sizes)}]"


def reads(kernel: Kernel, name: str) -> bool:
    """Whether a kernel loads from a workspace or a tensor."""
    text = "\n".join(kernel.lines)
    return re.search(rf"tl\.load\(\s*{re.escape(name)}_(ptr|at)(_\d+)?\b", text) is not None


def writes(kernel: Kernel, name: str) -> bool:
    """Whether a kernel stores into a workspace or a tensor."""
    text = "\n".join(kernel.lines)
    pointer = re.escape(f"{name}_ptr")
    # a tensor's first entry has a name of its own, which need not begin as the tensor's does
    places = [pointer, *map(re.escape, re.findall(rf"^\s*(\w+) = \(?\s*{pointer}\b", text, re.MULTILINE))]
    return re.search(rf"tl\.store\(\s*({'|'.join(places)})\b", text) is not None
