"""The compiler's choices never change a result: random recurrences under every chunk size, split of calls and pass."""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nldsl.ir.program import Program
from nldsl.ir.schedule import Scan
from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.schedule import schedule
from tests.numeric.chunk_run import ChunkRun, Data, Run, random_data, run_ticks
from tests.numeric.emitted_run import assert_close, run
from tests.numeric.random_mixed import Mixed

TICKS = 17
BOUND = 1e-9
SETTINGS = settings(
    max_examples=16, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


@lru_cache(maxsize=64)
def case(seed: int) -> tuple[Program, Data, Run]:
    """A program, its inputs, and what the loop over ticks makes of them."""
    program = Mixed(seed).program()
    data = random_data(program, TICKS, scale=0.4, seed=seed)
    return program, data, run_ticks(program, data, TICKS)


def splits() -> st.SearchStrategy[list[int]]:
    """The ticks of a few calls, one after the other."""
    cuts = st.sets(st.integers(1, TICKS - 1), max_size=3)
    return cuts.map(lambda found: [b - a for a, b in zip([0, *sorted(found)], [*sorted(found), TICKS], strict=True)])


@SETTINGS
@given(seed=st.integers(0, 10_000), size=st.integers(1, TICKS + 3), calls=splits())
@example(seed=73, size=2, calls=[TICKS])
def test_every_size_and_split(seed: int, size: int, calls: list[int]) -> None:
    program, data, ticks = case(seed)
    planned, _ = chunk(schedule(program), ChunkOptions(size=size))
    if any(isinstance(p, Scan) for p in planned.all_phases()):
        assert_close((ticks.outputs, ticks.states), run(program, data, ChunkOptions(size=size), tuple(calls)), BOUND)
        return
    chunks = ChunkRun(planned, data)
    parts = [chunks.call(n) for n in calls]
    outputs = {k: torch.cat([p[k] for p in parts]) for k in ticks.outputs}
    assert_close((ticks.outputs, ticks.states), (outputs, chunks.states), BOUND)


@SETTINGS
@given(seed=st.integers(0, 10_000))
def test_every_pass_alone_and_together(seed: int) -> None:
    program, data, ticks = case(seed)
    names = ("join", "pack", "merge", "hoist")
    chosen = random.Random(seed).sample(list(product((True, False), repeat=4)), 4)
    for switches in ((False,) * 4, *chosen):
        options = ChunkOptions(size=5, **dict(zip(names, switches, strict=True)))
        assert_close((ticks.outputs, ticks.states), run(program, data, options, (TICKS,)), BOUND)
    assert_close((ticks.outputs, ticks.states), run(program, data, ChunkOptions(enabled=False), (TICKS,)), BOUND)
    assert_close((ticks.outputs, ticks.states), run(program, data, ChunkOptions(), (TICKS,)), BOUND)


@pytest.mark.slow
def test_many() -> None:
    parallel = 0
    for seed in range(20_000, 20_300):
        program, data, ticks = case(seed)
        planned, notes = chunk(schedule(program), ChunkOptions(size=4))
        parallel += not any(n.why for n in notes)
        if not any(isinstance(p, Scan) for p in planned.all_phases()):
            chunks = ChunkRun(planned, data)
            assert_close((ticks.outputs, ticks.states), (chunks.call(TICKS), chunks.states), BOUND)
    assert parallel > 250
