"""The inverse of unit lower triangular matrices, against that of PyTorch: one block of 16, few and many, stacks."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from nldsl.backends.triton.library import joined_inverses, small_inverses, times, triangular_inverse

assert joined_inverses and small_inverses and times  # what the interpreter calls by name


@triton.jit
def inverses(a_ptr, b_ptr, Z: tl.constexpr, N: tl.constexpr, LEVELS: tl.constexpr):  # type: ignore[no-untyped-def]
    z, i = tl.arange(0, Z), tl.arange(0, N)
    at = z[:, None, None] * N * N + i[None, :, None] * N + i[None, None, :]
    tl.store(b_ptr + at, triangular_inverse(tl.load(a_ptr + at), Z, N, LEVELS, tl.float64, "ieee"))


@pytest.mark.parametrize(("count", "size"), [(1, 16), (1, 32), (2, 32), (1, 64), (2, 64), (1, 128)])
def test_inverses_of_triangular_matrices(count: int, size: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(count, size, size, dtype=torch.float64) * 0.3  # diagonal and upper part are not read
    found = torch.empty_like(matrix)
    inverses[(1,)](matrix, found, Z=count, N=size, LEVELS=size.bit_length() - 1)
    exact = torch.linalg.inv(matrix.tril(-1) + torch.eye(size, dtype=torch.float64))
    assert (found - exact).abs().max() / exact.abs().max() < 1e-12
