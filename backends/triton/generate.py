"""From a job to its kernels: one for each stage, columns divided where that is possible."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.backends.triton.columns import columns, result_columns
from nldsl.backends.triton.host import Frame, Written
from nldsl.backends.triton.job import Job
from nldsl.backends.triton.kernel import STAGE_NAMES, Kernel, KernelWriter, Workspaces
from nldsl.backends.triton.lower import Place
from nldsl.backends.triton.plan import Plan, plan
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.dims import Dim
from nldsl.ir.stages import FINISH, PREPARE, STEP


@dataclass(frozen=True)
class Choices:
    """The most columns that a program of STEP takes, and of FINISH: forward, and on the way back; 0: all of them.
    ``segment``: the most ticks that it takes at once."""

    step_columns: int = 32
    finish_columns: int = 64
    back_columns: int = 32
    segment: int = 64


def generate(job: Job, frame: Frame, choices: Choices | None = None, spaces: Workspaces | None = None) -> Written:
    """The kernels of a job. Raises UnsupportedError, with the reason, where there are none."""
    choices = choices or Choices()
    planned = plan(job)
    spaces = spaces or Workspaces()
    results = [s for s, _ in (*job.outputs, *job.sums)]
    spaces.names |= {s.name for s in (*job.sources.values(), *job.variables.values(), *results)}
    spaces.names |= {slot.name for slot in spaces.begun.values()}
    kernels = []
    for stage in (PREPARE, STEP, FINISH):
        if (stage == PREPARE and not planned.prepared) or (stage == FINISH and not planned.finish):
            continue
        if stage == FINISH:
            kernels += _finish(job, planned, spaces, choices)
        else:
            kernels.append(_kernel(job, planned, stage, spaces, choices))
    return Written(job, frame, kernels, spaces)


def _finish(job: Job, planned: Plan, spaces: Workspaces, choices: Choices) -> list[Kernel]:
    """One kernel, or on the way back one for each wide result, by columns where that is possible, and one for the rest.

    A program that computes all cotangents of wide keys and values has more tiles than registers."""
    results = [s.name for s, _ in (*job.outputs, *job.sums)]
    alone = [name for name in results if _split(job, planned, FINISH, choices, frozenset({name}))]
    if not job.reverse or len(results) == 1 or not alone:
        return [_kernel(job, planned, FINISH, spaces, choices)]
    wide = [s.name for s, _ in job.outputs if s.name not in alone and any(_wide(d, choices) for d in s.type.shape)]
    groups = [frozenset({name}) for name in (*alone, *wide)]
    rest = frozenset(results) - frozenset(alone) - frozenset(wide)
    groups += [rest] if rest else []
    return [
        _kernel(job, planned, FINISH, spaces, choices, group, "" if len(groups) == 1 else f"_{n}")
        for n, group in enumerate(groups)
    ]


def _wide(size: Dim, choices: Choices) -> bool:
    return isinstance(size, int) and size > choices.back_columns


def _kernel(
    job: Job,
    planned: Plan,
    stage: int,
    spaces: Workspaces,
    choices: Choices,
    only: frozenset[str] | None = None,
    suffix: str = "",
) -> Kernel:
    name = f"{job.name}_{STAGE_NAMES[stage]}{suffix}"
    split = _split(job, planned, stage, choices, only)
    if split:
        before = dict(spaces.values), dict(spaces.kept), set(spaces.names)
        try:
            kernel = KernelWriter(job, planned, stage, spaces, split, only).write(name)
        except UnsupportedError:  # a form that needs all columns: the kernel without the division
            spaces.values, spaces.kept, spaces.names = before
        else:
            kernel.column_block = _columns(job, stage, choices)
            return kernel
    return KernelWriter(job, planned, stage, spaces, only=only).write(name)


def _split(
    job: Job, planned: Plan, stage: int, choices: Choices, only: frozenset[str] | None = None
) -> frozenset[Place]:
    most = _columns(job, stage, choices)
    if not most:
        return frozenset()
    if stage == STEP:
        roots = [*(v for _, v in job.carry), *planned.stepped]
        return columns(job, roots, planned.prepared, most)
    stored = [*planned.prepared, *planned.stepped]
    roots = [v for s, v in (*job.outputs, *job.sums) if only is None or s.name in only]
    return result_columns(job, roots[0], stored, most) if len(roots) == 1 else frozenset()


def _columns(job: Job, stage: int, choices: Choices) -> int:
    """The most columns that a program takes."""
    if stage == STEP:
        return choices.step_columns
    if stage == PREPARE:
        return 0
    return choices.back_columns if job.reverse else choices.finish_columns
