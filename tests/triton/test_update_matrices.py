"""Updates with products of matrices, sums over rows and columns, against the reference interpreter and torch.optim."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from nldsl.backends.triton import update_schedule
from nldsl.backends.triton.update_matrix import write_matrices
from nldsl.passes.derive import Derive
from nldsl.passes.simplify import Simplify
from nldsl.runtime.optimizer import MemoryOptimizer
from nldsl.runtime.optimizer_matrices import KernelMatrixBatch
from tests.triton.test_updates import compare, launches, train
from tests.triton.update_rules import rule_of

SHAPES: list[tuple[int, ...]] = [(5, 5), (3, 20), (40, 33), (5, 5), (1, 4)]
RULES = {
    "Muon(steps = 2)": "muon",
    'AdaMuon(steps = 1, scale = "none")': "muon",
    "M3(steps = 1, period = 2)": "m3",
    "Shampoo(steps = 1)": "shampoo",
    "DeltaMomentum(rate = 0.01)": "delta",
    "Factored()": "",
    "Twisted()": "",
    "Patient()": "",
    "Circle()": "",
}


@pytest.mark.parametrize("call", RULES)
def test_like_the_reference_parameter_by_parameter(call: str) -> None:
    """Tiles of 32 here: (40, 33) has four, of which one is a copy where the result is symmetric."""
    optimizer, wanted = train(rule_of(call, RULES[call]), SHAPES, torch.float64, 2)
    assert all(type(b) is KernelMatrixBatch for b in optimizer._batches[0])
    compare(optimizer, wanted, 1e-10, 1e-11)


@pytest.mark.parametrize(
    ("call", "shapes"),
    [("Filters()", [(4, 3, 2, 2), (33, 2, 3, 3), (4, 3, 2, 2), (6, 5, 1, 1)]), ("LastDim()", [(3, 5, 4), (2, 1, 7)])],
)
def test_dims_that_are_treated_alike(call: str, shapes: list[tuple[int, ...]]) -> None:
    """Filters of convolutions and stacks of matrices, in double and in single precision."""
    optimizer, wanted = train(rule_of(call), shapes, torch.float64, 3)
    assert all(type(b) is KernelMatrixBatch for b in optimizer._batches[0])
    compare(optimizer, wanted, 1e-10, 1e-11)
    compare(*train(rule_of(call), shapes, torch.float32, 2), 1e-5, 2e-6)


def test_a_dim_in_the_middle_keeps_the_form_of_pytorch() -> None:
    with pytest.warns(UserWarning, match="has no kernels: values of more than two dims"):
        optimizer, wanted = train(rule_of("Middle()"), [(3, 4, 5)], torch.float64, 2)
    compare(optimizer, wanted, 1e-10, 1e-11)


def test_on_the_device_and_in_single_precision() -> None:
    optimizer, wanted = train(
        rule_of("M3(steps = 1, period = 2)", "m3"), SHAPES[1:3], torch.float64, 3, capturable=True
    )
    compare(optimizer, wanted, 1e-10, 1e-11)
    optimizer, wanted = train(rule_of("Muon(steps = 2)", "muon"), [(5, 12), (70, 66)], torch.float32, 2)
    compare(optimizer, wanted, 1e-5, 2e-6)


def test_half_precision_is_as_exact_as_that_of_pytorch() -> None:
    """Weights in bfloat16: the error of the change, relative to float64, with kernels and with PyTorch's operations."""
    rule, errors = rule_of("Muon(rate = 1.0, decay = 0.0)", "muon"), []
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(48, 80, generator=generator).bfloat16()
    exact = torch.nn.Parameter(torch.zeros(48, 80, dtype=torch.float64))
    exact.grad = gradient.double()
    MemoryOptimizer([exact], rule).step()
    for backend in ("triton", "torch"):
        p = torch.nn.Parameter(torch.zeros(48, 80, dtype=torch.bfloat16))
        p.grad = gradient.clone()
        optimizer = MemoryOptimizer([p], rule, backend=backend)
        optimizer.step()
        errors.append(float((p.detach().double() - exact.detach()).norm() / exact.detach().norm()))
        if backend == "triton":
            assert optimizer.state[p]["optimizer.m"].dtype == torch.float32
    assert errors[0] < 2e-2
    assert errors[0] <= 1.2 * errors[1]


def test_beside_muon_of_torch() -> None:
    """PyTorch's Newton-Schulz is in bfloat16, ours here in float32."""
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in [(20, 30), (30, 20), (20, 30)]]
    others = copy.deepcopy(params)
    ours = MemoryOptimizer(params, rule_of("Muon(rate = 0.1)", "muon"), backend="triton")
    theirs = torch.optim.Muon(others, lr=0.1)
    for _ in range(2):
        for p, o in zip(params, others, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            o.grad = p.grad.clone()
        ours.step()
        theirs.step()  # type: ignore[no-untyped-call]
    for p, o in zip(params, others, strict=True):
        torch.testing.assert_close(p.detach(), o.detach(), rtol=0, atol=3e-3)


def test_launches_of_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for the momentum and its norm, three for each step; the last one also changes the weights."""
    optimizer, _ = train(rule_of("Muon()", "muon"), [(8, 6), (8, 6)], torch.float32, 1)
    assert len(launches(optimizer, monkeypatch)) == 16
    assert len(set(launches(optimizer, monkeypatch))) == 7  # kernels
    matrices_and_vectors, _ = train(rule_of("Muon(steps = 1)", "muon"), [(8, 6), (8,), (3,), ()], torch.float32, 1)
    assert launches(matrices_and_vectors, monkeypatch)[-1] == "optimizer_update"
    assert len(launches(matrices_and_vectors, monkeypatch)) == 5


def test_kernels_of_a_slow_clock_run_when_it_fires(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, _ = train(rule_of("Patient()"), [(6, 8)], torch.float64, 1)
    assert [len(launches(optimizer, monkeypatch)) for _ in range(3)] == [5, 1, 5]


def test_long_sums_are_finished_by_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_schedule, "INLINE_PARTS", 0)
    for call in ("Factored()", "Twisted()"):
        optimizer, wanted = train(rule_of(call), [(40, 130)], torch.float64, 2)
        (batch,) = optimizer._batches[0]
        assert isinstance(batch, KernelMatrixBatch)
        assert len(batch.kernels.calls) >= 7
        compare(optimizer, wanted, 1e-10, 1e-11)


def test_copies_in_a_parameter_are_lanes() -> None:
    rule, generator = rule_of("Muon(steps = 1)", "muon"), torch.Generator().manual_seed(3)
    start = torch.randn(2, 3, 4, 6, generator=generator, dtype=torch.float64)
    stacked = torch.nn.Parameter(start.clone())
    alone = [torch.nn.Parameter(x.clone()) for x in start.reshape(6, 4, 6)]
    gradient = torch.randn(start.shape, generator=generator, dtype=torch.float64)
    stacked.grad = gradient.clone()
    for p, g in zip(alone, gradient.reshape(6, 4, 6), strict=True):
        p.grad = g.T.contiguous().T  # in another layout
    first = MemoryOptimizer([stacked], rule, lanes={stacked: 2}, backend="triton")
    second = MemoryOptimizer(alone, rule, backend="triton")
    first.step()
    second.step()
    assert torch.equal(stacked.detach().reshape(6, 4, 6), torch.stack([p.detach() for p in alone]))
    assert first.state[stacked]["optimizer.m"].shape == start.shape


def test_resumed_in_the_middle_is_exact() -> None:
    rule, generator = rule_of("M3(steps = 1, period = 2)", "m3"), torch.Generator().manual_seed(2)
    params = [torch.nn.Parameter(torch.randn(4, 6, generator=generator).bfloat16()) for _ in range(2)]
    gradients = [[torch.randn(4, 6, generator=generator).bfloat16() for _ in params] for _ in range(4)]

    def steps(members: list[torch.nn.Parameter], optimizer: MemoryOptimizer, ticks: range) -> None:
        for tick in ticks:
            for p, g in zip(members, gradients[tick], strict=True):
                p.grad = g.clone()
            optimizer.step()

    whole = copy.deepcopy(params)
    steps(whole, MemoryOptimizer(whole, rule, backend="triton"), range(4))
    first = MemoryOptimizer(params, rule, backend="triton")
    steps(params, first, range(1))
    second = MemoryOptimizer(params, rule, backend="triton")
    second.load_state_dict(first.state_dict())
    steps(params, second, range(1, 4))
    for a, b in zip(whole, params, strict=True):
        assert torch.equal(a, b)


REFUSED = {
    "learn(g: [a, b]) -> [a, b] { return -g / (1 + cumsum(g)) }": "`cumsum` of matrices",
    "learn(g: [a, b, c]) -> [a, b, c] { return -g / (1 + max(sum(g, axis = 1)^2)) }": "values of more than two dims",
    "learn(g: [a, b, c]) -> [a, b, c] {\n r = sum(g, axis = 2)\n return -g * sum(r @ r') }": "values of more than two",
}


@pytest.mark.parametrize("body", REFUSED)
def test_what_has_no_kernels_keeps_the_form_of_pytorch(body: str) -> None:
    from nldsl.api import load_program

    text = f"memory Odd() {{\n{body}\n}}\nmodel R() {{\nlevel outer = every 1 step\ninput x: [2]\n"
    text += "param w: [2] = normal(1.0)\nminimize sum((w - x)^2) at outer with Odd()\n}"
    rule: Any = load_program("rule", text=text).levels[0].optimizer
    p = torch.nn.Parameter(torch.ones(2, 3, 4)[: 2 if "c" in body.partition(")")[0] else 1].squeeze(0))
    other = torch.nn.Parameter(p.detach().clone())
    p.grad, other.grad = torch.ones_like(p), torch.ones_like(p)
    with pytest.warns(UserWarning, match=f"the update of `Odd` has no kernels: {REFUSED[body]}"):
        MemoryOptimizer([p], rule, backend="triton").step()
    MemoryOptimizer([other], rule).step()
    assert torch.equal(p, other)


def test_symmetric_results_are_computed_once() -> None:
    """Gram matrices, squares of symmetric ones, and states that begin and remain symmetric."""
    program = Simplify().apply(Derive().apply(rule_of("Muon(steps = 1)", "muon")((300, 400))))
    assert write_matrices(program).source.count("a copy of the tile below the diagonal") == 2
    program = Simplify().apply(Derive().apply(rule_of("Twisted()")((300, 400))))
    assert write_matrices(program).source.count("a copy of the tile below the diagonal") == 1  # L


def test_numbers_of_the_text_are_those_of_the_reference() -> None:
    """A matrix of one entry, of one row, of one column."""
    for call in ("Shampoo(steps = 1)", "Factored()"):
        optimizer, wanted = train(
            rule_of(call, RULES.get(call, "shampoo" if "Sh" in call else "")), [(1, 1), (7, 1)], torch.float64, 2
        )
        for p, (weight, _) in zip(optimizer.param_groups[0]["params"], wanted, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), weight, rtol=1e-10, atol=1e-11)
