"""Work, compiled by nldsl.

Inputs:
    x [batch, time, 4]
    v [batch, time, 4]

States:
    S [batch, 4, 4]
    P [batch, 4, 4]

Outputs:
    y [batch, time, 4]
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
    S = torch.zeros((B, 4, 4), dtype=dtype, device=device)
    x = torch.arange(1, device=device)
    # slow block with much work.nl:4: state P: [d, d] = identity(1)
    x_1 = (x.unsqueeze(-2) == x).to(dtype).expand(4, 4)
    P = x_1.expand(B, 4, 4)
    return {"@tick": 0, "S": S, "P": P}


def scan_S(S, product_all):
    """One tick after the other: S."""
    if scan_lowers(S):
        return scan_wide(scan_S, S, product_all)
    S_1_all = []
    for product in product_all.unbind(1):
        # slow block with much work.nl:6: S <- S + outer(v, x)
        S = S + product
        S_1_all.append(S)
    return S, torch.stack(S_1_all, 1)


def scan_P(t, P, S_1_all):
    """One tick after the other: P."""
    if scan_lowers(P):
        return scan_wide(scan_P, t, P, S_1_all)
    P_1_all = []
    for S_1 in S_1_all.unbind(1):
        t += 1
        if t % 4 == 0:
            # slow block with much work.nl:8: y = 0.1 * last of S
            y = 0.1 * S_1
            # slow block with much work.nl:9: iterate 3 { y = 1.5 * y - 0.5 * y @ y' @ y }
            y_1 = 0.15000000000000002 * S_1 - 0.5 * ((y @ y.mT) @ y)
            y_2 = 1.5 * y_1 - 0.5 * ((y_1 @ y_1.mT) @ y_1)
            y_3 = 1.5 * y_2 - 0.5 * ((y_2 @ y_2.mT) @ y_2)
            P = 0.5 * P + y_3
        P_1_all.append(P)
    return P, torch.stack(P_1_all, 1)


def forward(params, inputs, state):
    """All ticks of a call: (outputs, losses, probes, state)."""
    x = inputs["x"]  # [batch, time, 4]
    v = inputs["v"]  # [batch, time, 4]
    S = state["S"]  # [batch, 4, 4]
    P = state["P"]  # [batch, 4, 4]
    t = state["@tick"]
    T = x.shape[1]
    # slow block with much work.nl:6: S <- S + outer(v, x)
    product = v[..., None] * x[:, :, None]
    S, S_1 = scan_S(S, product)
    P, P_1 = scan_P(t, P, S_1)
    # slow block with much work.nl:12: return P @ x
    y = (P_1 @ x[..., None]).squeeze(-1)
    outputs = {"y": y}
    losses = {}
    probes = {}
    state = {"@tick": t + T, "S": S, "P": P}
    return outputs, losses, probes, state


def step(params, inputs, state):
    """One tick: (outputs, losses, probes, state)."""
    x = inputs["x"]  # [batch, 4]
    v = inputs["v"]  # [batch, 4]
    S = state["S"]  # [batch, 4, 4]
    P = state["P"]  # [batch, 4, 4]
    t = state["@tick"] + 1
    # slow block with much work.nl:6: S <- S + outer(v, x)
    S = S + v[..., None] * x[:, None]
    if t % 4 == 0:
        # slow block with much work.nl:8: y = 0.1 * last of S
        y = 0.1 * S
        # slow block with much work.nl:9: iterate 3 { y = 1.5 * y - 0.5 * y @ y' @ y }
        y_1 = 0.15000000000000002 * S - 0.5 * ((y @ y.mT) @ y)
        y_2 = 1.5 * y_1 - 0.5 * ((y_1 @ y_1.mT) @ y_1)
        y_3 = 1.5 * y_2 - 0.5 * ((y_2 @ y_2.mT) @ y_2)
        P = 0.5 * P + y_3
    # slow block with much work.nl:12: return P @ x
    y_4 = (P @ x[..., None]).squeeze(-1)
    outputs = {"y": y_4}
    losses = {}
    probes = {}
    state = {"@tick": t, "S": S, "P": P}
    return outputs, losses, probes, state
