"""A function that emitted modules contain where they need it (its source is copied): full matrices over a segment."""

from __future__ import annotations

import torch


def scan_matrix_linear(a: torch.Tensor, b: torch.Tensor, reverse: bool) -> torch.Tensor:
    """x[t] = a[t] @ x[t-1] + b[t] for a: [.., T, n, n], b: [.., T, n, m], from zero; ``reverse``: from the end.

    Pairs of ticks are joined, the recurrence of the pairs is solved in the same way, the ticks between follow.
    """
    if reverse:
        return scan_matrix_linear(a.flip(-3), b.flip(-3), False).flip(-3)
    ticks = b.shape[-3]
    if ticks == 1:
        return b + torch.zeros_like(a[..., :1])
    pairs = ticks // 2
    first, second = a[..., 0 : 2 * pairs : 2, :, :], a[..., 1 : 2 * pairs : 2, :, :]
    early, late = b[..., 0 : 2 * pairs : 2, :, :], b[..., 1 : 2 * pairs : 2, :, :]
    ends = scan_matrix_linear(second @ first, second @ early + late, False)
    start = torch.cat([torch.zeros_like(ends[..., :1, :, :]), ends[..., : pairs - 1, :, :]], -3)
    between = first @ start + early
    found = torch.stack([between, ends], -3).flatten(-4, -3)
    if ticks > 2 * pairs:
        last = a[..., -1:, :, :] @ found[..., -1:, :, :] + b[..., -1:, :, :]
        found = torch.cat([found, last], -3)
    return found
