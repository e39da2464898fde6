"""Functions that emitted modules contain where they need them (their source is copied): windows over a segment.

Ticks are at ``dim`` (counted from the end), windows or the ticks they see right behind it.
"""

from __future__ import annotations

import torch


def scan_band(x: torch.Tensor, n: int, dim: int) -> torch.Tensor:
    """[.., T, T + n - 1, ..] -> [.., T, n, ..]: entry t, i is x[t, t + i]."""
    x = x.movedim((dim, dim + 1), (-2, -1))
    ticks, seen = x.shape[-2:]
    flat = torch.nn.functional.pad(x.flatten(-2), (0, ticks))
    return torch.unflatten(flat, -1, (ticks, seen + 1))[..., :n].movedim((-2, -1), (dim, dim + 1))


def scan_unband(x: torch.Tensor, dim: int) -> torch.Tensor:
    """[.., T, n, ..] -> [.., T, T + n - 1, ..]: entry t, t + i is x[t, i], the others are 0."""
    x = x.movedim((dim, dim + 1), (-2, -1))
    ticks, n = x.shape[-2:]
    seen = ticks + n - 1
    flat = torch.nn.functional.pad(x, (0, ticks)).flatten(-2).narrow(-1, 0, ticks * seen)
    return torch.unflatten(flat, -1, (ticks, seen)).movedim((-2, -1), (dim, dim + 1))
