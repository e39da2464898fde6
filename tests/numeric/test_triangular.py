"""What is said about zeros and needs is true of the numbers: entries said to be zero are, and those that nothing is
said to depend on may be any number without a change of a result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.ir.build import Builder
from nldsl.ir.program import Instr
from nldsl.ir.triangular import Triangles, needs, share, terms, zeros
from nldsl.ir.types import TIME, Type
from nldsl.passes.backward import backward
from tests.numeric.chunk_programs import PROGRAMS
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.test_backward import TICKS, Segment, loops
from tests.numeric.window_programs import WINDOWS

ALL = {**PROGRAMS, **WINDOWS, **MATRICES}
USUAL = ("gated delta", "KDA", "Householder", "momentum", "Titans, chunk reads", "self-modifying", "slow", "resets")


def outside(value: Tensor, rank: int, facts: Triangles) -> Tensor:
    """True where an entry is said to be zero, or not to be needed."""
    lead = value.dim() - rank
    found = torch.zeros(value.shape, dtype=torch.bool)
    for (row, column), slack in facts.items():
        places = []
        for dim in (row, column):
            shape = [1] * value.dim()
            shape[lead + dim] = -1
            places.append(torch.arange(value.shape[lead + dim]).reshape(shape))
        found = found | (places[1] > places[0] + slack)
    return found


def check(segment: Segment, body: tuple[Instr, ...], roots: list[int]) -> tuple[int, int]:
    """How many entries are known to be zero, and how many not to be needed."""
    zero = zeros(body)
    need = needs(body, roots, zero)
    exact, noisy = segment.evaluator(body), segment.evaluator(body)
    empty = idle = 0
    for value in sorted(need):
        rank = len(body[value].type.shape)
        found = exact(value).detach()
        known = outside(found, rank, zero[value])
        assert not found[known].any(), (value, body[value], zero[value])
        unused = outside(found, rank, need[value]) & ~known
        changed = noisy(value).detach().clone()
        if body[value].type.kind == "real":
            changed[unused] = torch.randn(changed.shape, generator=segment.gen, dtype=changed.dtype)[unused]
            noisy.known[value] = changed
        empty, idle = empty + int(known.sum()), idle + int(unused.sum())
    for root in roots:
        torch.testing.assert_close(noisy(root), exact(root).detach(), rtol=1e-9, atol=1e-9)
    return empty, idle


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in USUAL else pytest.mark.slow) for n in ALL])
def test_bodies(name: str) -> None:
    program = ALL[name]()
    for loop in loops(program):
        segment = Segment(program, loop, fires=True)
        found = [check(segment, loop.body, [v for _, v in (*loop.carry, *loop.outputs)])]
        back = backward(loop, program)
        if back is not None:
            found.append(check(segment, back.body, [v for _, v in (*back.carry, *back.outputs, *back.sums)]))
        if name == "gated delta":
            assert all(empty >= 60 and idle >= 60 for empty, idle in found), found


def test_most_tables_of_a_delta_rule_are_half_empty() -> None:
    program = PROGRAMS["gated delta"]()
    (loop,) = loops(program)
    zero = zeros(loop.body)
    need = needs(loop.body, [v for _, v in (*loop.carry, *loop.outputs)], zero)
    products = [
        v
        for v in need
        if loop.body[v].op == "einsum"
        and sum(s not in (3, 4) for a in loop.body[v].args for s in loop.body[a].type.shape)
    ]
    bounded = [v for v in products if terms(loop.body[v], zero, need[v])]
    assert len(bounded) >= 3
    assert all(share(terms(loop.body[v], zero, need[v])) == 0.5 for v in bounded)


def test_bounds_of_a_contraction() -> None:
    """(lower @ lower), of which what is below the diagonal is used: a sixth of the terms."""
    builder = Builder([TIME])
    decay = builder.leaf("given", Type((TICKS,)), value=0)
    table = builder.emit("segprod", decay, matrix=False)
    shifted = builder.emit(
        "pad", builder.emit("slice", table, dim=0, start=0, stop=TICKS - 1), dim=0, before=1, after=0
    )
    product = builder.emit("einsum", table, shifted, spec="ij,jk->ik")
    masked = builder.emit("mul", product, table)
    body = tuple(builder.instrs)
    zero = zeros(body)
    assert zero[table] == {(0, 1): 0} and zero[shifted] == {(0, 1): -1} and zero[product] == {(0, 1): -1}
    found = terms(body[product], zero, needs(body, [masked], zero)[product])
    assert found == {("i", "j"): 0, ("j", "k"): -1, ("i", "k"): -1}
    assert share(found) == pytest.approx(1 / 6)
