"""Functions that emitted modules contain where a loop has a backward pass of its own (their source is copied)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

BACKWARD_IMPORTS = (
    "from collections.abc import Callable",
    "from contextlib import nullcontext",
    "from typing import Any",
    "",
)


def scan_derives(most: int, *tensors: torch.Tensor) -> bool:
    """Whether the backward pass of a loop is wanted: someone asks for gradients, the arguments have more than ``most``
    bytes, and nothing traces or transforms the code, which then is differentiated as it is written."""
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in tensors):
        return False
    if torch.compiler.is_compiling() or sum(x.nbytes for x in tensors) <= most:
        return False
    return not torch._C._are_functorch_transforms_active()


class ScanFunction(torch.autograd.Function):
    """A loop with its own backward pass. Kept are its arguments and the states at the beginning of each segment."""

    @staticmethod
    def forward(
        ctx: Any, run: Callable[..., Any], back: Callable[..., Any], head: tuple[int, ...], *tensors: torch.Tensor
    ) -> Any:
        results, starts = run(*head, *tensors)
        ctx.run, ctx.back, ctx.head, ctx.count = run, back, head, len(tensors)
        kind = tensors[0].device.type
        ctx.cast = None
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            ctx.cast = torch.get_autocast_dtype(kind)
        ctx.save_for_backward(*tensors, *(torch.stack(rows) for rows in starts))
        seen = list(tensors)
        given = []
        for result in results:  # each of its own, so that each has its own gradient
            given.append(result.clone() if any(result is x for x in seen) else result)
            seen.append(result)
        return tuple(given)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        saved = ctx.saved_tensors
        tensors, starts = saved[: ctx.count], saved[ctx.count :]
        kind = tensors[0].device.type
        with torch.autocast(kind, ctx.cast) if ctx.cast is not None else nullcontext():
            if not torch.is_grad_enabled():
                return None, None, None, *ctx.back(*ctx.head, *tensors, starts, *cotangents)
            # the gradient is to be differentiated again: through the loop as it is written
            wanted = [x for x in tensors if x.requires_grad]
            results = ctx.run(*ctx.head, *tensors)[0]
            pairs = [(y, d) for y, d in zip(results, cotangents, strict=True) if y.requires_grad]
            found = torch.autograd.grad(
                [y for y, _ in pairs], wanted, [d for _, d in pairs], create_graph=True, allow_unused=True
            )
            grads = iter(found)
            return None, None, None, *(next(grads) if x.requires_grad else None for x in tensors)


def scan_decay_gram_grad(d: torch.Tensor, q: torch.Tensor, a: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """[.., 3, T, K]: the cotangents of q, a and k where scan_decay_gram(q, a, k) has the cotangent d [.., T, T]."""
    shape = (q * k * a).shape
    q, a, k, d = q.expand(shape), a.expand(shape), k.expand(shape), d.expand(*shape[:-2], *d.shape[-2:])
    ticks, b = q.shape[-2], 1
    size = 1 << (ticks - 1).bit_length()
    if size > ticks:
        extra = size - ticks
        q, k = (torch.nn.functional.pad(x, (0, 0, 0, extra)) for x in (q, k))
        a = torch.nn.functional.pad(a, (0, 0, 0, extra), value=1.0)
        d = torch.nn.functional.pad(d, (0, extra, 0, extra))
    # up: the products of decays before, after and over each block, for blocks of 1, 2, 4, .. ticks
    before, after, whole = a.unsqueeze(-2), torch.ones_like(a).unsqueeze(-2), a.unsqueeze(-2)
    levels = []
    while b < size:
        levels.append((before, after, whole))
        pairs = size // (2 * b)
        before_left, before_right = torch.unflatten(before, -3, (pairs, 2)).unbind(-3)
        after_left, after_right = torch.unflatten(after, -3, (pairs, 2)).unbind(-3)
        whole_left, whole_right = torch.unflatten(whole, -3, (pairs, 2)).unbind(-3)
        before = torch.cat([before_left, whole_left * before_right], -2)
        after = torch.cat([after_left * whole_right, after_right], -2)
        whole = whole_left * whole_right
        b *= 2
    # down: what the block below the diagonal gives to its rows, its columns and the products
    d_q, d_k = torch.zeros_like(q), torch.zeros_like(k)
    d_before, d_after, d_whole = torch.zeros_like(before), torch.zeros_like(after), torch.zeros_like(whole)
    for before, after, whole in reversed(levels):
        b //= 2
        pairs = size // (2 * b)
        before_left, before_right = torch.unflatten(before, -3, (pairs, 2)).unbind(-3)
        after_left, after_right = torch.unflatten(after, -3, (pairs, 2)).unbind(-3)
        whole_left, whole_right = torch.unflatten(whole, -3, (pairs, 2)).unbind(-3)
        rows = torch.unflatten(q, -2, (pairs, 2, b)).select(-3, 1)
        columns = torch.unflatten(k, -2, (pairs, 2, b)).select(-3, 0)
        blocks = torch.unflatten(torch.unflatten(d, -1, (pairs, 2, b)), -4, (pairs, 2, b))
        below = blocks.select(-2, 0).select(-4, 1).diagonal(dim1=-4, dim2=-2).movedim(-1, -3)
        d_rows = below @ (columns * after_left)
        d_columns = below.mT @ (rows * before_right)
        torch.unflatten(d_q, -2, (pairs, 2, b)).select(-3, 1).add_(d_rows * before_right)
        torch.unflatten(d_k, -2, (pairs, 2, b)).select(-3, 0).add_(d_columns * after_left)
        left, right = torch.unflatten(d_before, -2, (2, b)).unbind(-3)
        d_before_right = right * whole_left + d_rows * rows
        d_whole_left = (right * before_right).sum(-2, keepdim=True) + d_whole * whole_right
        d_before = torch.stack([left, d_before_right], -3).flatten(-4, -3)
        left, right = torch.unflatten(d_after, -2, (2, b)).unbind(-3)
        d_after_left = left * whole_right + d_columns * columns
        d_whole_right = (left * after_left).sum(-2, keepdim=True) + d_whole * whole_left
        d_after = torch.stack([d_after_left, right], -3).flatten(-4, -3)
        d_whole = torch.stack([d_whole_left, d_whole_right], -3).flatten(-4, -3)
    own = torch.diagonal(d, dim1=-2, dim2=-1).unsqueeze(-1)
    d_a = (d_before + d_whole).squeeze(-2)
    return torch.stack([d_q + own * k, d_a, d_k + own * q], -3)[..., :ticks, :]


PIECES = (scan_derives, ScanFunction, scan_decay_gram_grad)


def backward_sources(text: str) -> list[str]:
    """The source of everything here that ``text`` calls."""
    return [inspect.getsource(piece) for piece in PIECES if re.search(rf"\b{piece.__name__}\b", text)]
