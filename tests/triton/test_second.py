"""Second derivatives through kernels: the loop in the form of the torch backend, said once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.backends.interface import FallbackWarning
from nldsl.runtime.module import Module

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
STDLIB = Path(__file__).parents[2] / "stdlib"
# a loop over ticks, whose states are reset to what a parameter says
RESETS = """
memory Resets(d: dim = 3) {
  param w: [d, d] = normal(0.5)
  param first: [d] = normal(0.5)
  state s: [d] = 0.5 * first reset every 4 tokens
  step(x: [d], rate: []) -> [d] every token {
    s <- rate * s + tanh(w @ s + x)
    return s
  }
}
"""
# over segments, likewise, with two states that are packed
STARTS = """
memory Starts(d: dim = 3) {
  param first: [d, d] = normal(0.5)
  state m: [d, d] = 0.5 * first reset every 4 tokens
  state a: [d, d] = 0
  state b: [d, d] = 0
  step(x: [d], rate: []) -> [d] every token {
    m <- rate * m + outer(x, x)
    a <- rate * a + outer(x, x)
    b <- rate * b + outer(x * x, x)
    return m @ x + a @ x + b @ x
  }
}
"""
PROGRAMS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "GatedDelta": ("memories/delta.nl", "GatedDelta", {"dk": 3, "dv": 2}),
    "TTTLinear": ("memories/ttt.nl", "TTTLinear", {"d": 3}),
    "Starts": (STARTS, "Starts", {}),
    "Resets": (RESETS, "Resets", {}),
}


def compiled(name: str, backend: str = "triton", **more: Any) -> Module:
    where, entry, dims = PROGRAMS[name]
    if "{" in where:
        return nldsl.compile(f"{entry}.nl", entry, text=where, backend=backend, **dims, **more).double()
    return nldsl.compile(STDLIB / where, entry, backend=backend, **dims, **more).double()


def emitted(module: Module) -> Any:
    """The module of functions."""
    return module.emitted


def inputs(module: Module, ticks: int, batch: int = 2) -> list[Tensor]:
    gen = torch.Generator().manual_seed(0)
    shapes = [(batch, ticks, *(int(str(n)) for n in d.type.shape)) for d in module.streams.now]
    return [(0.2 + 0.4 * torch.rand(s, generator=gen, dtype=torch.float64)).requires_grad_() for s in shapes]


def second(module: Module, given: list[Tensor], **more: Any) -> list[Tensor]:
    """The gradient of the squares of a gradient, for inputs and parameters."""
    every = [*given, *module.parameters()]
    y = module(*given, **more)
    first = torch.autograd.grad(y.pow(2).sum(), every, create_graph=True, materialize_grads=True)
    total = torch.stack([g.pow(2).sum() for g in first]).sum()
    return [total, *torch.autograd.grad(total, every, materialize_grads=True)]


def alike(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 2
    assert all(x.abs().max() > 1e-4 for x in expected)
    for got, want in zip(found, expected, strict=True):
        assert (got - want).abs().max() <= 1e-10 * (1 + want.abs().max())


@pytest.mark.parametrize("name", ["GatedDelta", "Resets", "Starts", pytest.param("TTTLinear", marks=pytest.mark.slow)])
def test_as_the_torch_backend(name: str) -> None:
    module, written = compiled(name), compiled(name, "torch")
    written.load_state_dict(module.state_dict())
    assert "@triton.jit" in module.emitted.source
    with pytest.warns(FallbackWarning, match="has no native form; it and the first one") as said:
        found = second(module, inputs(module, 9))
    assert sum(w.category is FallbackWarning for w in said) == len(emitted(module).SECOND)  # of each loop, once
    alike(found, second(written, inputs(written, 9)))


@pytest.mark.filterwarnings("ignore::nldsl.backends.interface.FallbackWarning")
def test_as_differences() -> None:
    module = compiled("Resets")
    torch.autograd.gradgradcheck(lambda *x: module(*x), inputs(module, 5, batch=1), atol=1e-6)


@pytest.mark.filterwarnings("ignore::nldsl.backends.interface.FallbackWarning")
def test_of_sequences_in_one_row() -> None:
    module, written = compiled("GatedDelta"), compiled("GatedDelta", "torch")
    written.load_state_dict(module.state_dict())
    cuts = {"cu_seqlens": torch.tensor([0, 4, 5, 9])}
    assert emitted(module).PACKED
    found, expected = (second(m, inputs(m, 9, batch=1), **cuts) for m in (module, written))
    alike(found, expected)


def test_said_once_and_not_where_nobody_asks() -> None:
    module = compiled("GatedDelta")
    given = inputs(module, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        torch.autograd.grad(module(*given).sum(), given)
    with pytest.warns(FallbackWarning):
        second(module, given)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        second(module, given)


def test_an_error_where_kernels_are_required() -> None:
    module = compiled("GatedDelta", require_backend=True)
    given = inputs(module, 4)
    first = torch.autograd.grad(module(*given).pow(2).sum(), given, create_graph=True)  # by kernels
    with pytest.raises(NotImplementedError, match="has no second derivative here"):
        torch.autograd.grad(torch.stack([g.pow(2).sum() for g in first]).sum(), given)
