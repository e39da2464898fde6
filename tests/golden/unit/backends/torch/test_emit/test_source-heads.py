"""Heads, compiled by nldsl.

Parameters:
    m.scale [m, 3]
    wq [6, 6]
    wk [6, 6]
    wv [6, 6]
    wr [2, 6]

Inputs:
    x [batch, time, 6]

States:
    m.S [batch, m, 3, 3]

Outputs:
    y [batch, time, 6]
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch


def scan_lowers(x: torch.Tensor) -> bool:
    """Whether a loop with this state would compute in half precision: because it comes so, or because of autocast."""
    if x.dtype.itemsize < 4:
        return True
    kind = x.device.type
    return x.dtype == torch.float32 and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def scan_wide(run: Callable[..., Any], *arguments: Any) -> Any:
    """A loop over tensors in half precision, or under autocast, computed in float32: its sums go over many ticks."""
    first = next(x for x in arguments if isinstance(x, torch.Tensor) and x.is_floating_point())
    kind, place, half = first.dtype, first.device.type, (torch.bfloat16, torch.float16)
    wide = [x.float() if isinstance(x, torch.Tensor) and x.dtype in half else x for x in arguments]
    with torch.autocast(place, enabled=False) if torch.amp.is_autocast_available(place) else nullcontext():
        found = run(*wide)
    if isinstance(found, torch.Tensor):
        return found.to(kind)
    return tuple(x.to(kind) if x.is_floating_point() else x for x in found)


def init_state(params, batch, dtype, device):
    """The states before the first tick."""
    B = batch
    S = torch.zeros((B, 2, 3, 3), dtype=dtype, device=device)
    return {"@tick": 0, "m.S": S}


def scan_m_S(S, x_3_all, rate_all, x_4_all, x_5_all, x_6_all):
    """One tick after the other: m.S."""
    if scan_lowers(S):
        return scan_wide(scan_m_S, S, x_3_all, rate_all, x_4_all, x_5_all, x_6_all)
    x_all = []
    product_all = []
    product_1_all = []
    for x_3, rate, x_4, x_5, x_6 in zip(
        x_3_all.unbind(1),
        rate_all.unbind(1),
        x_4_all.unbind(1),
        x_5_all.unbind(1),
        x_6_all.unbind(1),
    ):
        # heads.nl:6: learn(k: [dk], v: [dv], rate: []) { S <- S - rate * grad(0.5 * sum((read(k) - v)^2), S) }
        x = (S @ x_4[..., None]).squeeze(-1) - x_3
        d_S = x[..., None] * x_4[:, :, None]
        S = S - rate[..., None, None] * d_S
        # heads.nl:5: read(q: [dk]) -> [dv] = S @ (scale * q)
        product = (S @ x_5[..., None]).squeeze(-1)
        product_1 = (S @ x_6[..., None]).squeeze(-1)
        x_all.append(x)
        product_all.append(product)
        product_1_all.append(product_1)
    return S, torch.stack(x_all, 1), torch.stack(product_all, 1), torch.stack(product_1_all, 1)


def forward(params, inputs, state):
    """All ticks of a call: (outputs, losses, probes, state)."""
    scale = params["m.scale"]  # [m, 3]
    wq = params["wq"]  # [6, 6]
    wk = params["wk"]  # [6, 6]
    wv = params["wv"]  # [6, 6]
    wr = params["wr"]  # [2, 6]
    x = inputs["x"]  # [batch, time, 6]
    S = state["m.S"]  # [batch, m, 3, 3]
    t = state["@tick"]
    T = x.shape[1]
    # heads.nl:12: split_heads = reshape(wq @ x, [heads, d / heads])
    split_heads = (x @ wq.mT).unflatten(-1, (2, 3))
    # heads.nl:13: rate = sigmoid(wr @ x)
    rate = torch.sigmoid(x @ wr.mT)
    # heads.nl:14: m.learn(unit(reshape(wk @ x, [heads, d / heads])), reshape(wv @ x, [heads, d / heads]), rate)
    x_1 = (x @ wk.mT).unflatten(-1, (2, 3))
    x_2 = torch.rsqrt((x_1 * x_1).sum(-1) + 1e-06).unsqueeze(-1)
    x_3 = (x @ wv.mT).unflatten(-1, (2, 3))
    # heads.nl:5: read(q: [dk]) -> [dv] = S @ (scale * q)
    x_4 = scale * (x_1 * x_2)
    x_5 = scale * split_heads
    x_6 = scale * x.unflatten(-1, (2, 3))
    S, x_7, product, product_1 = scan_m_S(S, x_3, rate, x_4, x_5, x_6)
    # heads.nl:6: learn(k: [dk], v: [dv], rate: []) { S <- S - rate * grad(0.5 * sum((read(k) - v)^2), S) }
    m_loss = 0.5 * (x_7 * x_7).sum(-1)
    # heads.nl:15: y = reshape(m.read(split_heads), [d])
    y = product.flatten(-2, -1)
    # heads.nl:16: return y + m.read(reshape(x, [heads, d / heads]))[0][0]
    y_1 = y + product_1[..., :1, :].squeeze(-2)[..., :1]
    outputs = {"y": y_1}
    losses = {}
    probes = {"m.loss": m_loss.detach(), "m.rate": rate.detach()}
    state = {"@tick": t + T, "m.S": S}
    return outputs, losses, probes, state


def step(params, inputs, state):
    """One tick: (outputs, losses, probes, state)."""
    scale = params["m.scale"]  # [m, 3]
    wq = params["wq"]  # [6, 6]
    wk = params["wk"]  # [6, 6]
    wv = params["wv"]  # [6, 6]
    wr = params["wr"]  # [2, 6]
    x = inputs["x"]  # [batch, 6]
    S = state["m.S"]  # [batch, m, 3, 3]
    t = state["@tick"] + 1
    # heads.nl:12: split_heads = reshape(wq @ x, [heads, d / heads])
    split_heads = (x @ wq.mT).unflatten(-1, (2, 3))
    # heads.nl:13: rate = sigmoid(wr @ x)
    rate = torch.sigmoid(x @ wr.mT)
    # heads.nl:14: m.learn(unit(reshape(wk @ x, [heads, d / heads])), reshape(wv @ x, [heads, d / heads]), rate)
    x_1 = (x @ wk.mT).unflatten(-1, (2, 3))
    x_2 = torch.rsqrt((x_1 * x_1).sum(-1) + 1e-06).unsqueeze(-1)
    # heads.nl:5: read(q: [dk]) -> [dv] = S @ (scale * q)
    x_3 = scale * (x_1 * x_2)
    # heads.nl:6: learn(k: [dk], v: [dv], rate: []) { S <- S - rate * grad(0.5 * sum((read(k) - v)^2), S) }
    x_4 = (S @ x_3[..., None]).squeeze(-1) - (x @ wv.mT).unflatten(-1, (2, 3))
    m_loss = 0.5 * (x_4 * x_4).sum(-1)
    d_S = x_4[..., None] * x_3[:, :, None]
    S = S - rate[..., None, None] * d_S
    # heads.nl:15: y = reshape(m.read(split_heads), [d])
    y = (S @ (scale * split_heads)[..., None]).squeeze(-1).flatten(-2, -1)
    # heads.nl:5: read(q: [dk]) -> [dv] = S @ (scale * q)
    product = (S @ (scale * x.unflatten(-1, (2, 3)))[..., None]).squeeze(-1)
    # heads.nl:16: return y + m.read(reshape(x, [heads, d / heads]))[0][0]
    y_1 = y + product[..., :1, :].squeeze(-2)[..., :1]
    outputs = {"y": y_1}
    losses = {}
    probes = {"m.loss": m_loss.detach(), "m.rate": rate.detach()}
    state = {"@tick": t, "m.S": S}
    return outputs, losses, probes, state
