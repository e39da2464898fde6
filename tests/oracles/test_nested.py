# mypy: disable-error-code="no-any-return, misc"
"""Adaptive memories of Nested Learning, and the identities of its delta gradient descent."""

from __future__ import annotations

import pytest
import torch

from tests.oracles.harness import Case, Tensors, agree, both_backends
from tests.oracles.test_deep import cubic_printed, each_sequence, residual, slopes


def adaptive_linear(x: Tensors, p: Tensors) -> torch.Tensor:
    """The parallel form: a layer and causal linear attention beside each other."""
    return x["q"] @ p["M_0"].T + torch.tril(x["q"] @ x["k"].transpose(1, 2)) @ x["v"]


def fully_adaptive(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    boxes, found = {n: p[f"{n}.W_0"] for n in ("mk", "mv", "mq", "mrate", "mkeep", "m")}, []
    for token in x["x"]:
        read = {n: w @ token for n, w in boxes.items()}
        k, q = (read[n] * torch.rsqrt((read[n] ** 2).sum() + 1e-6) for n in ("mk", "mq"))
        rate = 0.2 * torch.sigmoid(read["mrate"].mean() - 1)
        keep = torch.sigmoid(read["mkeep"].mean() + 4)
        boxes = {n: keep * w - rate * torch.outer(w @ k - read["mv"], k) for n, w in boxes.items()}
        found.append(boxes["m"] @ q)
    return found


def moneta_printed(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    def normalized(a: torch.Tensor) -> torch.Tensor:
        return a / (((a**2 + 1e-12) ** 2).sum() ** 0.25) ** 2

    a, found = (p["m.a1_0"], p["m.a2_0"]), []
    for q, k, v, rate, keep in zip(x["q"], x["k"], x["v"], x["rate"], x["keep"], strict=True):
        w = tuple(normalized(m) for m in a)
        error = cubic_printed(residual(w, k) - v)
        pulled = slopes(lambda w, k=k, c=error: c @ residual(w, k), w)
        a = tuple(keep * m - rate * s for m, s in zip(a, pulled, strict=True))
        found.append(residual(tuple(normalized(m) for m in a), q))
    return found


# Delta gradient descent on the inner product is the gated delta rule; on half the squared error it erases twice.
IDENTITY = """
from "optimizers/delta" import DeltaDescent
from "objectives" import {loss}
memory Test() {{
  state W: [3, 4] = 0
  optimizer opt: DeltaDescent(exact = false)
  step(q: [4], k: [4], v: [3], rate: []) -> [3] every token {{
    W <- W + opt.learn(grad({loss}(W @ k, v), W), weight = W, x = k, rate = rate)
    return W @ q
  }}
}}
"""


def delta(erased: float) -> object:
    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        w, found = torch.zeros(3, 4, dtype=torch.float64), []
        for q, k, v, rate in zip(x["q"], x["k"], x["v"], x["rate"], strict=True):
            w = w - rate / (1 + rate) * (erased * torch.outer(w @ k, k) - torch.outer(v, k))
            found.append(w @ q)
        return found

    return each_sequence(run)


MONETA = """
from "memories/miras" import Moneta
from "objectives" import lp_printed
block Test(q: [3], k: [3], v: [3], rate: [], keep: []) {
  memory m: Moneta(3, hidden = 4, bias = lp_printed, chunk = 1)
  return m.step(q, k, v, rate, keep)
}
"""

CASES = [
    Case("memories/adaptive", "AdaptiveLinear", {"dk": 4, "dv": 3}, adaptive_linear, "parallel form"),
    Case("memories/adaptive", "FullyAdaptive", {"d": 4}, each_sequence(fully_adaptive), "loop"),
    Case(
        "moneta.nl",
        "Test",
        {},
        each_sequence(moneta_printed),
        "loop with torch.func.grad",
        label="(Moneta, printed gradient)",
        text=MONETA,
        draws={"rate": lambda random, shape: random.uniform(0.01, 0.05, shape)},
    ),
    Case(
        "identity.nl",
        "Test",
        {},
        delta(1.0),  # type: ignore[arg-type]
        "gated delta rule",
        label="(DeltaDescent on the inner product)",
        text=IDENTITY.format(loss="alignment"),
    ),
    Case(
        "identity.nl",
        "Test",
        {},
        delta(2.0),  # type: ignore[arg-type]
        "delta rule that erases twice",
        label="(DeltaDescent on half the square)",
        text=IDENTITY.format(loss="l2"),
    ),
]


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_agrees(case: Case, backend: str) -> None:
    agree(case, backend)
