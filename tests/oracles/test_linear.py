# mypy: disable-error-code="no-any-return, misc"
"""Matrix memories against fla's plain references, and closed forms where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.oracles.harness import (
    Case,
    Tensors,
    agree,
    between,
    both_backends,
    doubles,
    fla,
    heads,
    heads_first,
    normal,
    unit,
)


def linear_attention(x: Tensors, _: Tensors) -> torch.Tensor:
    with doubles():
        y, _state = fla("linear_attn/naive").naive_recurrent_linear_attn(
            heads(x["q"]), heads(x["k"]), heads(x["v"]), scale=1.0
        )
    return y.squeeze(2)


def features_attention(x: Tensors, _: Tensors) -> torch.Tensor:
    """elu + 1 and the normalization, as the parallel form of the paper: all weights at once."""
    q, k = (torch.nn.functional.elu(x[n]) + 1 for n in "qk")
    weights = torch.tril(q @ k.transpose(1, 2))
    return weights @ x["v"] / (weights.sum(-1, keepdim=True) + 1e-10)


def normalized_attention(x: Tensors, _: Tensors) -> torch.Tensor:
    with doubles():
        reference = fla("linear_attn/naive").naive_recurrent_linear_attn
        y, _state = reference(heads(x["q"]), heads(x["k"]), heads(x["v"]), scale=1.0, normalize=True)
    return y.squeeze(2)


def delta(x: Tensors, _: Tensors) -> torch.Tensor:
    q, k, v = (heads_first(x[n]) for n in "qkv")
    with doubles():  # the reference scales q
        y, _state = fla("delta_rule/naive").delta_rule_recurrence(q * k.shape[-1] ** 0.5, k, v, heads_first(x["rate"]))
    return y.squeeze(1)


def gated_delta(x: Tensors, _: Tensors) -> torch.Tensor:
    with doubles():
        y, _state = fla("gated_delta_rule/naive").naive_recurrent_gated_delta_rule(
            *(heads(x[n]) for n in ("q", "k", "v", "rate")), heads(x["keep"].log()), scale=1.0
        )
    return y.squeeze(2)


def gated_delta_product(x: Tensors, _: Tensors) -> torch.Tensor:
    n = x["k"].shape[2]
    k, v, rate = (x[m].flatten(1, 2) for m in ("k", "v", "rate"))
    with doubles():
        y, _state = fla("gated_delta_product/naive").naive_recurrent_gated_delta_product(
            heads(x["q"]), heads(k), heads(v), heads(x["keep"].log()), heads(rate), 1.0, num_householder=n
        )
    return y.squeeze(2)


def kda(x: Tensors, _: Tensors) -> torch.Tensor:
    with doubles():
        y, _state = fla("kda/naive").naive_recurrent_kda(
            heads(x["q"]), heads(x["k"]), heads(x["v"]), heads(x["keep"].log()), heads(x["rate"]), scale=1.0
        )
    return y.squeeze(2)


def gdn2(x: Tensors, _: Tensors) -> torch.Tensor:
    q, k, v, erase, write = (heads(x[n]) for n in ("q", "k", "v", "erase", "write"))
    with doubles():
        y, _state = fla("gdn2/naive").naive_recurrent_gdn2(q, k, v, heads(x["keep"].log()), erase, write, scale=1.0)
    return y.squeeze(2)


def gla(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    with doubles():
        y, _state = fla("gla/naive").naive_recurrent_gla(
            heads(q) * q.shape[-1] ** 0.5, heads(k), heads(v), heads(keep.log())
        )
    return y.squeeze(2)


def gated_linear(x: Tensors, _: Tensors) -> torch.Tensor:
    return gla(x["q"], x["k"], x["v"], x["keep"])


def hgrn2(x: Tensors, _: Tensors) -> torch.Tensor:
    keep = 0.25 + 0.75 * torch.sigmoid(x["f"])
    return gla(x["q"], 1 - keep, x["v"], keep)


def simple_gla(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    with doubles():
        y, _state = fla("simple_gla/naive").naive_recurrent_simple_gla(
            heads(q), heads(k), heads(v), heads(keep.log()), scale=1.0
        )
    return y.squeeze(2)


def retnet(x: Tensors, _: Tensors) -> torch.Tensor:
    return simple_gla(x["q"], x["k"], x["v"], x["keep"])


def retnet_heads(x: Tensors, _: Tensors) -> torch.Tensor:
    """fla's retention: the parallel form, three heads with their own constants."""
    q, k, v = (x[n].transpose(1, 2) for n in "qkv")
    with doubles():
        y = fla("retention/naive").naive_retention(q * q.shape[-1] ** 0.5, k, v)
    return y.transpose(1, 2)


def mamba2(x: Tensors, p: Tensors) -> torch.Tensor:
    dt = torch.nn.functional.softplus(x["dt"] + p["bias"])
    keep = torch.exp(-dt * p["log_a"].exp())
    return simple_gla(x["c"], x["b"] * dt[..., None], x["x"], keep) + p["skip"] * x["x"]


def rwkv6(x: Tensors, p: Tensors) -> torch.Tensor:
    r, k, v, keep = (heads_first(x[n]) for n in ("r", "k", "v", "keep"))
    with doubles():
        y, _state = fla("rwkv6/recurrent_naive").naive_recurrent_rwkv6(r, k, v, keep.log(), p["bonus"][None], scale=1.0)
    return y.squeeze(1)


def dplr(
    r: torch.Tensor, k: torch.Tensor, v: torch.Tensor, a: torch.Tensor, b: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    tensors = [heads_first(t) for t in (r * r.shape[-1] ** 0.5, k, v, a, b, keep.log())]
    with doubles():
        y, _state = fla("generalized_delta_rule/dplr/naive").dplr_recurrence(*tensors)
    return y.squeeze(1)


def diagonal_plus_low_rank(x: Tensors, _: Tensors) -> torch.Tensor:
    return dplr(x["q"], x["k"], x["v"], x["a"], x["b"], x["keep"])


def rwkv7(x: Tensors, p: Tensors) -> torch.Tensor:
    """RWKV-7 as the DPLR recurrence that its kernels run."""
    erase = torch.nn.functional.normalize(p["erase_key"] * x["k"], dim=-1)
    written = x["k"] * (1 + (x["rate"] - 1) * p["write_key"])
    return dplr(x["r"], written, x["v"], -erase, x["rate"] * erase, x["keep"])


def comba(x: Tensors, p: Tensors) -> torch.Tensor:
    erase = torch.sigmoid(p["erase"]) * x["k"]
    q = x["q"] - p["correct"] * erase
    with doubles():
        y, _state = fla("comba/naive").naive_recurrent_comba(
            heads(q), heads(x["k"]), heads(x["v"]), heads(erase), heads(x["rate"]), heads(x["keep"].log()), scale=1.0
        )
    return y.squeeze(2)


def comba_normalized(x: Tensors, p: Tensors) -> torch.Tensor:
    erase = torch.sigmoid(p["erase"]) * x["k"]
    erase = erase * torch.rsqrt((erase**2).sum(-1, keepdim=True) + 1e-6)
    with doubles():
        y, _state = fla("comba/naive").naive_recurrent_comba(
            *(heads(t) for t in (x["q"] - p["correct"] * erase, x["k"], x["v"], erase, x["rate"], x["keep"].log())),
            scale=1.0,
        )
    return y.squeeze(2)


def longhorn(x: Tensors, _: Tensors) -> torch.Tensor:
    """Each row of the matrix is the minimizer of its own ridge problem, solved as a linear system."""
    batch, ticks, dk = x["k"].shape
    m, ys = torch.zeros(batch, x["v"].shape[-1], dk, dtype=torch.float64), []
    for t in range(ticks):
        k, v, rate = x["k"][:, t], x["v"][:, t], x["rate"][:, t]
        outer = torch.einsum("bi,bj->bij", k, k)
        system = torch.eye(dk, dtype=torch.float64) + rate[:, :, None, None] * outer[:, None]
        m = torch.linalg.solve(system, m + (rate * v)[..., None] * k[:, None])
        ys.append(torch.einsum("bvk,bk->bv", m, x["q"][:, t]))
    return torch.stack(ys, 1)


def longhorn_diagonal(x: Tensors, _: Tensors) -> torch.Tensor:
    """The scan of the paper's code: every entry of the state forgets and adds on its own."""
    batch, ticks, dk = x["k"].shape
    state, ys = torch.zeros(batch, x["v"].shape[-1], dk, dtype=torch.float64), []
    for t in range(ticks):
        k = x["k"][:, t, None, :]
        dt = (x["rate"][:, t] / (1 + x["rate"][:, t] * (k**2).sum(-1)))[..., None]
        state = (1 - dt * k**2) * state + dt * x["v"][:, t, :, None] * k
        ys.append((state * x["q"][:, t, None, :]).sum(-1))
    return torch.stack(ys, 1)


def oja(x: Tensors, _: Tensors) -> torch.Tensor:
    """The recurrence of fla's kernel (which has no plain reference), in its layout: the state is [dk, dv]."""
    batch, ticks, dk = x["k"].shape
    h, ys = torch.zeros(batch, dk, x["v"].shape[-1], dtype=torch.float64), []
    for t in range(ticks):
        k, v = x["k"][:, t], x["v"][:, t]
        h = h * x["keep"][:, t, None, :]
        k = x["rate"][:, t, None] * (k - (h * v[:, None, :]).sum(-1))
        h = h + k[:, :, None] * v[:, None, :]
        ys.append((h * x["q"][:, t, :, None]).sum(1))
    return torch.stack(ys, 1)


RETNET_HEADS = """
from "memories/gated_linear" import RetNet, retnet_keeps
block Retention(q: [3, 4], k: [3, 4], v: [3, 5]) {
  memory m: 3 of RetNet(4, 5)
  return m.step(q, k, v, retnet_keeps(3))
}
"""
D = {"dk": 4, "dv": 3}
UNIT = between(0.05, 0.95)
CASES = [
    Case("memories/linear_attention", "LinearAttention", D, linear_attention, "fla naive_recurrent_linear_attn"),
    Case(
        "memories/linear_attention",
        "NormalizedLinearAttention",
        D,
        normalized_attention,
        "fla naive_recurrent_linear_attn(normalize)",
        draws={"q": UNIT, "k": UNIT},
    ),
    Case(
        "phi.nl",
        "Phi",
        {},
        features_attention,
        "parallel form",
        label="elu + 1",
        text="""
from "memories/linear_attention" import NormalizedLinearAttention
from "features" import elu1
block Phi(q: [4], k: [4], v: [3]) {
  memory m: NormalizedLinearAttention(4, 3, phi = elu1)
  return m.step(q, k, v)
}
""",
    ),
    Case("memories/delta", "DeltaNet", D, delta, "fla delta_rule_recurrence"),
    Case(
        "memories/delta",
        "DeltaNet",
        D,
        delta,
        "fla delta_rule_recurrence",
        label="(negative eigenvalues)",
        draws={"rate": between(1.0, 2.0)},
    ),
    Case("memories/delta", "GatedDelta", D, gated_delta, "fla naive_recurrent_gated_delta_rule"),
    Case(
        "memories/delta",
        "GatedDeltaProduct",
        D | {"n": 3},
        gated_delta_product,
        "fla naive_recurrent_gated_delta_product",
    ),
    Case("memories/delta", "KimiDelta", D, kda, "fla naive_recurrent_kda"),
    Case("memories/delta", "GatedDelta2", D, gdn2, "fla naive_recurrent_gdn2", draws={"erase": UNIT, "write": UNIT}),
    Case("memories/gated_linear", "GatedLinearAttention", D, gated_linear, "fla naive_recurrent_gla"),
    Case("memories/gated_linear", "HGRN2", D | {"low": 0.25}, hgrn2, "fla naive_recurrent_gla"),
    Case("memories/gated_linear", "RetNet", D, retnet, "fla naive_recurrent_simple_gla"),
    Case(
        "retention.nl",
        "Retention",
        {},
        retnet_heads,
        "fla naive_retention",
        label="(RetNet, 3 heads)",
        text=RETNET_HEADS,
    ),
    Case("memories/gated_linear", "Mamba2", D, mamba2, "fla naive_recurrent_simple_gla"),
    Case("memories/gated_linear", "RWKV6", D, rwkv6, "fla naive_recurrent_rwkv6"),
    Case(
        "memories/low_rank",
        "DiagonalPlusLowRank",
        D,
        diagonal_plus_low_rank,
        "fla dplr_recurrence",
        draws={"a": unit, "b": unit},
    ),
    Case("memories/low_rank", "RWKV7", D, rwkv7, "fla dplr_recurrence", draws={"k": normal}),
    Case("memories/low_rank", "Comba", D, comba, "fla naive_recurrent_comba"),
    Case(
        "memories/low_rank",
        "Comba",
        D | {"normalize": True},
        comba_normalized,
        "fla naive_recurrent_comba",
        label="(normalized)",
    ),
    Case("memories/low_rank", "Longhorn", D, longhorn, "linear solve of the implicit step", draws={"k": normal}),
    Case(
        "memories/low_rank",
        "Longhorn",
        D | {"diagonal": True},
        longhorn_diagonal,
        "scan of the paper's code",
        label="(diagonal)",
    ),
    Case("memories/low_rank", "GatedOja", D, oja, "loop of fla's kernel"),
]


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_agrees(case: Case, backend: str) -> None:
    agree(case, backend)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.shown)
def test_over_several_chunks(case: Case) -> None:
    """Long enough for the parallel forms of the compiled module to pass on a state."""
    agree(replace(case, ticks=70), "torch")
