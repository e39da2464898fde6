"""Recurrences that no paper has named get kernels like all others: values and gradients in three precisions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nldsl.api import load_program
from tests.triton.compare import inputs_of, kernels_of, largest_error, low_errors, run, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
FILE = Path(__file__).parent / "novel.nl"


def test_in_double_precision() -> None:
    source = load_program(FILE, "ValueSide", dk=5, dv=3)
    inputs = inputs_of(source, 2, 19, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    assert largest_error(expected, run(kernels_of(source).double(), inputs, (1, 18))) < 1e-10


@pytest.mark.slow
def test_in_single_precision() -> None:
    source = load_program(FILE, "ValueSide", dk=16, dv=16)
    inputs = inputs_of(source, 1, 32, torch.float32)
    expected = run(ticks_of(source).double(), {n: x.double() for n, x in inputs.items()})
    assert largest_error(expected, run(kernels_of(source), inputs)) < 1e-5


@pytest.mark.slow
def test_in_half_precision() -> None:
    source = load_program(FILE, "ValueSide", dk=16, dv=16)
    errors = low_errors(source, 32)
    assert max(errors.values()) < 6e-3, errors


@pytest.mark.parametrize("entry", ["Cascade", "TwoMoments"])
def test_stacked_states_get_kernels(entry: str) -> None:
    """Their values are not compared here: in the interpreter they take minutes."""
    assert "_bwd_step" in kernels_of(load_program(FILE, entry, dk=4, dv=3)).emitted.source


def test_names_that_the_functions_around_kernels_have_too() -> None:
    text = """
    memory Names(d: dim) {
      state rows: [d, d] = 0
      step(bounds: [d], k: [d], starts: [d], low: []) -> [d] {
        rows <- low * rows + outer(starts, k)
        return rows @ bounds
      }
    }
    """
    source = load_program("names.nl", "Names", text=text, d=3)
    inputs = inputs_of(source, 1, 5, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    assert largest_error(expected, run(kernels_of(source).double(), inputs)) < 1e-10


def test_systems_of_each_tick() -> None:
    """General systems, with pivots that are not on the diagonal, and those of their derivatives."""
    source = load_program(FILE, "Implicit", d=3)
    inputs = inputs_of(source, 2, 11, torch.float64)
    expected = run(ticks_of(source).double(), inputs)
    module = kernels_of(source)
    assert module.emitted.source.count("= solution(") >= 4
    assert largest_error(expected, run(module.double(), inputs, (1, 10))) < 1e-10
