"""Sums over ticks as scans: the same numbers, also where decays are zero."""

from __future__ import annotations

import pytest
import torch

from nldsl.ir.build import Builder
from nldsl.ir.program import Instr
from nldsl.ir.types import BATCH, Type
from nldsl.passes.simplify import simplify_body
from nldsl.passes.simplify_scans import SCAN_RULES
from tests.numeric.ir_torch import Evaluator

T, N = 5, 3


def bodies(spec: str, *shape: int, table_first: bool = True) -> tuple[tuple[Instr, ...], int, tuple[Instr, ...], int]:
    builder = Builder([BATCH])
    decay = builder.leaf("given", Type((T,), (BATCH,)), value=0)
    x = builder.leaf("given", Type(shape, (BATCH,)), value=1)
    table = builder.emit("segprod", decay, matrix=False)
    root = builder.emit("einsum", *((table, x) if table_first else (x, table)), spec=spec)
    after, number = simplify_body(tuple(builder.instrs), [root], [BATCH], {}, more=SCAN_RULES)
    return tuple(builder.instrs), root, after, number[root]


@pytest.mark.parametrize(
    ("spec", "shape", "first"),
    [
        ("ij,jk->ik", (T, N), True),
        ("ij,ik->jk", (T, N), True),
        ("jk,ij->ik", (T, N), False),
        ("ij,ikl->jkl", (T, N, T), True),
    ],
)
def test_a_sum_over_ticks_is_a_scan(spec: str, shape: tuple[int, ...], first: bool) -> None:
    before, root, after, new = bodies(spec, *shape, table_first=first)
    assert not any(i.op in ("einsum", "segprod") for i in after)
    torch.manual_seed(0)
    given = {0: torch.rand(2, T, dtype=torch.float64), 1: torch.randn(2, *shape, dtype=torch.float64)}
    given[0][0, 2] = 0.0

    def value(body: tuple[Instr, ...], at: int) -> torch.Tensor:
        return Evaluator(body, lambda i: given[i.attr("value")], lambda _: False, T)(at)

    torch.testing.assert_close(value(after, new), value(before, root), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("spec", "shape"), [("ij,j->i", (T,)), ("ij,ij->i", (T, T)), ("ij,kj->ik", (N, T))])
def test_other_sums_stay(spec: str, shape: tuple[int, ...]) -> None:
    """Of vectors, of entries of the table itself, and where the ticks of x are not its first dim."""
    _, _, after, _ = bodies(spec, *shape)
    assert not any(i.op == "linear_scan" for i in after)
