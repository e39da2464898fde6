"""Delta, compiled by nldsl.

Inputs:
    q [batch, time, 8]
    k [batch, time, 8]
    v [batch, time, 6]
    rate [batch, time]
    keep [batch, time]

States:
    S [batch, 6, 8]

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
    S = torch.zeros((B, 6, 8), dtype=dtype, device=device)
    return {"@tick": 0, "S": S}


def scan_S(S, q_all, k_all, v_all, rate_all, keep_all):
    """One tick after the other: S."""
    if scan_lowers(S):
        return scan_wide(scan_S, S, q_all, k_all, v_all, rate_all, keep_all)
    y_all = []
    for q, k, v, rate, keep in zip(
        q_all.unbind(1),
        k_all.unbind(1),
        v_all.unbind(1),
        rate_all.unbind(1),
        keep_all.unbind(1),
    ):
        # delta.nl:5: S <- keep * S
        x = keep[..., None, None] * S
        # delta.nl:6: S <- S - rate * grad(0.5 * sum((S @ k - v)^2), S)
        product = ((x @ k[..., None]).squeeze(-1) - v)[..., None] * k[:, None]
        S = x - rate[..., None, None] * product
        # delta.nl:7: return S @ q
        y = (S @ q[..., None]).squeeze(-1)
        y_all.append(y)
    return S, torch.stack(y_all, 1)


def forward(params, inputs, state):
    """All ticks of a call: (outputs, losses, probes, state)."""
    q = inputs["q"]  # [batch, time, 8]
    k = inputs["k"]  # [batch, time, 8]
    v = inputs["v"]  # [batch, time, 6]
    rate = inputs["rate"]  # [batch, time]
    keep = inputs["keep"]  # [batch, time]
    S = state["S"]  # [batch, 6, 8]
    t = state["@tick"]
    T = q.shape[1]
    S, y = scan_S(S, q, k, v, rate, keep)
    outputs = {"y": y}
    losses = {}
    probes = {".keep": keep.detach(), ".rate": rate.detach()}
    state = {"@tick": t + T, "S": S}
    return outputs, losses, probes, state


def step(params, inputs, state):
    """One tick: (outputs, losses, probes, state)."""
    q = inputs["q"]  # [batch, 8]
    k = inputs["k"]  # [batch, 8]
    v = inputs["v"]  # [batch, 6]
    rate = inputs["rate"]  # [batch]
    keep = inputs["keep"]  # [batch]
    S = state["S"]  # [batch, 6, 8]
    t = state["@tick"] + 1
    # delta.nl:5: S <- keep * S
    x = keep[..., None, None] * S
    # delta.nl:6: S <- S - rate * grad(0.5 * sum((S @ k - v)^2), S)
    product = ((x @ k[..., None]).squeeze(-1) - v)[..., None] * k[:, None]
    S = x - rate[..., None, None] * product
    # delta.nl:7: return S @ q
    y = (S @ q[..., None]).squeeze(-1)
    outputs = {"y": y}
    losses = {}
    probes = {".keep": keep.detach(), ".rate": rate.detach()}
    state = {"@tick": t, "S": S}
    return outputs, losses, probes, state
