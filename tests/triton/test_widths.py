"""Heads whose widths are no powers of two, and differ between keys and values: values and gradients, in all types."""

from __future__ import annotations

import pytest
import torch

from tests.triton.compare import inputs_of, kernels_of, program, relative_rms, run, ticks_of

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
    inputs = inputs_of(source, 1, 24, dtype)
    expected = run(ticks_of(source).to(dtype).double(), {n: x.double() for n, x in inputs.items()})
    found = run(kernels_of(source).to(dtype), inputs)
    errors = {name: relative_rms(value, found.values[name]) for name, value in expected.values.items()}
    for name, gradient in expected.gradients.items():
        got = found.gradients[name]
        assert gradient is not None
        assert got is not None
        errors[f"gradient of {name}"] = relative_rms(gradient, got)
    assert max(errors.values()) < LIMITS[dtype], errors
