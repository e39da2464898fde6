# mypy: disable-error-code="no-any-return, misc"
"""Test-time training, Titans, attention and regression memories."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tests.oracles.harness import Case, Tensors, agree, both_backends, doubles, fla, heads

gelu = torch.nn.GELU(approximate="tanh")
Weights = tuple[torch.Tensor, ...]


# ------------------------------------------------------- test-time training: the dual form of the official code


def norm(x: torch.Tensor, p: Tensors) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], p["gain"], p["bias"], 1e-6)


def rates(p: Tensors, rate: torch.Tensor) -> torch.Tensor:
    """eta[t, s] of one mini-batch."""
    rows = torch.clamp(1 / torch.arange(1, len(rate) + 1, dtype=rate.dtype) + p["offset"][: len(rate)], min=0)
    return rows[:, None] * rate[None, :]


def ttt_linear(x: Tensors, p: Tensors) -> torch.Tensor:
    chunk, sequences = len(p["offset"]), []
    for q, k, v, rate in zip(x["q"], x["k"], x["v"], x["rate"], strict=True):
        w, b, found = p["W_0"], p["b_0"], []
        for at in range(0, len(q), chunk):
            here = slice(at, at + chunk)
            eta, z = rates(p, rate[here]), k[here] @ w.T + b
            loss = 0.5 * ((norm(z, p) - (v[here] - k[here])) ** 2).sum()
            (dz,) = torch.autograd.grad(loss, z, create_graph=True)
            scores = torch.tril(q[here] @ k[here].T)
            z_bar = q[here] @ w.T - (eta * scores) @ dz + b - torch.tril(eta) @ dz
            found.append(q[here] + norm(z_bar, p))
            w, b = w - (eta[-1][:, None] * dz).T @ k[here], b - eta[-1] @ dz
        sequences.append(torch.cat(found))
    return torch.stack(sequences)


def ttt_mlp(x: Tensors, p: Tensors) -> torch.Tensor:
    chunk, sequences = len(p["offset"]), []
    for q, k, v, rate in zip(x["q"], x["k"], x["v"], x["rate"], strict=True):
        w1, b1, w2, b2 = (p[n] for n in ("W1_0", "b1_0", "W2_0", "b2_0"))
        found = []
        for at in range(0, len(q), chunk):
            here = slice(at, at + chunk)
            eta, z1 = rates(p, rate[here]), k[here] @ w1.T + b1
            x2 = gelu(z1)
            z2 = x2 @ w2.T + b2
            loss = 0.5 * ((norm(z2, p) - (v[here] - k[here])) ** 2).sum()
            d1, d2 = torch.autograd.grad(loss, (z1, z2), create_graph=True)
            low = torch.tril(eta)
            z1_bar = q[here] @ w1.T - (low * (q[here] @ k[here].T)) @ d1 + b1 - low @ d1
            x2_bar = gelu(z1_bar)
            z2_bar = x2_bar @ w2.T - (low * (x2_bar @ x2.T)) @ d2 + b2 - low @ d2
            found.append(q[here] + norm(z2_bar, p))
            w1, b1 = w1 - (eta[-1][:, None] * d1).T @ k[here], b1 - eta[-1] @ d1
            w2, b2 = w2 - (eta[-1][:, None] * d2).T @ x2, b2 - eta[-1] @ d2
        sequences.append(torch.cat(found))
    return torch.stack(sequences)


def ttt_rows(x: Tensors, p: Tensors) -> torch.Tensor:
    """fla's reference has one rate per row; its result is z + LN(z), where the paper has q + LN(z)."""
    chunk, (batch, ticks, d) = len(p["m.offset"]), x["q"].shape
    place = torch.arange(ticks) % chunk
    eta = torch.clamp(1 / (place + 1).double() + p["m.offset"][place], min=0).expand(batch, ticks)
    state = p["m.W_0"].T.expand(batch, 1, d, d), p["m.b_0"].expand(batch, 1, 1, d)
    with doubles():
        y, _, _ = fla("ttt/naive").chunk_ttt_linear_ref(
            *(heads(x[n] * 1.0) for n in "qkv"),
            p["m.gain"],
            p["m.bias"],
            heads(eta)[..., None],
            1.0,
            1e-6,
            chunk,
            *state,
        )
    return y.squeeze(2)


TTT_ROWS = """
from "memories/ttt" import TTTLinear
block Rows(q: [4], k: [4], v: [4]) {
  memory m: TTTLinear(4, chunk = 3)
  m.learn(k, v, 1)
  z = m.hidden(q)
  return z + m.norm(z)
}
"""


# ---------------------------------------------------------------- networks that learn: a loop over the tokens


def network_loop(
    read: Callable[[Weights, torch.Tensor], torch.Tensor],
    start: Callable[[Tensors], Weights],
    chunk: int,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """Momentum and forgetting, gradients at the start of the chunk, read after the write, as in Titans."""

    def run(x: Tensors, p: Tensors) -> torch.Tensor:
        sequences = []
        for b in range(x["q"].shape[0]):
            weights = start(p)
            surprise: Weights = tuple(torch.zeros_like(w) for w in weights)
            anchor, found = weights, []
            for t in range(x["q"].shape[1]):
                k, v = x["k"][b, t], x["v"][b, t]
                if t % chunk == 0:
                    anchor = weights
                slopes = torch.func.grad(lambda w, k=k, v=v: loss(read(w, k), v))(anchor)
                rate, beta, keep = (x[n][b, t] for n in ("rate", "beta", "keep"))
                surprise = tuple(beta * s - rate * g for s, g in zip(surprise, slopes, strict=True))
                weights = tuple(keep * w + s for w, s in zip(weights, surprise, strict=True))
                found.append(read(weights, x["q"][b, t]))
            sequences.append(torch.stack(found))
        return torch.stack(sequences)

    return run


def squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b) ** 2).sum()


def two_layers(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return w[0] @ gelu(w[1] @ x)


titans = network_loop(two_layers, lambda p: (p["net.w1_0"], p["net.w2_0"]), 3, squared)
titans_linear = network_loop(lambda w, x: w[0] @ x, lambda p: (p["m.net.W_0"],), 3, squared)


def momentum_delta(x: Tensors, _: Tensors) -> torch.Tensor:
    """fla's momentum delta rule: the linear case, anchored at every token, with half the squared loss."""
    ones = torch.ones_like(x["rate"])
    with doubles():
        reference = fla("momentum_delta_rule/naive").recurrent_momentum_delta_rule_ref
        k = heads(x["k"])
        y, _ = reference(
            heads(x["q"]), k, heads(x["v"]), heads(x["keep"].log()), heads(x["beta"].log()), k, heads(ones),
            heads(x["rate"]), scale=1.0,
        )  # fmt: skip
    return y.squeeze(2)


TITANS_DELTA = """
from "memories/titans" import Titans
from "structures" import Linear
from "objectives" import l2
block Momentum(q: [4], k: [4], v: [3], rate: [], beta: [], keep: []) {
  memory m: Titans(4, 3, structure = Linear(4, 3), loss = l2, chunk = 1)
  return m.step(q, k, v, rate, beta, keep)
}
"""


# ---------------------------------------------------------------- attention and regression


def attention(reach: int) -> Callable[[Tensors, Tensors], torch.Tensor]:
    def run(x: Tensors, _: Tensors) -> torch.Tensor:
        place = torch.arange(x["q"].shape[1])
        seen = (place[:, None] >= place[None, :]) & (place[:, None] - place[None, :] < reach)
        return F.scaled_dot_product_attention(x["q"], x["k"], x["v"], attn_mask=seen)

    return run


def hopfield(x: Tensors, _: Tensors) -> torch.Tensor:
    sequences = []
    for q, patterns in zip(x["q"], x["pattern"], strict=True):
        found = []
        for t in range(len(q)):
            stored, xi = patterns[max(0, t - 3) : t + 1], q[t]
            for _step in range(3):
                xi = stored.T @ torch.softmax(0.5 * stored @ xi, 0)
            found.append(xi)
        sequences.append(torch.stack(found))
    return torch.stack(sequences)


def mesa(x: Tensors, p: Tensors) -> torch.Tensor:
    ridge = F.softplus(p["ridge_0"]) + 0.25
    with doubles():
        reference = fla("mesa_net/naive").naive_mesa_net_exact
        y, _, _ = reference(*(heads(x[n]) for n in "qkv"), heads(x["keep"].log()), ridge[None], heads(x["rate"]))
    return y.squeeze(2)


D = {"dk": 4, "dv": 3}
CASES = [
    Case("memories/ttt", "TTTLinear", {"d": 4, "chunk": 3}, ttt_linear, "dual form of ttt-lm-pytorch", ticks=8),
    Case("memories/ttt", "TTTMlp", {"d": 3, "hidden": 5, "chunk": 3}, ttt_mlp, "dual form of ttt-lm-pytorch", ticks=8),
    Case("rows.nl", "Rows", {}, ttt_rows, "fla chunk_ttt_linear_ref", label="(TTTLinear)", text=TTT_ROWS, ticks=9),
    Case("memories/titans", "Titans", D | {"chunk": 3}, titans, "loop with torch.func.grad", ticks=8),
    Case("memories/titans", "TitansLinear", D | {"chunk": 3}, titans_linear, "loop with torch.func.grad", ticks=8),
    Case(
        "momentum.nl",
        "Momentum",
        {},
        momentum_delta,
        "fla recurrent_momentum_delta_rule_ref",
        label="(Titans, linear)",
        text=TITANS_DELTA,
    ),
    Case(
        "memories/attention", "SoftmaxAttention", D | {"reach": 16}, attention(16), "torch scaled_dot_product_attention"
    ),
    Case(
        "memories/attention",
        "SoftmaxAttention",
        D | {"reach": 3},
        attention(3),
        "torch scaled_dot_product_attention",
        label="(window)",
    ),
    Case("memories/attention", "Hopfield", {"d": 4, "reach": 4}, hopfield, "loop"),
    Case("memories/mesa", "Mesa", {"dk": 4, "dv": 4, "steps": 0}, mesa, "fla naive_mesa_net_exact", label="(solve)"),
    Case("memories/mesa", "Mesa", {"dk": 4, "dv": 4, "steps": 4}, mesa, "fla naive_mesa_net_exact"),
    Case(
        "memories/mesa", "Mesa", {"dk": 4, "dv": 4, "steps": 30}, mesa, "fla naive_mesa_net_exact", label="(30 steps)"
    ),
    Case(
        "memories/mesa",
        "Mesa",
        {"dk": 4, "dv": 4, "steps": 5, "warm": True},
        mesa,
        "fla naive_mesa_net_exact",
        label="(warm)",
    ),
]


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_agrees(case: Case, backend: str) -> None:
    agree(case, backend)
