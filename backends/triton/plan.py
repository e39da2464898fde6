"""Which kernel computes what: the three stages of a segment, and what passes between them through memory.

PREPARE runs for all lanes and segments at once and leaves what the loop needs and cannot cheaply compute again. STEP
runs for all lanes, goes through the segments and leaves the carried values of each and what FINISH needs. FINISH runs
for all lanes and segments at once; it computes again what is not left, whatever it costs, for memory is what is scarce.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.backends.triton.job import Job, Key
from nldsl.ir.ops import POINTWISE
from nldsl.ir.stages import FINISH, PREPARE, STEP

# what a loop over segments may compute again in each round instead of loading it
CHEAP = POINTWISE | frozenset(
    "given param const iota clock collect spread reshape broadcast stop_grad cotangent_of boundary state anchor".split()
)


@dataclass(frozen=True)
class Plan:
    """``prepared`` are the values that PREPARE leaves, ``stepped`` those that STEP leaves, ``kept`` the carried values
    that it leaves as they are at the beginning of each segment: all in memory."""

    prepared: tuple[int, ...]
    stepped: tuple[int, ...]
    finish: bool
    kept: tuple[Key, ...] = ()


def plan(job: Job) -> Plan:
    """Divide a job into kernels."""
    body, stage = job.body, job.stages
    in_step = {v for v in range(len(body)) if stage[v] == STEP}
    to_step = {a for v in in_step for a in body[v].args if stage[a] == PREPARE}
    to_step |= {v for _, v in job.carry if stage[v] == PREPARE}
    prepared: list[int] = []
    for value in sorted(to_step):
        _expensive(job, value, prepared)
    results = [v for _, v in (*job.outputs, *job.sums)]
    late = [v for v in range(len(body)) if stage[v] == FINISH]
    to_finish = {a for v in late for a in body[v].args if stage[a] == STEP}
    to_finish |= {v for v in results if stage[v] == STEP and v not in job.carried}
    leaves = {*job.carried}
    crossing = sorted(v for v in to_finish if v not in leaves)
    stepped: list[int] = []
    for value in crossing:
        if body[value].op in CHEAP and all(
            stage[a] != STEP or a in leaves or a in stepped or a in job.boundaries for a in body[value].args
        ):
            continue
        stepped.append(value)
    kept = dict.fromkeys([*_read_again(job, [*late, *results], stepped), *job.keep])
    return Plan(tuple(dict.fromkeys(prepared)), tuple(stepped), bool(late or results), tuple(kept))


def _read_again(job: Job, values: list[int], stepped: list[int]) -> list[Key]:
    """The carried values that FINISH reads: directly, or to compute a value of STEP again."""
    found: dict[Key, None] = {}
    stack, seen = list(values), set(stepped)
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        if value in job.carried:
            found[job.carried[value]] = None
        elif job.stages[value] != PREPARE:
            stack.extend(job.body[value].args)
    return sorted(found)


def _expensive(job: Job, value: int, found: list[int]) -> None:
    """Add what has to be kept so that ``value`` can be had: itself, unless all of it is cheap."""
    if not _all_cheap(job, value, found):
        found.append(value)


def _all_cheap(job: Job, value: int, found: list[int]) -> bool:
    stack, seen = [value], set()
    while stack:
        at = stack.pop()
        if at in seen or at in found:
            continue
        seen.add(at)
        if job.body[at].op not in CHEAP:
            return False
        stack.extend(job.body[at].args)
    return True
