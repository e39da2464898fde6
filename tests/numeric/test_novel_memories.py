"""Memories that no paper has, written from the language reference alone, against loops written by hand in PyTorch.

Values to 1e-10 and gradients to 1e-8 in float64, through the torch backend with and without the parallel forms.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import nldsl

Tensors = dict[str, torch.Tensor]
Loop = Callable[[Tensors, Tensors], torch.Tensor]
CASES: dict[str, tuple[str, dict[str, int], dict[str, tuple[int, ...]], Loop]] = {}


def case(text: str, dims: dict[str, int], **inputs: tuple[int, ...]) -> Callable[[Loop], Loop]:
    def register(loop: Loop) -> Loop:
        CASES[loop.__name__] = (text, dims, inputs, loop)
        return loop

    return register


def l2(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 0.5 * ((pred - target) ** 2).sum()


def rows(batch: int, one: Callable[[int], torch.Tensor]) -> torch.Tensor:
    return torch.stack([one(b) for b in range(batch)])


@case(
    """from "objectives" import l2
## Rows and columns forget at their own rates, then half a delta step on the undecayed recall.
memory TwoSided(dk: dim, dv: dim) {
  state S: [dv, dk] = learned normal(0.3)
  step(q: [dk], k: [dk], v: [dv], left: [dv], right: [dk], rate: []) -> [dv] {
    e = S @ k - v
    S <- column(sigmoid(left)) * S * sigmoid(right) - 0.5 * rate * outer(e, k)
    return S @ q
  }
}""",
    {"dk": 3, "dv": 4},
    q=(3,), k=(3,), v=(4,), left=(4,), right=(3,), rate=(),
)  # fmt: skip
def two_sided(x: Tensors, p: Tensors) -> torch.Tensor:
    def one(b: int) -> torch.Tensor:
        S, ys = p["S_0"], []
        for t in range(x["q"].shape[1]):
            k, v = x["k"][b, t], x["v"][b, t]
            e = S @ k - v
            S = x["left"][b, t].sigmoid()[:, None] * S * x["right"][b, t].sigmoid()
            S = S - 0.5 * x["rate"][b, t] * torch.outer(e, k)
            ys.append(S @ x["q"][b, t])
        return torch.stack(ys)

    return rows(x["q"].shape[0], one)


@case(
    """from "objectives" import l2
## The rate of a delta rule is itself learned, by the gradient of the loss after the step: a gradient of a gradient.
memory Hyper(d: dim) {
  state S: [d, d] = 0
  state log_rate: [] = learned -2
  param meta: [] = 0.3
  step(k: [d], v: [d]) -> [d] {
    after = S - exp(log_rate) * grad(l2(S @ k, v), S)
    g = grad(l2(after @ k, v), log_rate)
    log_rate <- log_rate - meta * g
    S <- S - exp(log_rate) * grad(l2(S @ k, v), S)
    return S @ k + log_rate
  }
}""",
    {"d": 3},
    k=(3,), v=(3,),
)  # fmt: skip
def hyper(x: Tensors, p: Tensors) -> torch.Tensor:
    def one(b: int) -> torch.Tensor:
        S, rate, ys = torch.zeros(3, 3, dtype=torch.float64), p["log_rate_0"], []
        for t in range(x["k"].shape[1]):
            k, v = x["k"][b, t], x["v"][b, t]
            e = S @ k - v
            r = rate
            # d/dr 1/2 |(S - exp(r) e k') k - v|^2
            g = ((S - r.exp() * torch.outer(e, k)) @ k - v) @ (-r.exp() * e * (k @ k))
            rate = rate - p["meta"] * g
            S = S - rate.exp() * torch.outer(e, k)
            ys.append(S @ k + rate)
        return torch.stack(ys)

    return rows(x["k"].shape[0], one)


@case(
    """## A fast trace and a slow one that takes its mean every third token; the slow one is reset every seventh.
memory Traces(d: dim) {
  state fast: [d] = 0
  state slow: [d] = 0.5 reset every 7 token
  step(x: [d], keep: []) -> [d] {
    fast <- keep * fast + x
    now = fast
    every 3 token { slow <- 0.5 * slow + mean of now }
    return fast * slow + prev(x, 2)
  }
}""",
    {"d": 4},
    x=(4,), keep=(),
)  # fmt: skip
def traces(x: Tensors, p: Tensors) -> torch.Tensor:
    def one(b: int) -> torch.Tensor:
        fast = torch.zeros(4, dtype=torch.float64)
        slow = torch.full((4,), 0.5, dtype=torch.float64)
        past, ys = [], []
        for t in range(x["x"].shape[1]):
            fast = x["keep"][b, t] * fast + x["x"][b, t]
            past.append(fast)
            if (t + 1) % 3 == 0:
                slow = 0.5 * slow + torch.stack(past).mean(0)
                past = []
            before = x["x"][b, t - 2] if t >= 2 else torch.zeros(4, dtype=torch.float64)
            ys.append(fast * slow + before)
            if (t + 1) % 7 == 0:
                slow = torch.full((4,), 0.5, dtype=torch.float64)
        return torch.stack(ys)

    return rows(x["x"].shape[0], one)


@case(
    """from "objectives" import l2
## One memory writes the keys of another; both learn, the second with momentum and at anchors of four tokens.
memory Pair(d: dim) {
  state A: [d, d] = learned normal(0.5)
  state B: [d, d] = learned normal(0.5)
  state m: [d, d] = 0
  step(x: [d], rate: []) -> [d] {
    k = tanh(A @ x)
    y = B @ k
    g = grad(l2(B @ tanh(B @ k), x), B) at start of 4
    m <- 0.8 * m + g
    B <- 0.99 * B - rate * m
    A <- A - rate * outer(A @ x - k, x)
    return y
  }
}""",
    {"d": 3},
    x=(3,), rate=(),
)  # fmt: skip
def pair(x: Tensors, p: Tensors) -> torch.Tensor:
    def one(b: int) -> torch.Tensor:
        A, B = p["A_0"], p["B_0"]
        m, anchor, ys = torch.zeros(3, 3, dtype=torch.float64), B, []
        for t in range(x["x"].shape[1]):
            if t % 4 == 0:
                anchor = B
            u, r = x["x"][b, t], x["rate"][b, t]
            k = torch.tanh(A @ u)
            ys.append(B @ k)
            h = torch.tanh(anchor @ k)
            e = anchor @ h - u
            g = torch.outer(e, h) + torch.outer((anchor.T @ e) * (1 - h * h), k)
            m = 0.8 * m + g
            B = 0.99 * B - r * m
            A = A - r * torch.outer(A @ u - k, u)
        return torch.stack(ys)

    return rows(x["x"].shape[0], one)


@case(
    """from "objectives" import l2
## Three heads that share their key, each with a window of two tokens in its loss.
memory Head(dk: dim, dv: dim) {
  state S: [dv, dk] = 0
  write(k: [dk], v: [dv], keep: []) {
    S <- keep * S - grad(sum(0.3 * l2(S @ k[i], v[i]) for i in window(2)), S)
  }
  read(q: [dk]) -> [dv] = S @ q
}
block Heads(k: [dk], v: [3, dv], keep: [3]) {
  param mix: [3] = [0.5, 1, 2]
  memory h: 3 of Head(dk, dv)
  before = h.read(k)
  h.write(k, v, sigmoid(keep))
  return mix @ (before + h.read(k))
}""",
    {},
    k=(3,), v=(3, 2), keep=(3,),
)  # fmt: skip
def heads(x: Tensors, p: Tensors) -> torch.Tensor:
    def one(b: int) -> torch.Tensor:
        S = torch.zeros(3, 2, 3, dtype=torch.float64)
        ys = []
        for t in range(x["k"].shape[1]):
            k = x["k"][b, t]
            before = torch.einsum("hvk,k->hv", S, k)
            g = torch.zeros_like(S)
            for i in (t - 1, t):
                if i >= 0:
                    ki, vi = x["k"][b, i], x["v"][b, i]
                    g = g + 0.3 * torch.einsum("hv,k->hvk", torch.einsum("hvk,k->hv", S, ki) - vi, ki)
            S = x["keep"][b, t].sigmoid()[:, None, None] * S - g
            ys.append(p["mix"] @ (before + torch.einsum("hvk,k->hv", S, k)))
        return torch.stack(ys)

    return rows(x["k"].shape[0], one)


def module_and_data(name: str, batch: int, ticks: int, **options: Any) -> tuple[Any, Tensors, Loop]:
    text, dims, inputs, loop = CASES[name]
    if name == "heads":
        text = text.replace("block Heads(k: [dk], v: [3, dv], keep: [3])", "block Heads(k: [3], v: [3, 2], keep: [3])")
        text = text.replace("3 of Head(dk, dv)", "3 of Head(3, 2)")
    settings: dict[str, Any] = {**dims, **options}
    module = nldsl.compile(f"{name}.nl", text=text, **settings).double()
    generator = torch.Generator().manual_seed(7)
    data = {n: torch.randn(batch, ticks, *s, generator=generator, dtype=torch.float64) for n, s in inputs.items()}
    for gate in ("rate", "keep"):
        if gate in data and not inputs[gate]:
            data[gate] = 0.3 * torch.rand(batch, ticks, generator=generator, dtype=torch.float64)
    return module, data, loop


@pytest.mark.parametrize("disabled", [frozenset(), frozenset({"chunk"})], ids=["parallel", "loops"])
@pytest.mark.parametrize("ticks", [1, 11])
@pytest.mark.parametrize("name", sorted(CASES))
def test_values_and_gradients(name: str, ticks: int, disabled: frozenset[str]) -> None:
    module, data, loop = module_and_data(name, 2, ticks, disabled=disabled)
    ours = {n: x.clone().requires_grad_() for n, x in data.items()}
    theirs = {n: x.clone().requires_grad_() for n, x in data.items()}
    params = {n: p.detach().clone().requires_grad_() for n, p in module.named_parameters()}
    got, expected = module(**ours), loop(theirs, params)
    assert (got - expected).abs().max() < 1e-10
    weights = torch.randn_like(expected)
    torch.autograd.backward((got * weights).sum())
    torch.autograd.backward((expected * weights).sum())
    for n in ours:
        a, b = ours[n].grad, theirs[n].grad
        zero = torch.zeros_like(data[n])
        assert ((zero if a is None else a) - (zero if b is None else b)).abs().max() < 1e-8, n
    for n, p in module.named_parameters():
        a, b = p.grad, params[n].grad
        zero = torch.zeros_like(params[n])
        assert ((zero if a is None else a) - (zero if b is None else b)).abs().max() < 1e-8, n
