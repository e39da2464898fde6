"""Functions that emitted modules contain where they need them (their source is copied): scans over a segment.

None divides by a product of decays or takes a logarithm, so factors of any sign and size, zero too, are exact to
rounding. ``dim`` counts from the end.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from nldsl.backends.torch.segment_matrix import scan_matrix_linear, scan_two_sided
from nldsl.backends.torch.segment_windows import scan_band, scan_unband


def scan_runs(
    t: int, T: int, most: int, clocks: tuple[tuple[int, int], ...], together: int = 128
) -> list[tuple[int, int]]:
    """Segments of the next T ticks after tick t, as (ticks, number of such segments in a row): at most ``most`` ticks,
    and an end at each tick that leaves ``rest`` when divided by ``period``, for (period, rest) in ``clocks``. No more
    than ``together`` in a row: what is done for all of them at once must not grow with the length of the sequence."""
    runs: list[tuple[int, int]] = []
    last = t + T
    while t < last:
        end = min(t + most, last)
        for period, rest in clocks:
            end = min(end, t + 1 + (rest - t - 1) % period)
        if runs and runs[-1][0] == end - t and runs[-1][1] < together:
            runs[-1] = (end - t, runs[-1][1] + 1)
        else:
            runs.append((end - t, 1))
        t = end
    return runs


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


def scan_cumprod(x: torch.Tensor, dim: int, reverse: bool, exclusive: bool) -> torch.Tensor:
    """Products of all entries up to each one; ``reverse``: from each one on; ``exclusive``: without itself."""
    if reverse:
        x = x.flip(dim)
    if exclusive:
        x = torch.cat(
            [torch.ones_like(x.narrow(dim, 0, min(1, x.shape[dim]))), x.narrow(dim, 0, max(0, x.shape[dim] - 1))], dim
        )
    x = x.cumprod(dim)
    return x.flip(dim) if reverse else x


def scan_products(x: torch.Tensor, dim: int) -> torch.Tensor:
    """[.., T, ..] -> [.., T, T, ..]: entry t, s is x[s+1] * .. * x[t], 0 for s > t."""
    n = x.shape[dim]
    tick = torch.arange(n, device=x.device)
    shape = (n, n) + (1,) * (-dim - 1)
    later = (tick[:, None] > tick).reshape(shape)
    table = torch.where(later, x.unsqueeze(dim), 1.0).cumprod(dim - 1)
    return torch.where((tick[:, None] >= tick).reshape(shape), table, 0.0)


def scan_matrix_products(x: torch.Tensor, dim: int) -> torch.Tensor:
    """[.., T, n, n, ..] -> [.., T, T, n, n, ..]: entry t, s is x[t] @ .. @ x[s+1], 0 for s > t; T is at ``dim``."""
    x = x.movedim((dim, dim + 1, dim + 2), (-3, -2, -1))
    ticks, n, b = x.shape[-3], x.shape[-1], 1
    unit = torch.eye(n, dtype=x.dtype, device=x.device)
    size = 1 << (ticks - 1).bit_length()
    if size > ticks:
        x = torch.cat([x, unit.expand(*x.shape[:-3], size - ticks, n, n)], -3)
    table = unit.expand(*x.shape[:-2], 1, 1, n, n)
    while b < size:
        first = torch.unflatten(x, -3, (size // (2 * b), 2 * b)).select(-3, b)
        halves = torch.unflatten(table, -5, (size // (2 * b), 2))
        left, right = halves.unbind(-5)
        into = torch.einsum("...tij,...jk->...tik", right.select(-3, 0), first)
        below = torch.einsum("...tij,...sjk->...tsik", into, left.select(-4, b - 1))
        above = torch.cat([left, torch.zeros_like(below)], -3)
        table = torch.cat([above, torch.cat([below, right], -3)], -4)
        b *= 2
    table = table.squeeze(-5)[..., :ticks, :ticks, :, :]
    return table.movedim((-4, -3, -2, -1), (dim - 1, dim, dim + 1, dim + 2))


def scan_decay_gram(q: torch.Tensor, a: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """[.., T, K] -> [.., T, T]: entry t, s is the sum over K of q[t] * a[s+1] * .. * a[t] * k[s], 0 for s > t."""
    ticks, b = q.shape[-2], 1
    size = 1 << (ticks - 1).bit_length()
    if size > ticks:
        q, k, a = (
            torch.nn.functional.pad(q, (0, 0, 0, size - ticks)),
            torch.nn.functional.pad(k, (0, 0, 0, size - ticks)),
            torch.nn.functional.pad(a, (0, 0, 0, size - ticks), value=1.0),
        )
    gram = (q * k).sum(-1)[..., None, None]
    before, after, whole = a.unsqueeze(-2), torch.ones_like(a).unsqueeze(-2), a.unsqueeze(-2)
    while b < size:
        pairs = size // (2 * b)
        q_right = torch.unflatten(q, -2, (pairs, 2, b)).select(-3, 1)
        k_left = torch.unflatten(k, -2, (pairs, 2, b)).select(-3, 0)
        before_left, before_right = torch.unflatten(before, -3, (pairs, 2)).unbind(-3)
        after_left, after_right = torch.unflatten(after, -3, (pairs, 2)).unbind(-3)
        whole_left, whole_right = torch.unflatten(whole, -3, (pairs, 2)).unbind(-3)
        below = (q_right * before_right) @ (k_left * after_left).mT
        left, right = torch.unflatten(gram, -3, (pairs, 2)).unbind(-3)
        gram = torch.cat([torch.nn.functional.pad(left, (0, b)), torch.cat([below, right], -1)], -2)
        before = torch.cat([before_left, whole_left * before_right], -2)
        after = torch.cat([after_left * whole_right, after_right], -2)
        whole = whole_left * whole_right
        b *= 2
    return gram.squeeze(-3)[..., :ticks, :ticks]


def scan_linear(a: torch.Tensor, b: torch.Tensor, dim: int) -> torch.Tensor:
    """x[t] = a[t] * x[t-1] + b[t] along ``dim``, from zero; blocks of ticks side by side, then the blocks in order."""
    ticks = b.shape[dim]
    rows: list[torch.Tensor] = []
    if ticks <= 4:
        for decay, new in zip(a.unbind(dim), b.unbind(dim), strict=True):
            rows.append(torch.addcmul(new, decay, rows[-1]) if rows else new)
        return torch.stack(rows, dim)
    block = 4
    count = -(-ticks // block)
    if count * block > ticks:
        pad = [0, 0] * (-dim - 1) + [0, count * block - ticks]
        a, b = torch.nn.functional.pad(a, pad, value=1.0), torch.nn.functional.pad(b, pad)
    a, b = torch.unflatten(a, dim, (count, block)), torch.unflatten(b, dim, (count, block))
    decays: list[torch.Tensor] = []
    rows = []
    for decay, new in zip(a.unbind(dim), b.unbind(dim), strict=True):
        rows.append(torch.addcmul(new, decay, rows[-1]) if rows else new)
        decays.append(decay * decays[-1] if decays else decay)
    ends = scan_linear(decays[-1], rows[-1], dim)
    start = torch.cat([torch.zeros_like(ends.narrow(dim, 0, 1)), ends.narrow(dim, 0, count - 1)], dim)
    rows = [torch.addcmul(row, decay, start) for row, decay in zip(rows, decays, strict=True)]
    return torch.stack(rows, dim).flatten(dim - 1, dim).narrow(dim, 0, ticks)


FUNCTIONS = (
    scan_runs,
    scan_lowers,
    scan_wide,
    scan_cumprod,
    scan_products,
    scan_matrix_products,
    scan_decay_gram,
    scan_linear,
    scan_band,
    scan_unband,
    scan_matrix_linear,
    scan_two_sided,
)


IMPORTS = (  # of what is copied
    "from collections.abc import Callable",
    "from contextlib import nullcontext",
    "from typing import Any",
    "",
)


def sources(text: str) -> list[str]:
    """The source of every function here that ``text`` calls."""
    called = [f for f in FUNCTIONS if re.search(rf"\b{f.__name__}\(", text)]
    return [inspect.getsource(f) for f in called]
