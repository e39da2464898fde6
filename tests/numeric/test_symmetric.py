"""Products of which half is computed: what is symmetric is found, what is not is left alone, values stay the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import compile as compile_program
from nldsl.backends.mlir import steps
from nldsl.backends.mlir.lane import Lane
from nldsl.backends.mlir.symmetric import Pairs, mirror, symmetries
from nldsl.backends.mlir.views import View

TICKS = 5
HEAD = """
memory Gram(d: dim, n: dim) {
  state S: [d, n] = 0
  state R: [d, n] = 0
  step(x: [d], z: [n], r: [n]) -> [d] {
    S <- 0.9 * S + outer(x, z)
    R <- 0.8 * R + outer(x, r)
"""
# The result of each, and whether a product of it is symmetric.
RESULTS = {
    "of one matrix": ("A = S @ S'", "A", 1),
    "of the other side": ("A = S' @ S\n    B = S @ A @ S'", "B", 1),  # (S A) S' is, but by another product
    "of a symmetric one": ("A = S @ S'", "0.3 * A + 0.1 * A @ A", 2),
    "of a difference": ("A = S @ S' - R @ R'", "A @ A", 3),
    "with a number": ("A = x[0] * S @ S' / max(norm(S), 1)", "A", 1),
    "of two matrices": ("A = S @ R'", "A", 0),
    "not symmetric itself": ("A = S @ R'", "A @ A", 0),
    "with rows scaled": ("A = column(x) * (S @ S')", "A @ A", 1),
    "with both scaled": ("A = column(x) * (S @ S') * row(x)", "A", 1),
}


def sizes_of(found: list[dict[int, Pairs]]) -> int:
    """The most products that are symmetric in a function."""
    return max(len(pairs) for pairs in found)


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize(("d", "n"), [(32, 24), pytest.param(40, 16, marks=pytest.mark.slow)])
def test_values(name: str, d: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ticks and whole calls with gradients, in float64, against the torch backend."""
    monkeypatch.setenv("NLDSL_CACHE", "off")
    found: list[dict[int, Pairs]] = []

    def seen(lane: Lane) -> dict[int, Pairs]:
        pairs = symmetries(lane)
        found.append({v: p for v, p in pairs.items() if v in lane.products})
        return pairs

    copied: list[int] = []

    def counted(lane: Lane, view: View, first: int, second: int, block: int) -> None:
        copied.append(block)
        mirror(lane, view, first, second, block)

    monkeypatch.setattr(steps, "symmetries", seen)
    monkeypatch.setattr(steps, "mirror", counted)
    lines, result, number = RESULTS[name]
    text = f"{HEAD}    {lines}\n    return ({result}) @ x\n  }}\n}}\n"
    sizes: dict[str, Any] = {"d": d, "n": n}
    native, written = (compile_program("gram.nl", "Gram", text=text, backend=b, **sizes) for b in ("mlir", "torch"))
    gen = torch.Generator().manual_seed(0)
    shapes = {"x": d, "z": n, "r": n}
    inputs = {k: torch.randn(2, TICKS, w, generator=gen, dtype=torch.float64) for k, w in shapes.items()}
    native, written = native.double(), written.double()
    states = [m.init_state(2) for m in (native, written)]
    with torch.no_grad():
        for t in range(TICKS):
            tick = {k: x[:, t] for k, x in inputs.items()}
            (got, states[0]), (want, states[1]) = (
                m.step(**tick, state=s) for m, s in zip((native, written), states, strict=True)
            )
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    assert sizes_of(found) >= number
    assert number or not sizes_of(found)
    assert bool(copied) == (number > 0 and "scaled" not in name)  # rows are scaled in registers, before it is stored

    def both(module: Any) -> list[Tensor]:
        leaves = {k: x.clone().requires_grad_() for k, x in inputs.items()}
        y = module(**leaves)
        (y * torch.linspace(-1, 1, d, dtype=torch.float64)).sum().backward()
        return [y.detach(), *(x.grad for x in leaves.values() if x.grad is not None)]

    for got, want in zip(both(native), both(written), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
