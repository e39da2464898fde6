"""Resets, compiled by nldsl.

Parameters:
    a_0 [3]

Inputs:
    x [batch, time, 3]

States:
    a [batch, 3]
    b [batch, 3]
    c [batch, 3]

Outputs:
    y [batch, time, 3]
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
    a_0 = params["a_0"]  # [3]
    B = batch
    a = a_0.expand(B, 3)
    b = torch.zeros((B, 3), dtype=dtype, device=device)
    # resets.nl:5: state c: [d] = 2 * a reset every 4 token
    x = 2.0 * a
    c = x
    return {"@tick": 0, "a": a, "b": b, "c": c}


def scan_a(t, a, b, c, x_all, a_0):
    """One tick after the other: a, b, c."""
    dtype = a.dtype
    device = a.device
    B = a.shape[0]
    if scan_lowers(a):
        return scan_wide(scan_a, t, a, b, c, x_all, a_0)
    a_1_all = []
    b_1_all = []
    c_1_all = []
    for x in x_all.unbind(1):
        t += 1
        # resets.nl:7: a <- 0.9 * a + x
        a = 0.9 * a + x
        # resets.nl:8: b <- b + a
        b = b + a
        # resets.nl:9: c <- c + b
        c = c + b
        a_1_all.append(a)
        b_1_all.append(b)
        c_1_all.append(c)
        if t % 3 == 0:
            b = torch.zeros((B, 3), dtype=dtype, device=device)
        if t % 4 == 0:
            # resets.nl:5: state c: [d] = 2 * a reset every 4 token
            x_1 = 2.0 * a
            c = x_1
    return a, b, c, torch.stack(a_1_all, 1), torch.stack(b_1_all, 1), torch.stack(c_1_all, 1)


def forward(params, inputs, state):
    """All ticks of a call: (outputs, losses, probes, state)."""
    a_0 = params["a_0"]  # [3]
    x = inputs["x"]  # [batch, time, 3]
    a = state["a"]  # [batch, 3]
    b = state["b"]  # [batch, 3]
    c = state["c"]  # [batch, 3]
    t = state["@tick"]
    T = x.shape[1]
    a, b, c, a_1, b_1, c_1 = scan_a(t, a, b, c, x, a_0)
    # resets.nl:10: return a + b * c
    y = a_1 + b_1 * c_1
    outputs = {"y": y}
    losses = {}
    probes = {}
    state = {"@tick": t + T, "a": a, "b": b, "c": c}
    return outputs, losses, probes, state


def step(params, inputs, state):
    """One tick: (outputs, losses, probes, state)."""
    a_0 = params["a_0"]  # [3]
    x = inputs["x"]  # [batch, 3]
    a = state["a"]  # [batch, 3]
    b = state["b"]  # [batch, 3]
    c = state["c"]  # [batch, 3]
    t = state["@tick"] + 1
    dtype = a_0.dtype
    device = a_0.device
    B = x.shape[0]
    # resets.nl:7: a <- 0.9 * a + x
    a = 0.9 * a + x
    # resets.nl:8: b <- b + a
    b = b + a
    # resets.nl:9: c <- c + b
    c = c + b
    # resets.nl:10: return a + b * c
    y = a + b * c
    outputs = {"y": y}
    losses = {}
    probes = {}
    if t % 3 == 0:
        b = torch.zeros((B, 3), dtype=dtype, device=device)
    if t % 4 == 0:
        # resets.nl:5: state c: [d] = 2 * a reset every 4 token
        x_1 = 2.0 * a
        c = x_1
    state = {"@tick": t, "a": a, "b": b, "c": c}
    return outputs, losses, probes, state
