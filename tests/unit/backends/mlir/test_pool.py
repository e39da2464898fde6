"""Memory that calls keep is used again, and never while somebody holds it."""

from __future__ import annotations

import pytest
import torch

from nldsl.backends.mlir import pool as pools
from nldsl.backends.mlir.pool import SMALLEST, Pool

NUMBERS = SMALLEST // 4


def test_what_is_given_back_is_used_again() -> None:
    pool = Pool()
    first = pool.empty((2, NUMBERS), torch.float32)
    assert first.shape == (2, NUMBERS) and first.data_ptr() % 64 == 0
    place = first.data_ptr()
    part = first[1].view(-1)  # it lies in the block, too
    del first
    other = pool.empty((2, NUMBERS), torch.float32)
    assert other.data_ptr() != place
    part.fill_(3.0)
    other.fill_(4.0)
    assert part.eq(3.0).all()
    del part
    again = pool.empty((NUMBERS,), torch.float64)
    assert again.data_ptr() == place and again.dtype == torch.float64


def test_what_autograd_holds_is_not_given_back() -> None:
    pool = Pool()
    x = torch.ones(NUMBERS, requires_grad=True)
    held = pool.empty((NUMBERS,), torch.float32).fill_(2.0)
    y = x * held
    place = held.data_ptr()
    del held
    assert pool.empty((NUMBERS,), torch.float32).data_ptr() != place
    assert torch.autograd.grad(y.sum(), x)[0].eq(2.0).all()
    del y
    assert place in pool.free


def test_blocks_that_do_not_fit_and_too_many_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    large = pool.empty((8 * NUMBERS,), torch.float32)
    place = large.data_ptr()
    del large
    assert pool.empty((NUMBERS,), torch.float32).data_ptr() != place  # most of it would lie idle
    monkeypatch.setattr(pools, "MOST_FREE", 3 * SMALLEST)
    held = [pool.empty((NUMBERS,), torch.float32) for _ in range(6)]
    held.clear()
    assert sum(len(b) for b in pool.free.values()) <= 3 * SMALLEST
    assert pool.empty((3,), torch.float32).shape == (3,)
