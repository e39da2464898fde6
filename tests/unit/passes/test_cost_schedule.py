"""The work of the chosen form: by hand for a sum of outer products, against PyTorch's count of multiplications else."""

from __future__ import annotations

from fractions import Fraction
from importlib.resources import files
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import nldsl
from nldsl.api import load_program
from nldsl.bench.measure import random_inputs
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.cost import cost
from nldsl.passes.cost_schedule import work
from nldsl.passes.plan import plan

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("linear_attention.nl", "LinearAttention", {"dk": 64, "dv": 32}),
    ("delta.nl", "DeltaNet", {"dk": 64, "dv": 64}),
    ("delta.nl", "GatedDelta", {"dk": 64, "dv": 64}),
    ("ttt.nl", "TTTLinear", {"d": 64}),
]


@pytest.mark.parametrize("file, entry, dims", CASES)
def test_products_are_those_that_run(file: str, entry: str, dims: dict[str, Any]) -> None:
    """PyTorch counts products of matrices alone: they are most of the work, and never more than all of it."""
    path = str(files("nldsl.stdlib") / "memories" / file)
    ticks = 512
    module = nldsl.compile(path, entry, **dims)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(**random_inputs(module, 1, ticks, 0))
    found = work(plan(load_program(path, entry, **dims))).operations
    assert isinstance(found, int)
    assert 0.5 * found * ticks < counter.get_total_flops() <= 1.02 * found * ticks


def test_a_sum_of_outer_products_by_hand() -> None:
    """Per tick of a segment of 64: scores and what they weigh, 4 * 64 * 64; the state read and written, 4 * 64 * 64."""
    program = load_program(str(files("nldsl.stdlib") / "memories/linear_attention.nl"), "LinearAttention", dk=64, dv=64)
    found = work(plan(program))
    products = 8 * 64 * 64
    assert isinstance(found.operations, int)
    assert products <= found.operations < 1.02 * products
    assert found.rounds == Fraction(1, 64)


def test_without_chunks_it_is_the_sequential_cost() -> None:
    program = load_program(str(files("nldsl.stdlib") / "memories/delta.nl"), "GatedDelta", dk=8, dv=8)
    found = work(plan(program, frozenset({"chunk"})))
    ((_, operations),) = cost(program).operations
    assert found.operations == operations
    assert found.rounds == 1


def test_longer_segments_take_fewer_rounds_and_more_work() -> None:
    program = load_program(str(files("nldsl.stdlib") / "memories/delta.nl"), "GatedDelta", dk=8, dv=8)
    short, long = (work(plan(program, options=ChunkOptions(size=n))) for n in (8, 64))
    assert isinstance(short.operations, int)
    assert isinstance(long.operations, int)
    assert short.rounds == 8 * long.rounds
    assert short.operations < long.operations
    assert short.steps > long.steps
