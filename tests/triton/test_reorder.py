"""Products of three matrices in another order: the same numbers, with fewer products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from nldsl.backends.triton.reorder import reordered
from nldsl.ir.program import Instr
from nldsl.ir.types import Type

Array = np.ndarray[Any, Any]


@dataclass
class Body:
    """A body and its leaves, as numbers."""

    instrs: list[Instr] = field(default_factory=list)
    leaves: dict[int, Array] = field(default_factory=dict)

    def leaf(self, *shape: int, op: str = "given") -> int:
        value = len(self.instrs)
        self.instrs.append(Instr(op, (), ((op, value),), Type(shape, ())))
        self.leaves[value] = np.random.default_rng(value).normal(size=shape)
        return value

    def add(self, op: str, *args: int, **attrs: Any) -> int:
        found = _apply(op, attrs, [np.zeros([int(str(s)) for s in self.instrs[a].type.shape]) for a in args])
        self.instrs.append(Instr(op, args, tuple(attrs.items()), Type(tuple(found.shape), ())))
        return len(self.instrs) - 1

    def product(self, spec: str, *args: int) -> int:
        return self.add("einsum", *args, spec=spec)


def _apply(op: str, attrs: dict[str, Any], args: list[Array]) -> Array:
    if op == "einsum":
        return np.asarray(np.einsum(attrs["spec"], *args))
    if op == "sum":
        return np.asarray(args[0].sum(axis=tuple(attrs["dims"])))
    if op == "reshape":
        return np.reshape(args[0], attrs["shape"])
    return np.asarray({"mul": np.multiply, "add": np.add, "sub": np.subtract, "neg": np.negative}[op](*args))


def values(instrs: Sequence[Instr], leaves: dict[int, Array], roots: Sequence[int]) -> list[Array]:
    """The roots; a leaf of a new body knows its place in the old one."""
    found: list[Array] = []
    for instr in instrs:
        attrs = dict(instr.attrs)
        found.append(_apply(instr.op, attrs, [found[a] for a in instr.args]) if instr.args else leaves[attrs[instr.op]])
        assert found[-1].shape == tuple(instr.type.shape)
    return [found[r] for r in roots]


def products(instrs: Sequence[Instr], roots: Sequence[int]) -> int:
    stack, seen = list(roots), set[int]()
    while stack:
        value = stack.pop()
        if value not in seen:
            seen.add(value)
            stack += instrs[value].args
    return sum(instrs[v].op == "einsum" for v in seen)


def check(body: Body, results: list[int], fewer: int, carry: Sequence[int] = ()) -> None:
    instrs, where = reordered(body.instrs, carry, results, ("cotangent",), ())
    roots = [*results, *carry]
    for old, new in zip(
        values(body.instrs, body.leaves, roots), values(instrs, body.leaves, [where[r] for r in roots]), strict=True
    ):
        np.testing.assert_allclose(new, old, rtol=1e-10, atol=1e-12)
    after = [where[r] for r in results]
    assert products(instrs, after) == products(body.instrs, results) - fewer


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_sum_over_a_product_and_a_third_matrix(dim: int, scaled: bool) -> None:
    body = Body()
    x, y, z = body.leaf(4, 5), body.leaf(4, 6), body.leaf(6, 5)
    rows, columns, inner = body.leaf(4, 1), body.leaf(5), body.leaf(1, 6)
    left = body.add("mul", x, rows) if scaled else x
    if dim == 0:  # over the rows: (X' Y) is there
        known = body.product("ij,ik->kj", body.add("mul", x, columns) if scaled else x, y)
    else:
        known = body.product("ij,kj->ik", body.add("neg", left), z)
    scale = (body.add("mul", y, inner), body.add("mul", z, columns) if dim == 0 else z) if scaled else (y, z)
    product = body.product("ij,jk->ik", *scale)
    both = body.add("mul", product, x if dim == 0 else left)
    check(body, [known, body.add("sum", both, dims=(dim,))], 1)


def test_a_product_that_is_needed_anyway_stays() -> None:
    body = Body()
    x, y, z = body.leaf(4, 5), body.leaf(4, 6), body.leaf(6, 5)
    known = body.product("ij,kj->ik", x, z)
    product = body.product("ij,jk->ik", y, z)
    check(body, [known, product, body.add("sum", body.add("mul", product, x), dims=(1,))], 0)


def test_what_the_loop_has_is_not_kept_for_later() -> None:
    """The loop over segments needs Y Z; what comes after it has X Z' and needs no more of the loop."""
    body = Body()
    x, y, z = body.leaf(4, 5), body.leaf(4, 6), body.leaf(6, 5, op="cotangent")
    known = body.product("ij,kj->ik", x, z)
    product = body.product("ij,jk->ik", y, z)
    total = body.add("sum", body.add("mul", product, x), dims=(1,))
    check(body, [known, total], 1, carry=[product])


def test_a_product_of_products() -> None:
    body = Body()
    a, b, c = body.leaf(4, 4), body.leaf(4, 6), body.leaf(5, 6)
    known = body.product("ts,sc->tc", a, b)
    check(body, [known, body.product("ts,sc->tc", a, body.product("ij,kj->ik", b, c))], 1)


def test_products_with_a_common_factor() -> None:
    """The way back of a system with two right sides, of which the second is multiplied by a matrix later."""
    body = Body()
    inverse, v, k, m, d = body.leaf(4, 4), body.leaf(4, 5), body.leaf(4, 6), body.leaf(5, 6), body.leaf(4, 5)
    one, two = body.product("ts,sc->tc", inverse, v), body.product("ts,sc->tc", inverse, k)
    new = body.add("add", one, body.product("ij,kj->ik", two, m))
    back = body.product("st,sc->tc", inverse, d)
    further = body.product("st,sc->tc", inverse, body.product("ij,jk->ik", d, m))
    system = body.add("add", body.product("ij,kj->ik", back, one), body.product("ij,kj->ik", further, two))
    check(body, [new, back, further, system], 2)


def test_a_matrix_with_itself() -> None:
    body = Body()
    x, y = body.leaf(4, 4), body.leaf(4, 4)
    gram, product = body.product("ij,kj->ik", x, x), body.product("ij,jk->ik", y, x)
    check(body, [gram, body.add("sum", body.add("mul", product, x), dims=(1,))], 0)
