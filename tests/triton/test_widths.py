"""Heads whose widths are no powers of two, and differ between keys and values: values and gradients, in all types."""

from __future__ import annotations

import pytest
import torch

from tests.triton.compare import low_errors, program

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
LINEAR = ("memories/linear_attention.nl", "LinearAttention")
DIAGONAL = ("memories/gated_linear.nl", "GatedLinearAttention")
DELTA = ("memories/delta.nl", "GatedDelta")
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 6e-3, torch.float16: 1e-3}
WIDTHS = [(20, 20), (48, 48), (40, 24), (96, 96)]
CASES = [
    pytest.param(memory, widths, half, marks=[] if (memory, widths) == (LINEAR, (40, 24)) else [pytest.mark.slow])
    for memory in (LINEAR, DIAGONAL, DELTA)
    for widths in WIDTHS[: 4 if memory != DIAGONAL else 3]
    for half in LIMITS
]


@pytest.mark.parametrize(("memory", "widths", "dtype"), CASES, ids=str)
def test_heads_of_any_width(memory: tuple[str, str], widths: tuple[int, int], dtype: torch.dtype) -> None:
    source = program(*memory, dk=widths[0], dv=widths[1])
    errors = low_errors(source, 24, dtype)
    assert max(errors.values()) < LIMITS[dtype], errors
