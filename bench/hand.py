"""Chunk forms as one writes them by hand in plain PyTorch: the yardstick for what the compiler emits.

All take [B, H, T, D] and T a multiple of the chunk. Each is measured as it is and under ``torch.compile``.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def linear_attention(q: Tensor, k: Tensor, v: Tensor, chunk: int = 64) -> Tensor:
    """Sums of outer products: all chunks at once, the states by a cumulative sum."""
    b, h, t, d = k.shape
    q, k, v = (x.reshape(b, h, t // chunk, chunk, -1) for x in (q * d**-0.5, k, v))
    states = (k.mT @ v).cumsum(2)
    before = torch.cat([torch.zeros_like(states[:, :, :1]), states[:, :, :-1]], 2)
    return (q @ before + (q @ k.mT).tril() @ v).reshape(b, h, t, -1)


def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, chunk: int = 64, part: int = 16
) -> Tensor:
    """A decay for each key channel. Parts of 16 ticks: products between them, exact sums inside one."""
    b, h, t, d = k.shape
    q, k, v, g = (x.reshape(b, h, t // chunk, chunk, -1) for x in (q * d**-0.5, k, v, log_keep))
    decay = g.cumsum(-2)
    last = decay[..., -1:, :]
    rows = []
    for start in range(0, chunk, part):
        own = slice(start, start + part)
        qi, ki, di = q[..., own, :], k[..., own, :], decay[..., own, :]
        ages = (di[..., :, None, :] - di[..., None, :, :]).clamp(max=0).exp()
        pieces = [(qi[..., :, None, :] * ki[..., None, :, :] * ages).sum(-1).tril()]
        if start:
            reference = di[..., :1, :]
            earlier = k[..., :start, :] * (reference - decay[..., :start, :]).exp()
            pieces.insert(0, (qi * (di - reference).exp()) @ earlier.mT)
        if start + part < chunk:
            pieces.append(q.new_zeros(*qi.shape[:-1], chunk - start - part))
        rows.append(torch.cat(pieces, -1))
    writes, kept = (k * (last - decay).exp()).mT @ v, last.mT.exp()
    state, states = torch.zeros_like(writes[:, :, 0]), []
    for i in range(t // chunk):
        states.append(state)
        state = state * kept[:, :, i] + writes[:, :, i]
    return ((q * decay.exp()) @ torch.stack(states, 2) + torch.cat(rows, -2) @ v).reshape(b, h, t, -1)


def gated_delta(q: Tensor, k: Tensor, v: Tensor, log_keep: Tensor, rate: Tensor, chunk: int = 64) -> Tensor:
    """The gated delta rule by a triangular solve (UT transform), then one loop over the chunks."""
    b, h, t, d = k.shape
    q, k, v = (x.reshape(b, h, t // chunk, chunk, -1) for x in (q * d**-0.5, k, v))
    rate = rate.reshape(b, h, t // chunk, chunk, 1)
    decay = log_keep.reshape(b, h, t // chunk, chunk).cumsum(-1)
    ages = (decay[..., :, None] - decay[..., None, :]).tril().exp().tril()
    written = k * rate
    system = torch.eye(chunk) + ((written @ k.mT) * ages).tril(-1)
    right = torch.cat([written * decay.exp()[..., None], v * rate], -1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    w, u = solved.split([d, v.shape[-1]], -1)
    scores, decayed = (q @ k.mT) * ages, q * decay.exp()[..., None]
    keys, kept = k * (decay[..., -1:] - decay).exp()[..., None], decay[..., -1].exp()[..., None, None]
    state, parts = q.new_zeros(b, h, d, v.shape[-1]), []
    for i in range(t // chunk):
        new = u[:, :, i] - w[:, :, i] @ state
        parts.append(decayed[:, :, i] @ state + scores[:, :, i] @ new)
        state = state * kept[:, :, i] + keys[:, :, i].mT @ new
    return torch.stack(parts, 2).reshape(b, h, t, -1)


def delta(q: Tensor, k: Tensor, v: Tensor, rate: Tensor, chunk: int = 64) -> Tensor:
    """The delta rule, without the decays of ``gated_delta``."""
    return gated_delta(q, k, v, torch.zeros_like(rate), rate, chunk)
