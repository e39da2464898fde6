"""Numbers of a program stay double precision where its tensors are: Triton takes a bare one for single precision."""

from __future__ import annotations

import pytest
import torch

from nldsl.api import load_program
from nldsl.runtime.build import build_module
from tests.triton.compare import inputs_of, largest_error, run, ticks_of

TEXT = """
memory Numbers(d: dim) {{
  state s: [d] = learned normal(0.5)
  step(x: [d]) -> [d] every token {{
    z = tanh(s * x) + 0.3 * s
    s <- 0.9 * x + 0.3 * sin(s) + ({term})
    return s
  }}
}}
"""
TERMS = [
    "sign(z) * 0.1",
    "max(0.1, sign(z) * 0.3)",
    "(abs(z) + 0.1) ^ 0.7",
    "0.7 ^ z",
    "(0.0 - 0.7) ^ floor(3 * z)",
    "z % 0.3",
    "where(z > 0.1, 0.7, z)",
]


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_are_as_exact_as_tensors(term: str) -> None:
    source = load_program("numbers", text=TEXT.format(term=term), d=3)
    inputs = inputs_of(source, 2, 5, torch.float64)
    module = build_module(source, "triton", required=True).double()
    assert largest_error(run(ticks_of(source).double(), inputs), run(module, inputs)) < 1e-13
