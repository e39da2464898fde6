"""Common factors of sums: what becomes of a body, and that its values stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from nldsl.ir.build import Builder
from nldsl.ir.types import BATCH, Clock, Type
from nldsl.passes.common_factors import factored
from tests.numeric.ir_torch import Evaluator

N = 3
Build = Callable[[Builder, list[int]], list[int]]


def einsum(b: Builder, spec: str, *args: int) -> int:
    return b.emit("einsum", *args, spec=spec)


def two_products(b: Builder, m: list[int]) -> list[int]:
    return [b.emit("sub", einsum(b, "ij,jk->ik", m[0], m[1]), einsum(b, "ac,cd->ad", m[2], m[1]))]


def other_side(b: Builder, m: list[int]) -> list[int]:
    return [b.emit("add", einsum(b, "ij,jk->ik", m[0], m[1]), einsum(b, "jk,ij->ik", m[2], m[0]))]


def long_sum(b: Builder, m: list[int]) -> list[int]:
    """-(A x) + B - (C x - D x), in which B has no partner."""
    first = b.emit("add", b.emit("neg", einsum(b, "ij,jk->ik", m[0], m[3])), m[1])
    second = b.emit("sub", einsum(b, "ij,jk->ik", m[1], m[3]), einsum(b, "ij,jk->ik", m[2], m[3]))
    return [b.emit("sub", first, second)]


def entries(b: Builder, m: list[int]) -> list[int]:
    return [b.emit("sub", b.emit("mul", m[0], m[1]), b.emit("mul", m[1], m[2]))]


def nested(b: Builder, m: list[int]) -> list[int]:
    """(t * G) x + (u * G) x: one product, and one product of entries."""
    left, right = b.emit("mul", m[0], m[2]), b.emit("mul", m[1], m[2])
    return [b.emit("add", einsum(b, "ij,jk->ik", left, m[3]), einsum(b, "ij,jk->ik", right, m[3]))]


def used_twice(b: Builder, m: list[int]) -> list[int]:
    product = einsum(b, "ij,jk->ik", m[0], m[1])
    return [b.emit("add", product, einsum(b, "ij,jk->ik", m[2], m[1])), product]


def transposed(b: Builder, m: list[int]) -> list[int]:
    return [b.emit("add", einsum(b, "ij,jk->ik", m[0], m[1]), einsum(b, "ji,jk->ik", m[2], m[1]))]


def guarded(b: Builder, m: list[int]) -> list[int]:
    b.guard = Clock(4)
    late = einsum(b, "ij,jk->ik", m[0], m[1])
    b.guard = None
    return [b.emit("add", late, einsum(b, "ij,jk->ik", m[2], m[1]))]


CASES: list[tuple[Build, str]] = [
    (two_products, "sub einsum"),
    (other_side, "add einsum"),
    (long_sum, "add sub einsum sub"),
    (entries, "sub mul"),
    (nested, "add mul einsum"),
    (used_twice, "einsum einsum add"),
    (transposed, "einsum einsum add"),
    (guarded, "einsum einsum add"),
]


@pytest.mark.parametrize(("build", "expected"), CASES, ids=lambda x: getattr(x, "__name__", ""))
def test_sums(build: Build, expected: str) -> None:
    builder = Builder([BATCH])
    leaves = [builder.leaf("given", Type((N, N), (BATCH,)), value=n) for n in range(4)]
    roots = build(builder, leaves)
    body, number = factored(tuple(builder.instrs), roots, [BATCH])
    torch.manual_seed(0)
    given = torch.randn(4, 2, N, N, dtype=torch.float64)
    before, after = (
        Evaluator(instrs, lambda i: given[i.attr("value")], lambda _: True) for instrs in (tuple(builder.instrs), body)
    )
    for root in roots:
        torch.testing.assert_close(after(number[root]), before(root), rtol=1e-12, atol=1e-12)
    assert sorted(i.op for i in body if i.args) == sorted(expected.split())


def test_values_that_are_stretched_stay_apart() -> None:
    """A part of another shape than the sum is left alone."""
    builder = Builder([BATCH])
    column = builder.leaf("given", Type((N, 1), (BATCH,)), value=0)
    x, y = (builder.leaf("given", Type((N, N), (BATCH,)), value=n) for n in (1, 2))
    small = builder.emit("add", builder.emit("mul", column, column), builder.emit("mul", column, builder.const(2.0)))
    root = builder.emit(
        "add", builder.emit("add", builder.emit("mul", x, column), small), builder.emit("mul", y, column)
    )
    body, number = factored(tuple(builder.instrs), [root], [BATCH])
    assert sum(i.op == "mul" for i in body) == 3
    torch.manual_seed(0)
    given = [torch.randn(2, N, 1 if n == 0 else N, dtype=torch.float64) for n in range(3)]
    before, after = (
        Evaluator(instrs, lambda i: given[i.attr("value")], lambda _: True) for instrs in (tuple(builder.instrs), body)
    )
    torch.testing.assert_close(after(number[root]), before(root), rtol=1e-12, atol=1e-12)
