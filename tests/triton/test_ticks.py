"""Loops over ticks as kernels against the program run tick by tick: values, final states, gradients of everything."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.api import load_program
from nldsl.backends.registry import backend_named
from nldsl.backends.triton.provider import BackendRemark
from nldsl.ir.program import Program
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.plan import plan
from nldsl.runtime.build import build_module
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module
from tests.numeric.chunk_programs import PROGRAMS
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.test_mlir_loops import check_module
from tests.numeric.window_programs import WINDOWS
from tests.triton.compare import inputs_of, largest_error, program, run, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
FILE = Path(__file__).parent / "ticks.nl"
NOVEL = Path(__file__).parents[1] / "numeric" / "novel_loops.nl"
EVERY = {**PROGRAMS, **WINDOWS, **MATRICES}


def ticked(source: Program, every: bool = False) -> Module:
    """The module whose loops over ticks are kernels; ``every``: all loops are loops over ticks."""
    backend = backend_named("triton", required=True)
    planned = plan(source, options=ChunkOptions(enabled=not every), ticks=True)
    return Module(source, backend.load(backend.emit(planned), planned), initialize(source, 0))


def check(source: Program, dtype: torch.dtype, calls: tuple[int, ...], bound: float) -> None:
    inputs = inputs_of(source, 2, sum(calls), dtype)
    expected = run(ticks_of(source).double(), {n: x.double() for n, x in inputs.items()})
    module = ticked(source)
    assert "for t in range(n * EVERY" in module.emitted.source
    assert largest_error(expected, run(module.to(dtype), inputs, calls)) < bound


@pytest.mark.parametrize(
    ("entry", "dims"),
    [
        ("Lstm", {"d": 5}),
        ("Squashed", {"d": 4}),
        ("Deep", {"d": 3, "hidden": 6}),
        ("Clocks", {"d": 3}),
        ("Anchored", {"d": 3}),
    ],
)
def test_loops_in_double_precision(entry: str, dims: dict[str, Any]) -> None:
    check(load_program(FILE, entry, **dims), torch.float64, (1, 12, 5), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "dims"),
    [
        ("Lstm", {"d": 24}),
        ("Squashed", {"d": 24}),
        ("Deep", {"d": 8, "hidden": 20}),
        ("Clocks", {"d": 8}),
        ("Anchored", {"d": 16}),
    ],
)
def test_loops_in_single_precision(entry: str, dims: dict[str, Any]) -> None:
    check(load_program(FILE, entry, **dims), torch.float32, (40,), 1e-5)


@pytest.mark.parametrize(
    "entry",
    ["Clipped", "Squared", *(pytest.param(n, marks=pytest.mark.slow) for n in ("Normalized", "Gated", "Second"))],
)
def test_memories_that_have_no_name(entry: str) -> None:
    check(load_program(NOVEL, entry), torch.float64, (9,), 1e-10)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(EVERY))
def test_every_loop_as_a_loop_over_ticks(name: str) -> None:
    """Linear ones too: anchors, resets, slow clocks, windows, mapped axes."""
    source = EVERY[name]()
    backend = backend_named("triton", required=True)
    planned = plan(source, options=ChunkOptions(enabled=False), ticks=True)
    check_module(source, backend.load(backend.emit(planned), planned), (3, 4))


def test_columns_are_divided_where_nothing_mixes_them() -> None:
    source = load_program(NOVEL, "Tanh", d=40)
    module = ticked(source)
    assert "column = tl.program_id(1) * BV" in module.emitted.source
    inputs = inputs_of(source, 1, 3, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    assert largest_error(expected, run(module.double(), inputs)) < 1e-10


def test_a_slow_state_is_computed_in_a_branch() -> None:
    text = ticked(load_program(FILE, "Clocks", d=3)).emitted.source
    assert "if (tick + t + 1) % 4 == 0:" in text
    assert "if (tick + t + 1) % 3 == 0:" in text


def test_what_is_too_large_is_said() -> None:
    source = load_program(FILE, "Deep", d=256, hidden=512)
    with pytest.warns(BackendRemark, match="a program would hold .* numbers at once"):
        build_module(source, "triton")


def test_loops_over_segments_without_kernels_stay_loops_over_segments() -> None:
    source = program("memories/attention.nl", "SoftmaxAttention", dk=4, dv=3, reach=256)
    with pytest.warns(BackendRemark, match="has no kernels"):
        module = build_module(source, "triton")
    assert "for t in range(n * EVERY" not in module.emitted.source


def test_packed_sequences_go_in_as_they_are() -> None:
    """Values, states and gradients of a row of three sequences, with a clock, beside each sequence alone."""
    source = load_program(FILE, "Clocks", d=3)
    module = ticked(source).double()
    assert "PACKED = True" in module.emitted.source
    cuts = [0, 5, 6, 15]
    inputs = {n: x.requires_grad_() for n, x in inputs_of(source, 1, cuts[-1], torch.float64).items()}
    alone = ticks_of(source).double()
    parts = [alone(**{n: x[:, a:b] for n, x in inputs.items()}) for a, b in pairwise(cuts)]
    expected, found = torch.cat(parts, 1), module(**inputs, cu_seqlens=cuts)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    want, got = (torch.autograd.grad((y * weight).sum(), list(inputs.values())) for y in (expected, found))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
