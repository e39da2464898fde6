"""What modules of IREE compute over the ticks of a segment, in segments of any length, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("iree.compiler")
pytest.importorskip("iree.runtime")

from nldsl.backends.iree.compiler import compile_text
from nldsl.backends.iree.decay_gram import decay_gram
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import REAL, Held, Node
from nldsl.backends.iree.products import cumprod, segprod
from nldsl.backends.iree.text import Text, tensor_type
from nldsl.backends.iree.triangular import solve_triangular

HEADS, WIDTH = 2, 3
Array = np.ndarray


def compiled(ops: list[Callable[..., Node]], inputs: list[Array], of: list[list[int]]) -> list[Array]:
    """The results of operations, as one function; the first dim of all that they read is a mapped axis."""
    import iree.runtime as rt

    text = Text()
    low = Lower(text, {"head": HEADS}, ("head",))
    nodes = []
    for n, x in enumerate(inputs):
        text.tensors[f"%a{n}"] = (x.shape, REAL)
        nodes.append(Held(("head",), x.shape[1:], REAL, f"%a{n}", x.shape, tuple(range(x.ndim))))
    values = [op(low, *(nodes[n] for n in own)) for op, own in zip(ops, of, strict=True)]
    results = [low.full(low.stretched(value, ("head",), value.shape)) for value in values]
    types = ", ".join(tensor_type(r.sizes, REAL) for r in results)
    takes = ", ".join(f"%a{n}: {tensor_type(x.shape, REAL)}" for n, x in enumerate(inputs))
    body = "\n".join([*text.head, *text.lines, f"return {', '.join(r.ssa for r in results)} : {types}"])
    called = "\n".join(text.functions.values())
    module = compile_text(f"module @ops {{\nfunc.func @all({takes}) -> ({types}) {{\n{body}\n}}\n{called}\n}}\n")
    config = rt.Config("local-sync")
    loaded = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, module), config)
    found = loaded["all"](*(x.astype(np.float32) for x in inputs))
    return [x.to_host() for x in (found if isinstance(found, tuple) else (found,))]


def products(a: Array) -> Array:
    """[H, T, ..] -> [H, T, T, ..], of the factors after s up to t."""
    n = a.shape[1]
    found = np.zeros((a.shape[0], n, *a.shape[1:]))
    for t in range(n):
        for s in range(t + 1):
            found[:, t, s] = a[:, s + 1 : t + 1].prod(1)
    return found


@pytest.mark.parametrize(
    "n", [5, 20, pytest.param(64, marks=pytest.mark.slow), pytest.param(33, marks=pytest.mark.slow)]
)
def test_over_the_ticks_of_a_segment(n: int) -> None:
    """Decays may be zero and negative; what stands above the diagonal of a system is not read."""
    rng = np.random.default_rng(n)
    decay = rng.uniform(0.7, 1.1, (HEADS, n)) * rng.choice([1.0, 1.0, 1.0, -1.0], (HEADS, n))
    decay[0, n // 2] = 0.0
    decays = rng.uniform(0.6, 1.0, (HEADS, n, WIDTH))
    decays[1, n // 3, 1] = 0.0
    q, k = rng.standard_normal((2, HEADS, n, WIDTH))
    matrix = 0.3 * rng.standard_normal((HEADS, n, n))
    right = rng.standard_normal((HEADS, n, WIDTH))
    lower = np.tril(matrix, -1) + np.eye(n)
    tables = products(decays)
    wanted = [
        products(decay), tables, np.cumprod(decays, 1), np.einsum("htc,htsc,hsc->hts", q, tables, k),
        np.linalg.solve(lower, right), np.linalg.solve(lower.swapaxes(1, 2), right),
        np.linalg.solve(lower, right[:, :, :1])[:, :, 0],
    ]  # fmt: skip
    ops: list[Callable[..., Node]] = [
        segprod, segprod, lambda low, a: cumprod(low, a, False, False), decay_gram,
        lambda low, m, r: solve_triangular(low, m, r, False), lambda low, m, r: solve_triangular(low, m, r, True),
        lambda low, m, r: solve_triangular(low, m, r, False),
    ]  # fmt: skip
    inputs = [decay, decays, q, k, matrix, right, right[:, :, 0].copy()]
    found = compiled(ops, inputs, [[0], [1], [1], [2, 1, 3], [4, 5], [4, 5], [4, 6]])
    for mine, exact in zip(found, wanted, strict=True):
        assert mine.shape == exact.shape
        assert np.abs(mine - exact).max() < 2e-5 * max(1.0, np.abs(exact).max())
