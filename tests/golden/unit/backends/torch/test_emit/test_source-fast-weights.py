"""Fast, compiled by nldsl.

Parameters:
    table [5, 4]
    w [4, 4]
    head [5, 4]

Inputs:
    tokens [batch, time] int
    next_tokens [batch, time] int

States:
    w.fast [batch, 4, 4]
    sum_grad_w [batch, 4, 4]

Outputs:
    y [batch, time, 5]

Losses:
    outer_level [batch, time]
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn import functional as F


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
    w = params["w"]  # [4, 4]
    B = batch
    fast = w.expand(B, 4, 4)
    sum_grad_w = torch.zeros((B, 4, 4), dtype=dtype, device=device)
    return {"@tick": 0, "w.fast": fast, "sum_grad_w": sum_grad_w}


def scan_w_fast(t, fast, sum_grad_w, head, x_all, x_1_all):
    """One tick after the other: w.fast, sum_grad_w."""
    dtype = fast.dtype
    device = fast.device
    B = fast.shape[0]
    if scan_lowers(fast):
        return scan_wide(scan_w_fast, t, fast, sum_grad_w, head, x_all, x_1_all)
    y_all = []
    x_3_all = []
    total_all = []
    for x, x_1 in zip(x_all.unbind(1), x_1_all.unbind(1)):
        t += 1
        # fast weights.nl:11: y = head @ tanh(w @ table[tokens])
        x_2 = torch.tanh((fast @ x[..., None]).squeeze(-1))
        y = x_2 @ head.mT
        # fast weights.nl:12: minimize cross_entropy(y, next(tokens)) at outer_level
        x_3 = y.amax(-1).detach()
        x_4 = torch.exp(y - x_3[..., None])
        total = x_4.sum(-1)
        # fast weights.nl:5: level fast = every 3 token with Sgd(rate = 0.1)
        x_5 = ((1.0 / total)[..., None] * x_4 + x_1) @ head * (1.0 - x_2 * x_2)
        d_fast = x_5[..., None] * x[:, None]
        x_6 = sum_grad_w + d_fast
        w = fast
        sum_grad_w = x_6
        if t % 3 == 0:
            w = fast - 0.1 * x_6
            sum_grad_w = torch.zeros((B, 4, 4), dtype=dtype, device=device)
        y_all.append(y)
        x_3_all.append(x_3)
        total_all.append(total)
        fast = w
    return fast, sum_grad_w, torch.stack(y_all, 1), torch.stack(x_3_all, 1), torch.stack(total_all, 1)


def forward(params, inputs, state):
    """All ticks of a call: (outputs, losses, probes, state)."""
    table = params["table"]  # [5, 4]
    head = params["head"]  # [5, 4]
    tokens = inputs["tokens"]  # [batch, time] int
    next_tokens = inputs["next_tokens"]  # [batch, time] int
    fast = state["w.fast"]  # [batch, 4, 4]
    sum_grad_w = state["sum_grad_w"]  # [batch, 4, 4]
    t = state["@tick"]
    dtype = table.dtype
    device = table.device
    T = tokens.shape[1]
    # fast weights.nl:11: y = head @ tanh(w @ table[tokens])
    x = F.embedding(tokens, table)
    # fast weights.nl:5: level fast = every 3 token with Sgd(rate = 0.1)
    x_1 = (-1.0) * F.one_hot(next_tokens, 5).to(dtype)
    fast, sum_grad_w, y, x_3, total = scan_w_fast(t, fast, sum_grad_w, head, x, x_1)
    # fast weights.nl:12: minimize cross_entropy(y, next(tokens)) at outer_level
    x_2 = torch.take_along_dim(y, next_tokens[..., None], -1).squeeze(-1)
    loss = torch.log(total) + x_3 - x_2
    outputs = {"y": y}
    losses = {"outer_level": loss}
    probes = {}
    state = {"@tick": t + T, "w.fast": fast, "sum_grad_w": sum_grad_w}
    return outputs, losses, probes, state


def step(params, inputs, state):
    """One tick: (outputs, losses, probes, state)."""
    table = params["table"]  # [5, 4]
    head = params["head"]  # [5, 4]
    tokens = inputs["tokens"]  # [batch] int
    next_tokens = inputs["next_tokens"]  # [batch] int
    fast = state["w.fast"]  # [batch, 4, 4]
    sum_grad_w = state["sum_grad_w"]  # [batch, 4, 4]
    t = state["@tick"] + 1
    dtype = table.dtype
    device = table.device
    B = tokens.shape[0]
    # fast weights.nl:11: y = head @ tanh(w @ table[tokens])
    x = F.embedding(tokens, table)
    x_1 = torch.tanh((fast @ x[..., None]).squeeze(-1))
    y = x_1 @ head.mT
    # fast weights.nl:12: minimize cross_entropy(y, next(tokens)) at outer_level
    x_2 = torch.take_along_dim(y, next_tokens[..., None], -1).squeeze(-1)
    x_3 = y.amax(-1).detach()
    x_4 = torch.exp(y - x_3[..., None])
    total = x_4.sum(-1)
    loss = torch.log(total) + x_3 - x_2
    # fast weights.nl:5: level fast = every 3 token with Sgd(rate = 0.1)
    x_5 = (-1.0) * F.one_hot(next_tokens, 5).to(dtype)
    x_6 = ((1.0 / total)[..., None] * x_4 + x_5) @ head * (1.0 - x_1 * x_1)
    d_fast = x_6[..., None] * x[:, None]
    x_7 = sum_grad_w + d_fast
    w = fast
    sum_grad_w = x_7
    if t % 3 == 0:
        w = fast - 0.1 * x_7
        sum_grad_w = torch.zeros((B, 4, 4), dtype=dtype, device=device)
    outputs = {"y": y}
    losses = {"outer_level": loss}
    probes = {}
    fast = w
    state = {"@tick": t, "w.fast": fast, "sum_grad_w": sum_grad_w}
    return outputs, losses, probes, state


def peek(params, inputs, state):
    """The outputs of one tick? the states stay as they are."""
    table = params["table"]  # [5, 4]
    head = params["head"]  # [5, 4]
    tokens = inputs["tokens"]  # [batch] int
    fast = state["w.fast"]  # [batch, 4, 4]
    sum_grad_w = state["sum_grad_w"]  # [batch, 4, 4]
    t = state["@tick"] + 1
    # fast weights.nl:11: y = head @ tanh(w @ table[tokens])
    x = F.embedding(tokens, table)
    y = torch.tanh((fast @ x[..., None]).squeeze(-1)) @ head.mT
    return {"y": y}
