# mypy: disable-error-code="no-any-return, misc"
"""The duals and Bregman retentions of MIRAS, ATLAS++, LaCT without momentum: loops over the tokens."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tests.oracles.harness import Case, Tensors, agree, between, both_backends
from tests.oracles.test_deep import Weights, each_sequence, half, newton_schulz, slopes, whole

LOOP = "loop with torch.func.grad"


def dual(weight: Callable[[torch.Tensor], torch.Tensor], chunk: int) -> Callable[[Tensors, Tensors], torch.Tensor]:
    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        a, found = p["m.A_0"], []
        at = weight(a)
        for t, (q, k, v) in enumerate(zip(x["q"], x["k"], x["v"], strict=True)):
            at = weight(a) if t % chunk == 0 else at
            (g,) = slopes(lambda w, k=k, v=v: half(w[0] @ k, v), (at,))
            a = x["keep"][t] * a - x["rate"][t] * g
            found.append(weight(a) @ q)
        return found

    return each_sequence(run)


def cube_norm(a: torch.Tensor) -> torch.Tensor:
    """q = 3/2, so p = 3: A / ||A||_3."""
    return a / (a**2 + 1e-12).pow(1.5).sum().pow(1 / 3)


def dual_text(weight: str, chunk: int) -> str:
    return f"""
from "memories/miras" import DualMiras
from "retentions" import {weight}
memory Test() {{
  memory m: DualMiras(4, 3, weight = {weight}, chunk = {chunk})
  step(q: [4], k: [4], v: [3], rate: [], keep: []) -> [3] = m.step(q, k, v, rate, keep)
}}
"""


def entropy(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    """Exponentiated gradients."""
    w, found = p["m.net.W_0"], []
    for q, k, v, rate, keep in zip(x["q"], x["k"], x["v"], x["rate"], x["keep"], strict=True):
        w = w**keep * torch.exp(-rate * torch.outer(w @ k - v, k))
        found.append(w @ q)
    return found


ENTROPY = """
from "memories/miras" import Miras
from "retentions" import bregman
retention entropy(W: [...], step: like W, keep: [...]) -> like W = bregman(W, step, log, exp, keep)
memory First() {
  state W: [3, 4] = learned uniform(0.3, 0.7)
  read(x: [4]) -> [3] = W @ x
}
memory Test() {
  memory m: Miras(4, 3, structure = First(), retain = entropy)
  step(q: [4], k: [4], v: [3], rate: [], keep: []) -> [3] = m.step(q, k, v, rate, keep)
}
"""


def gated(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return x + w[0] @ (F.silu(w[1] @ x) * (w[2] @ x))


def atlas_plus(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    w: Weights = tuple(p[f"m.net.w{n}_0"] for n in (1, 2, 3))
    anchor, found = w, []
    s: Weights = tuple(torch.zeros_like(a) for a in w)
    for t, q in enumerate(x["q"]):
        anchor = w if t % 2 == 0 else anchor

        def window(w: Weights, t: int = t) -> torch.Tensor:
            seen = range(max(0, t - 2), t + 1)
            return torch.stack([x["gamma"][i] * whole(gated(w, x["k"][i]), x["v"][i]) for i in seen]).sum()

        s = tuple(x["beta"][t] * a + b for a, b in zip(s, slopes(window, anchor), strict=True))
        w = tuple(x["keep"][t] * a - x["rate"][t] * newton_schulz(b) for a, b in zip(w, s, strict=True))
        found.append(gated(w, q))
    return found


ATLAS_PLUS = """
from "memories/atlas" import Atlas
from "structures" import GatedTwoLayer
memory Test() {
  memory m: Atlas(3, reach = 3, structure = GatedTwoLayer(3, 3, 4, residual = true), chunk = 2)
  step(q: [3], k: [3], v: [3], gamma: [], rate: [], beta: [], keep: []) -> [3] {
    return m.step(q, k, v, gamma, rate, beta, keep)
  }
}
"""

CASES = [
    Case(
        "norm.nl", "Test", {}, dual(cube_norm, 1), LOOP, label="(DualMiras, q = 1.5)",
        text=dual_text("from_dual_norm", 1),
    ),
    Case(
        "chunks.nl", "Test", {}, dual(cube_norm, 3), LOOP, label="(DualMiras, q = 1.5, chunks)",
        text=dual_text("from_dual_norm", 3),
    ),
    Case(
        "elastic.nl", "Test", {}, dual(lambda a: F.softshrink(a, 0.05), 1), LOOP, label="(DualMiras, elastic net)",
        text=dual_text("from_dual_elastic", 1),
    ),
    Case(
        "entropy.nl", "Test", {}, dual(lambda a: torch.softmax(a, -1), 1), LOOP, label="(DualMiras, entropy)",
        text=dual_text("from_logarithm", 1),
    ),
    Case(
        "bregman.nl", "Test", {}, each_sequence(entropy), "loop", label="(Miras, retain = bregman)", text=ENTROPY,
        draws={"rate": between(0.05, 0.2)},
    ),
    Case(
        "plus.nl", "Test", {}, each_sequence(atlas_plus), LOOP, label="(Atlas, ATLAS++)", text=ATLAS_PLUS, ticks=5,
        draws={"gamma": between(0.05, 0.3)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_agrees(case: Case, backend: str) -> None:
    agree(case, backend)
