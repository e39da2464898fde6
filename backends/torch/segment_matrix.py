"""Functions that emitted modules contain where they need them (their source is copied): matrices over a segment."""

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


def scan_two_sided(a: torch.Tensor, w: torch.Tensor, b: torch.Tensor, reverse: bool) -> torch.Tensor:
    """x[t] = a[t] @ x[t-1] @ b[t] + w[t] for a: [.., T, n, n], w: [.., T, n, m], b: [.., T, m, m]; as above."""
    if reverse:
        return scan_two_sided(a.flip(-3), w.flip(-3), b.flip(-3), False).flip(-3)
    ticks = w.shape[-3]
    if ticks == 1:
        return w + torch.zeros_like(a[..., :1]) + torch.zeros_like(b[..., :1, :])
    pairs = ticks // 2
    a_first, a_second = a[..., 0 : 2 * pairs : 2, :, :], a[..., 1 : 2 * pairs : 2, :, :]
    b_first, b_second = b[..., 0 : 2 * pairs : 2, :, :], b[..., 1 : 2 * pairs : 2, :, :]
    early, late = w[..., 0 : 2 * pairs : 2, :, :], w[..., 1 : 2 * pairs : 2, :, :]
    ends = scan_two_sided(a_second @ a_first, a_second @ early @ b_second + late, b_first @ b_second, False)
    start = torch.cat([torch.zeros_like(ends[..., :1, :, :]), ends[..., : pairs - 1, :, :]], -3)
    found = torch.stack([a_first @ start @ b_first + early, ends], -3).flatten(-4, -3)
    if ticks > 2 * pairs:
        last = a[..., -1:, :, :] @ found[..., -1:, :, :] @ b[..., -1:, :, :] + w[..., -1:, :, :]
        found = torch.cat([found, last], -3)
    return found
