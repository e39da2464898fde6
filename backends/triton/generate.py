"""From a job to its kernels: one for each stage, columns divided where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from nldsl.backends.triton.columns import Relations
from nldsl.backends.triton.columns import columns as columns_of
from nldsl.backends.triton.describe import describe
from nldsl.backends.triton.divide import COLUMNS, Division, Task, moved
from nldsl.backends.triton.host import Frame, Written
from nldsl.backends.triton.job import Job
from nldsl.backends.triton.kernel import STAGE_NAMES, Kernel, KernelWriter
from nldsl.backends.triton.lower import Place
from nldsl.backends.triton.narrow import Narrow
from nldsl.backends.triton.plan import Plan, plan
from nldsl.backends.triton.pressure import ROOM, Pressure
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.walk import IN_A_LOOP, walk_of
from nldsl.backends.triton.walk_kernel import WalkWriter
from nldsl.backends.triton.workspaces import Slot, Workspaces
from nldsl.ir.stages import FINISH, PREPARE, STEP

MOST_OPERATIONS = 4096  # dividing more among kernels takes hours, and gives hundreds of them


@dataclass(frozen=True)
class Choices:
    """The most columns that a program of STEP takes, and of FINISH: forward, and on the way back; 0: as many as fit
    into registers (of STEP: all of them). ``segment``: the most ticks that it takes at once. ``room``: the entries of
    tiles that may live at once in a program."""

    step_columns: int = 32
    finish_columns: int = 0
    back_columns: int = 0
    segment: int = 64
    room: int = ROOM


def generate(
    job: Job, frame: Frame, choices: Choices | None = None, spaces: Workspaces | None = None, capability: int = 90
) -> Written:
    """The kernels of a job, so divided that they fit on GPUs of ``sm_<capability>``; they run on all. ``spaces`` may
    have values that are there before. Raises UnsupportedError, with the reason, where there are none."""
    count = sum(stage is not None for stage in job.stages)
    if count > MOST_OPERATIONS:
        raise UnsupportedError(f"a body of {count} operations")
    choices = choices or Choices()
    relations = Relations(job)
    pressure = Pressure(relations, frame.block, choices.room, capability)
    spaces = spaces or Workspaces()
    planned = plan(job)
    given, spaces.values = spaces.values, {}
    spaces.narrow |= Narrow(job).values
    results = [s for s, _ in (*job.outputs, *job.sums)]
    spaces.names |= {s.name for s in (*job.sources.values(), *job.variables.values(), *results)}
    spaces.names |= {slot.name for slot in (*spaces.begun.values(), *given.values())}
    values = list(dict.fromkeys(v for _, v in (*job.outputs, *job.sums)))
    kernels: list[Kernel] = []
    tasks, spaces.values = _prepare(relations, pressure, planned, values, given)
    kernels += _kernels(job, planned, PREPARE, spaces, tasks, pressure)
    stored = {*planned.prepared, *spaces.values}
    kernels.append(_kernel(job, planned, STEP, spaces, _step(relations, pressure, planned, stored, choices), pressure))
    if planned.finish:
        most = choices.back_columns if job.reverse else choices.finish_columns
        tasks, more = _finish(relations, pressure, most, values, {*spaces.values}, given)
        spaces.values |= more
        kernels += _kernels(job, planned, FINISH, spaces, tasks, pressure)
    describe(job, kernels, spaces)
    return Written(job, frame, kernels, spaces)


def _prepare(
    relations: Relations, pressure: Pressure, planned: Plan, results: Sequence[int], given: Mapping[int, Slot]
) -> tuple[list[Task], dict[int, Slot]]:
    """PREPARE, and what it reads of what is there before: all or nothing, by what is moved."""

    def tasks(known: Collection[int]) -> list[Task]:
        prepared = [v for v in planned.prepared if v not in known]
        stored = {*planned.prepared, *planned.stepped, *known}
        # first, for the others then read it
        wanted = [*_dear(pressure, prepared, results, stored), *prepared]
        return Division(relations, pressure, 0).tasks(wanted, (), known) if wanted else []

    return _cheaper(pressure, tasks, pressure.cone(planned.prepared, ()), (), given)


def _finish(
    relations: Relations,
    pressure: Pressure,
    columns: int,
    results: Sequence[int],
    stored: Collection[int],
    given: Mapping[int, Slot],
) -> tuple[list[Task], dict[int, Slot]]:
    """FINISH likewise."""

    def tasks(known: Collection[int]) -> list[Task]:
        return Division(relations, pressure, columns).tasks((), results, known)

    more = {value: slot for value, slot in given.items() if value not in stored}
    return _cheaper(pressure, tasks, pressure.cone(results, stored), stored, more)


def _cheaper(
    pressure: Pressure,
    tasks: Callable[[Collection[int]], list[Task]],
    cone: Collection[int],
    stored: Collection[int],
    given: Mapping[int, Slot],
) -> tuple[list[Task], dict[int, Slot]]:
    """The kernels of a stage, and what they read of what is ``given``: nothing where more would be moved with it."""
    alone = tasks({*stored})
    if not any(value in given for value in cone):
        return alone, {}
    known = {*stored, *given}
    shared = tasks(known)
    if moved(pressure, shared, known) > moved(pressure, alone, stored):
        return alone, {}
    return shared, dict(given)


def _dear(pressure: Pressure, prepared: Sequence[int], results: Sequence[int], stored: set[int]) -> list[int]:
    """What PREPARE computes in any case, FINISH needs too, and is dear to compute again."""
    made = set(pressure.cone(prepared, ()))
    return [v for v in pressure.cone(results, stored) if v in made and v not in stored and pressure.dear(v)]


def _step(relations: Relations, pressure: Pressure, planned: Plan, stored: Collection[int], choices: Choices) -> Task:
    """The loop: with the columns of the carried values divided, where that is possible, so that it fits."""
    job = relations.job
    roots = [*(v for _, v in job.carry), *planned.stepped]
    best = Task(planned.stepped)
    for columns in [choices.step_columns, *(c for c in COLUMNS if c < choices.step_columns)]:
        places = columns_of(job, roots, stored, columns) if columns else frozenset[Place]()
        if places:
            best = Task(planned.stepped, (), places, columns)
            if pressure.peak(roots, stored, places, columns) <= pressure.room:
                return best
    most = pressure.peak(roots, stored, best.places, best.columns)
    fits = most <= pressure.room
    walk = None if fits else walk_of(job, pressure, roots, stored, planned.stepped, step=True)
    if walk is not None and walk.peak < most:
        return Task(planned.stepped, (), walk.places, walk.columns, walk)
    return best


def _kernels(
    job: Job, planned: Plan, stage: int, spaces: Workspaces, tasks: Sequence[Task], pressure: Pressure
) -> list[Kernel]:
    return [
        _kernel(job, planned, stage, spaces, task, pressure, f"_{n}" if len(tasks) > 1 else "")
        for n, task in enumerate(tasks)
    ]


def _kernel(
    job: Job, planned: Plan, stage: int, spaces: Workspaces, task: Task, pressure: Pressure, suffix: str = ""
) -> Kernel:
    name = f"{job.name}_{STAGE_NAMES[stage]}{suffix}"
    roots = task.targets if stage != STEP else [*(v for _, v in job.carry), *planned.stepped]
    stored = {*spaces.values} - {*task.left}
    if task.places:
        before = dict(spaces.values), dict(spaces.kept), set(spaces.names)
        try:
            writer = WalkWriter if task.walk else KernelWriter
            kernel = _writer(writer, job, planned, stage, spaces, task, pressure).write(name)
        except UnsupportedError:  # a form that needs all columns: the kernel without the division
            spaces.values, spaces.kept, spaces.names = before
        else:
            kernel.column_block = task.columns
            kernel.tiles = task.walk.size if task.walk else 0
            kernel.parts, kernel.part_block = task.size, task.width or 1
            kernel.peak = pressure.peak(roots, stored, task.places, task.columns)
            if task.walk:
                kernel.peak = max(task.walk.peak, task.walk.between)
                kernel.peak = int(kernel.peak / IN_A_LOOP) if stage == STEP else kernel.peak
            return kernel
    whole = Task(task.left, task.results)
    kernel = _writer(KernelWriter, job, planned, stage, spaces, whole, pressure).write(name)
    kernel.peak = pressure.peak(roots, stored)
    return kernel


def _writer(
    kind: type[KernelWriter], job: Job, planned: Plan, stage: int, spaces: Workspaces, task: Task, pressure: Pressure
) -> KernelWriter:
    writer = kind(job, planned, stage, spaces, task, pressure.ticks)
    writer.b.from_registers = pressure.operands > 0
    return writer
