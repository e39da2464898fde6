"""Sums with a matrix product as one call: which, with which signs, and never where autocast may come."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nldsl.backends.registry import backend_named
from nldsl.driver import Options, front, middle
from nldsl.passes.schedule import schedule

TEXT = """
memory Sums(n: dim = 4) {{
  state unused: [] = 0
  step(a: [n, n], b: [n, n], x: [n, n]) -> [n, n] = {formula}
}}
"""
CASES = {
    "x + a @ b": "torch.baddbmm(x, a, b)",
    "a @ b + x": "torch.baddbmm(x, a, b)",
    "x - a @ b": "torch.baddbmm(x, a, b, alpha=-1)",
    "a @ b - x": "torch.baddbmm(x, a, b, beta=-1)",
    "3 * x - 2 * (a @ b)": "torch.baddbmm(x, a, b, beta=3.0, alpha=-2.0)",
    "0.5 * (a @ b) - 3 * x": "torch.baddbmm(x, a, b, beta=-3.0, alpha=0.5)",
}


@pytest.mark.parametrize("formula", CASES)
def test_a_product_is_added_in_one_call(formula: str) -> None:
    program = middle(front("sums.nl", Options(), TEXT.format(formula=formula)), Options())
    backend = backend_named("torch")
    planned = schedule(program)
    source = backend.emit(replace(planned, autocast=False))
    assert CASES[formula] in source
    assert "addbmm" not in backend.emit(planned)
    gen = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(3, 4, 4, generator=gen, dtype=torch.float64) for name in "abx"}
    state = {"@tick": 0, "unused": torch.zeros(3, dtype=torch.float64)}
    results = [backend.load(text, planned).step({}, inputs, state)[0]["y"] for text in (source, backend.emit(planned))]
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
