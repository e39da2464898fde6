"""What stands at the head of a kernel: the equations it is a part of, its grid, what it gives and who reads it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence

from nldsl.backends.triton.job import Job
from nldsl.backends.triton.kernel import Kernel
from nldsl.ir.stages import FINISH, PREPARE, STEP

WIDTH = 112
WORK = {
    PREPARE: "What needs no carried value",
    STEP: "The loop over the segments of a sequence",
    FINISH: "What is left when the carried values are known",
}


def describe(job: Job, kernels: Sequence[Kernel], back: Collection[str] = ()) -> None:
    """Write the head of every kernel of a job. ``back``: the workspaces that the way back reads."""
    for at, kernel in enumerate(kernels):
        kernel.doc = _doc(job, kernel, kernels[at + 1 :], back)


def _doc(job: Job, kernel: Kernel, later: Sequence[Kernel], back: Collection[str]) -> list[str]:
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
    given = [name for name in (*kernel.arguments, *kernel.workspaces) if name in results and writes(kernel, name)]
    if given:
        paragraphs.append(f"Gives {', '.join(given)}.")
    for name in kernel.workspaces:
        if name in results or not writes(kernel, name):
            continue
        readers = [k.name for k in later if name in k.workspaces]
        readers += ["the way back"] if name in back else []
        paragraphs.append(f"Leaves {name} for {', '.join(readers) or kernel.name}.")
    lines = [f'"""{WORK[kernel.stage]}{way}.', "", *(f"    {e}" for e in job.equations)]
    lines += [""] * bool(job.equations)
    for paragraph in paragraphs:
        lines += textwrap.wrap(paragraph, WIDTH, subsequent_indent="  ")
    return [*lines, '"""']


def writes(kernel: Kernel, name: str) -> bool:
    """Whether a kernel stores into a workspace or a tensor."""
    text = "\n".join(kernel.lines)
    pointer = re.escape(f"{name}_ptr")
    # a tensor's first entry has a name of its own, which need not begin as the tensor's does
    places = [pointer, *map(re.escape, re.findall(rf"^\s*(\w+) = \(?\s*{pointer}\b", text, re.MULTILINE))]
    return re.search(rf"tl\.store\(\s*({'|'.join(places)})\b", text) is not None
