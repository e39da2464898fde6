"""Systems of equations in native loops and ticks, beside PyTorch's: sizes around a vector, rows that change places."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

import nldsl
from nldsl.backends.mlir.solve import SEGMENTS, _segments

TEXT = """
memory Solved(d: dim = 4, m: dim = 2) {
  state s: [d] = 0
  step(A: [d, d], b: [d], B: [d, m]) -> [d] every token {
    M = A + 0.1 * outer(s, s)
    s <- tanh(solve(M, b) + sum(solve(M, B), axis = 1))
    return s
  }
}
"""


@pytest.mark.parametrize(
    "n", [3, 35, pytest.param(64, marks=pytest.mark.slow), pytest.param(81, marks=pytest.mark.slow)]
)
def test_as_pytorch(n: int) -> None:
    modules = [nldsl.compile("solved", text=TEXT, backend=b, d=n, m=3).double() for b in ("torch", "mlir")]
    gen = torch.Generator().manual_seed(n)
    shapes = ((2, 3, n, n), (2, 3, n), (2, 3, n, 3))
    given = [torch.randn(s, generator=gen, dtype=torch.float64).requires_grad_() for s in shapes]
    with torch.no_grad():
        given[0][..., 0, 0] = 0.0  # the first row cannot stay where it is
    results = []
    for module in modules:
        y = module(*given)
        with torch.no_grad():
            one, _ = module.step(*(x[:, 0] for x in given), module.init_state(2))
        results.append([y, one, *torch.autograd.grad(y.square().sum(), given)])
    for want, got in zip(*results, strict=True):
        assert (got - want).abs().max() <= 1e-9 * want.abs().max()


@pytest.mark.parametrize("n", [1, 15, 16, 17, 64, 65, 200])
def test_columns_are_cut_at_vectors(n: int) -> None:
    cuts = _segments(n, 16)
    assert cuts[0] == 0 and cuts[-1] == n and len(cuts) <= SEGMENTS + 1
    assert all(c % 16 == 0 for c in cuts[:-1]) and cuts == sorted(set(cuts))
