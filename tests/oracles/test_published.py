# mypy: disable-error-code="no-any-return, misc"
"""Layers of published models, as transformers has them: Mamba-2, Qwen3-Next's gated delta rule, RWKV."""

from __future__ import annotations

from inspect import unwrap  # transformers would take kernels where it finds some
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next import modeling_qwen3_next as qwen
from transformers.models.rwkv import modeling_rwkv as rwkv

from tests.oracles.harness import Case, Tensors, agree, both_backends, doubles, heads

WIDTH, HEADS, DH, STATE = 6, 3, 4, 5


def mamba2(x: Tensors, p: Tensors) -> torch.Tensor:
    """The mixer of Mamba2Model with our parameters, in evaluation: its chunk form on the CPU."""
    config = Mamba2Config(
        num_heads=HEADS, head_dim=DH, state_size=STATE, hidden_size=WIDTH, expand=2, n_groups=1, conv_kernel=4,
        chunk_size=4, use_bias=False, use_conv_bias=True, hidden_act="silu", num_hidden_layers=1,
    )  # fmt: skip
    with doubles():
        mixer = Mamba2Mixer(config, 0).double().eval()
        ours = {n.removeprefix("mamba2_layer."): q for n, q in p.items()}
        theirs = {
            "in_proj.weight": ours["into"],
            "conv1d.weight": ours["kernel"].T[:, None],
            "conv1d.bias": ours["offset"],
            "dt_bias": ours["m.bias"],
            "A_log": ours["m.log_a"],
            "D": ours["m.skip"],
            "norm.weight": ours["gain"],
            "out_proj.weight": ours["out"],
        }
        return torch.func.functional_call(mixer, theirs, (x["x"],))


def gated_delta(x: Tensors, _: Tensors) -> torch.Tensor:
    """Qwen3-Next's chunk form; the scale of the query is undone."""
    with doubles():
        y, _state = unwrap(qwen.torch_chunk_gated_delta_rule)(
            heads(x["q"]) * x["q"].shape[-1] ** 0.5, heads(x["k"]), heads(x["v"]), heads(x["keep"].log()),
            heads(x["rate"]), chunk_size=4, use_qk_l2norm_in_kernel=False,
        )  # fmt: skip
    return y.squeeze(2)


def qwen_layer(x: Tensors, p: Tensors) -> torch.Tensor:
    """Two heads with the gates of the model: keep = exp(-exp(A_log) softplus(a + dt_bias)), unit queries and keys."""
    ours = {n.removeprefix("test."): q for n, q in p.items()}
    keep = -ours["log_a"].exp() * F.softplus(x["a"] + ours["bias"])
    with doubles():
        y, _state = unwrap(qwen.torch_recurrent_gated_delta_rule)(
            x["q"], x["k"], x["v"], keep, torch.sigmoid(x["b"]), use_qk_l2norm_in_kernel=True
        )
    return y


QWEN = """
from "memories/delta" import GatedDelta
block Test(q: [2, 4], k: [2, 4], v: [2, 3], a: [2], b: [2]) {
  param log_a, bias: [2] = normal(0.5)
  memory m: 2 of GatedDelta(4, 3)
  scaled = [unit(q[h]) * 4 ** -0.5 for h in range(2)]
  return m.step(scaled, [unit(k[h]) for h in range(2)], v, sigmoid(b), exp(-exp(log_a) * softplus(a + bias)))
}
"""


def rwkv4(x: Tensors, p: Tensors) -> torch.Tensor:
    with doubles(), patch.object(torch, "zeros_like", lambda t, **_: torch.zeros(t.shape, dtype=torch.float64)):
        y, _ = rwkv.rwkv_linear_attention_cpu(p["decay"], p["bonus"], x["k"], x["v"])  # type: ignore[no-untyped-call]
    return y


CASES = [
    Case(
        "mamba2.nl", "Test", {}, mamba2, "transformers Mamba2Mixer", label="(Mamba2Layer)", ticks=9,
        text=f'from "blocks/mamba2" import Mamba2Layer\n'
        f"block Test(x: [{WIDTH}]) {{\n  return Mamba2Layer(x, {HEADS}, {DH}, {STATE})\n}}\n",
    ),
    Case("memories/delta", "GatedDelta", {"dk": 4, "dv": 3}, gated_delta, "transformers Qwen3-Next, chunk form"),
    Case("qwen.nl", "Test", {}, qwen_layer, "transformers Qwen3-Next", label="(GatedDelta, 2 heads)", text=QWEN),
    Case("memories/rwkv4", "RWKV4", {"d": 3}, rwkv4, "transformers rwkv_linear_attention_cpu"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_agrees(case: Case, backend: str) -> None:
    agree(case, backend)
