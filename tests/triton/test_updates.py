"""Updates as kernels over many tensors, against the reference interpreter and torch.optim."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from nldsl.api import compile as compile_program
from nldsl.runtime.optimizer import LevelOptimizers, MemoryOptimizer, Rule
from nldsl.runtime.optimizer_kernels import SIZE, KernelEntryBatch
from tests.triton.update_rules import reference, rule_of

SHAPES = [(3, 4), (5,), (2, 3, 2), (70, 40), (4, 3)]
ENTRIES = {
    "Momentum()": "momentum",
    "AdamW()": "adam",
    "NAdam()": "adam",
    "Lion(decay = 0.1)": "sign",
    "FTRL(lasso = 0.1, ridge = 0.2)": "ftrl",
    "Trusting()": "",
    "Wandering()": "",
    "Extremes()": "",
}


def train(
    rule: Rule, shapes: list[tuple[int, ...]], dtype: torch.dtype, ticks: int, rate: float = 0.7, **options: Any
) -> tuple[MemoryOptimizer, list[tuple[Any, dict[str, Any]]]]:
    """An optimizer after some steps, and what the reference says of each parameter."""
    generator = torch.Generator().manual_seed(5)
    starts = [torch.randn(s, dtype=torch.float64, generator=generator).to(dtype) for s in shapes]
    steps = [[torch.randn(s, dtype=torch.float64, generator=generator).to(dtype) for s in shapes] for _ in range(ticks)]
    params = [torch.nn.Parameter(x.clone()) for x in starts]
    optimizer = MemoryOptimizer(params, rule, lr=rate, backend="triton", **options)
    for gradients in steps:
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient.clone()
        optimizer.step()
    return optimizer, [reference(rule, x, [s[n] for s in steps], rate) for n, x in enumerate(starts)]


def compare(optimizer: MemoryOptimizer, wanted: list[tuple[Any, dict[str, Any]]], rtol: float, atol: float) -> None:
    for param, (weight, states) in zip(optimizer.param_groups[0]["params"], wanted, strict=True):
        np.testing.assert_allclose(param.detach().double().numpy(), weight, rtol=rtol, atol=atol)
        for name, value in states.items():
            np.testing.assert_allclose(optimizer.state[param][name].double().numpy(), value, rtol=rtol, atol=atol)


@pytest.mark.parametrize("call", ENTRIES)
def test_like_the_reference_parameter_by_parameter(call: str) -> None:
    optimizer, wanted = train(rule_of(call, ENTRIES[call]), SHAPES, torch.float64, 3)
    assert [type(b) for b in optimizer._batches[0]] == [KernelEntryBatch]
    compare(optimizer, wanted, 1e-11, 1e-12)


@pytest.mark.parametrize("call", ["NAdam()", "Trusting()", "Wandering()"])
def test_ticks_that_the_device_counts(call: str) -> None:
    optimizer, wanted = train(rule_of(call, ENTRIES[call]), SHAPES, torch.float64, 3, capturable=True)
    compare(optimizer, wanted, 1e-11, 1e-12)
    optimizer, wanted = train(rule_of(call, ENTRIES[call]), SHAPES, torch.float32, 3, capturable=True)
    compare(optimizer, wanted, 1e-5, 2e-6)


@pytest.mark.parametrize("call", ["AdamW()", "FTRL(lasso = 0.1, ridge = 0.2)", "Trusting()"])
def test_single_precision_is_as_exact_as_it_can_be(call: str) -> None:
    optimizer, wanted = train(rule_of(call, ENTRIES[call]), SHAPES, torch.float32, 2)
    compare(optimizer, wanted, 1e-5, 2e-6)


@pytest.mark.parametrize("call", ["AdamW()", "Trusting()"])
def test_weights_in_half_precision_with_states_in_single(call: str) -> None:
    """The arithmetic is float32; a weight is rounded to the nearest of its type once per step, and nothing else is."""
    for dtype, unit in ((torch.bfloat16, 2.0**-8), (torch.float16, 2.0**-11)):
        optimizer, wanted = train(rule_of(call, ENTRIES[call]), SHAPES, dtype, 1)
        for param, (weight, states) in zip(optimizer.param_groups[0]["params"], wanted, strict=True):
            assert param.dtype == dtype
            np.testing.assert_allclose(param.detach().double().numpy(), weight, rtol=1.01 * unit, atol=1e-7)
            for name, value in states.items():
                assert optimizer.state[param][name].dtype == torch.float32
                np.testing.assert_allclose(optimizer.state[param][name].numpy(), value, rtol=1e-5, atol=1e-7)


PEERS: dict[str, tuple[str, Any]] = {
    "AdamW(rate = 0.01)": ("adam", lambda p: torch.optim.AdamW(p, lr=0.01)),
    "NAdam(rate = 0.01)": ("adam", lambda p: torch.optim.NAdam(p, lr=0.01)),
    "Nesterov(rate = 0.01)": ("momentum", lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True)),
    "AdaGrad(rate = 0.01)": ("adagrad", lambda p: torch.optim.Adagrad(p, lr=0.01)),
}
LAYOUTS = [(7,), (), (1,), (0,), (3, 0), (2 * SIZE + 17,), (SIZE,), (33, 65), (3, 5, 2)]


@pytest.mark.parametrize("call", PEERS)
def test_many_tensors_of_odd_shapes_beside_torch(call: str) -> None:
    """Scalars, empty tensors, tails, transposed weights and gradients, weights that begin anywhere, no gradient."""
    file, make = PEERS[call]
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in LAYOUTS]
    params.append(torch.nn.Parameter(torch.randn(6, 9, generator=generator).T))
    params.append(torch.nn.Parameter(torch.randn(3 * SIZE + 1, generator=generator)[1:]))
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    ours, theirs = MemoryOptimizer(params, rule_of(call, file), backend="triton"), make(others)
    for _ in range(3):
        for n, (p, o) in enumerate(zip(params, others, strict=True)):
            gradient = torch.randn(p.shape, generator=generator)
            if n == 7:
                gradient = torch.randn(p.shape[::-1], generator=generator).T
            p.grad, o.grad = (None, torch.zeros_like(o)) if n == 8 else (gradient, gradient.clone())
        ours.step()
        theirs.step()
    assert not params[9].is_contiguous()
    assert params[10].data_ptr() % 16
    # a parameter that is one number may have another rule: its states are numbers too
    assert len(ours._batches[0]) <= 2
    assert all(isinstance(batch, KernelEntryBatch) for batch in ours._batches[0])
    for p, o in zip(params, others, strict=True):
        torch.testing.assert_close(p.detach(), o.detach(), rtol=1e-5, atol=1e-6)


def test_lion_from_its_formula() -> None:
    p = torch.nn.Parameter(torch.linspace(-1, 1, 9))
    w, m = p.detach().clone(), torch.zeros(9)
    optimizer = MemoryOptimizer([p], rule_of("Lion(rate = 0.1, decay = 0.2)", "sign"), backend="triton")
    for step in range(3):
        p.grad = torch.cos(torch.arange(9.0) + step)
        w -= 0.1 * (torch.sign(0.9 * m + 0.1 * p.grad) + 0.2 * w)
        m = 0.99 * m + 0.01 * p.grad
        optimizer.step()
    torch.testing.assert_close(p.detach(), w)


def launches(optimizer: MemoryOptimizer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels of one step."""
    from triton.runtime.interpreter import InterpretedFunction

    found: list[str] = []
    run = InterpretedFunction.run

    def counted(self: Any, *args: Any, **named: Any) -> Any:
        found.append(self.fn.__name__)
        return run(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(InterpretedFunction, "run", counted)
        optimizer.step()
    return found


def test_one_launch_for_all_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer, _ = train(rule_of("AdamW()", "adam"), SHAPES, torch.float32, 1)
    assert launches(optimizer, monkeypatch) == ["optimizer_update"]
    optimizer, _ = train(rule_of("AdamW()", "adam"), SHAPES, torch.float32, 1, capturable=True)
    assert launches(optimizer, monkeypatch) == ["numbers_kernel", "optimizer_update"]
    optimizer, _ = train(rule_of("Trusting()"), SHAPES, torch.float32, 1)  # a norm, then sums of what it scales
    assert launches(optimizer, monkeypatch) == ["optimizer_sums_1", "optimizer_sums_2", "optimizer_update"]


def test_copies_in_a_parameter_have_sums_of_their_own() -> None:
    rule, generator = rule_of("Trusting()"), torch.Generator().manual_seed(3)
    stacked = torch.nn.Parameter(torch.randn(2, 3, 5, generator=generator, dtype=torch.float64))
    alone = torch.nn.Parameter(torch.randn(4, generator=generator, dtype=torch.float64))
    starts = [*stacked.detach().clone(), alone.detach().clone()]
    optimizer = MemoryOptimizer([stacked, alone], rule, lanes={stacked: 1}, backend="triton")
    gradients = []
    for _ in range(3):
        stacked.grad = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
        alone.grad = torch.randn(4, generator=generator, dtype=torch.float64)
        gradients.append([*stacked.grad.clone(), alone.grad.clone()])
        optimizer.step()
    for n, found in enumerate([*stacked.detach(), alone.detach()]):
        weight, states = reference(rule, starts[n], [g[n] for g in gradients], 1.0)
        np.testing.assert_allclose(found.numpy(), weight, rtol=1e-11)
        own = (
            optimizer.state[alone] if n == 2 else {k: v[n] for k, v in optimizer.state[stacked].items() if k != "step"}
        )
        for name, value in states.items():
            np.testing.assert_allclose(own[name].numpy(), value, rtol=1e-11)


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("call", ["NAdam()", "Trusting()"])
def test_resumed_in_the_middle_is_exact(call: str, capturable: bool) -> None:
    rule, generator = rule_of(call, ENTRIES[call]), torch.Generator().manual_seed(2)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator).bfloat16()) for s in SHAPES]
    gradients = [[torch.randn(s, generator=generator).bfloat16() for s in SHAPES] for _ in range(4)]

    def steps(members: list[torch.nn.Parameter], optimizer: MemoryOptimizer, ticks: range) -> None:
        for tick in ticks:
            for p, g in zip(members, gradients[tick], strict=True):
                p.grad = g.clone()
            optimizer.step()

    options: dict[str, Any] = {"backend": "triton", "capturable": capturable}
    whole = copy.deepcopy(params)
    steps(whole, MemoryOptimizer(whole, rule, **options), range(4))
    first = MemoryOptimizer(params, rule, **options)
    steps(params, first, range(2))
    stored, middle = first.state_dict(), copy.deepcopy(params)
    steps(params, first, range(2, 3))  # what is stored stays as it was
    second = MemoryOptimizer(middle, rule, **options)
    second.load_state_dict(stored)
    steps(middle, second, range(2, 4))
    for a, b in zip(whole, middle, strict=True):
        assert torch.equal(a, b)


def test_a_rate_that_is_a_tensor() -> None:
    rule = rule_of("AdamW()", "adam")
    params = [torch.nn.Parameter(torch.ones(5)) for _ in range(2)]
    plain = MemoryOptimizer([params[0]], rule, backend="triton")
    other = MemoryOptimizer([params[1]], rule, backend="triton", capturable=True)
    other.param_groups[0]["lr"] = torch.tensor(1.0)
    for rate in (0.5, 0.25):
        plain.param_groups[0]["lr"] = rate
        other.param_groups[0]["lr"].fill_(rate)
        for p, optimizer in zip(params, (plain, other), strict=True):
            p.grad = torch.arange(5.0)
            optimizer.step()
    torch.testing.assert_close(params[0].detach(), params[1].detach())


def test_a_changed_weight_is_noticed_by_autograd() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    loss = (w * w).sum()
    w.grad = torch.ones(3)
    MemoryOptimizer([w], rule_of("SGD()", "sgd"), backend="triton").step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


MODEL = """
from "optimizers/adam" import AdamW
model Small() {
  level outer = every 1 step
  input x: [3]
  param w: [3] = normal(1.0)
  y = w * x
  minimize sum((y - x)^2) at outer with AdamW(rate = 0.1)
  return y
}
"""


def test_levels_of_a_module() -> None:
    """The kernels where they are asked for, and where a module with kernels is on a GPU."""
    module = compile_program("small", text=MODEL, backend="triton")
    assert module.backend == "triton"
    optimizers = [LevelOptimizers(module, backend=backend) for backend in ("triton", "torch")]
    for optimizer in optimizers:
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    kinds = [type(o.optimizers["outer"]._batches[0][0]).__name__ for o in optimizers]
    assert kinds == ["KernelEntryBatch", "EntryBatch"]


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="no backend `cuda` for optimizers; there are torch, triton"):
        MemoryOptimizer([torch.nn.Parameter(torch.ones(2))], rule_of("SGD()", "sgd"), backend="cuda")
    with pytest.raises(ValueError, match="needs backend='triton'"):
        MemoryOptimizer([torch.nn.Parameter(torch.ones(2))], rule_of("SGD()", "sgd"), capturable=True)


def test_parameters_that_no_kernel_reaches() -> None:
    """Without the interpreter: an error by itself, PyTorch's form where a module was only compiled for a GPU."""
    code = """
import os, torch
from tests.triton.update_rules import rule_of
from nldsl.runtime.optimizer import MemoryOptimizer
p = torch.nn.Parameter(torch.ones(2)); p.grad = torch.ones(2)
MemoryOptimizer([p], rule_of("SGD(0.5)", "sgd"), backend="triton", fallback=True).step()
assert p.tolist() == [0.5, 0.5]
try:
    MemoryOptimizer([p], rule_of("SGD()", "sgd"), backend="triton").step()
except RuntimeError as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "need parameters on a GPU, these are on cpu" in done.stdout


def test_what_has_no_kernels_is_said_once() -> None:
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer = MemoryOptimizer([p], rule_of("SGD()", "sgd"), backend="triton")
        p.grad = torch.ones_like(p)
        for _ in range(2):
            optimizer.step()
    assert [str(w.message) for w in caught] == [
        "the update of `SGD` has no kernels: parameters of torch.complex64; it keeps the form of the torch backend"
    ]
