"""Modules with native loops under the transforms of ``torch.func`` and forward mode: as those of the torch backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import compile as compile_program
from nldsl.backends.mlir.step_emitted import NativeModule
from nldsl.runtime.module import Module

dual: Callable[[Tensor, Tensor], Tensor] = forward_ad.make_dual
unpack: Callable[[Tensor], Any] = forward_ad.unpack_dual
STDLIB = Path(__file__).parents[2] / "stdlib"
BATCH_SIZE, TICKS = 2, 9
Function = Callable[[Tensor], Tensor]


def pair() -> tuple[Module, Module]:
    """The native module and the torch backend's, with parameters, in float64."""
    native, written = (
        compile_program(STDLIB / "memories/ttt.nl", "TTTMlp", backend=b, d=4, hidden=8).double()
        for b in ("mlir", "torch")
    )
    written.load_state_dict(native.state_dict())
    assert "native.run(" in native.emitted.source
    return native, written


def inputs() -> list[Tensor]:
    gen = torch.Generator().manual_seed(0)
    vectors = [0.5 * torch.randn(BATCH_SIZE, TICKS, 4, generator=gen, dtype=torch.float64) for _ in range(3)]
    return [*vectors, 0.1 * torch.rand(BATCH_SIZE, TICKS, generator=gen, dtype=torch.float64)]


def of_key(module: Module) -> Function:
    q, k, v, rate = inputs()

    def last(scale: Tensor) -> Tensor:
        y: Tensor = module(q, k * scale, v, rate)[:, -1]
        return y

    return last


def squares(function: Function) -> Function:
    def total(x: Tensor) -> Tensor:
        return function(x).pow(2).sum()

    return total


CASES: dict[str, Callable[[Module], Tensor]] = {
    "vmap": lambda m: vmap(of_key(m))(torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)),
    "jacrev": lambda m: jacrev(of_key(m))(torch.ones(4, dtype=torch.float64)),
    "jvp": lambda m: jvp(of_key(m), (torch.ones(4, dtype=torch.float64),), (torch.ones(4, dtype=torch.float64),))[1],
    "hessian": lambda m: hessian(squares(of_key(m)))(torch.ones(4, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", list(CASES))
def test_transforms(name: str) -> None:
    found, expected = (CASES[name](module) for module in pair())
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() <= 1e-12


def test_functional_calls_and_ensembles() -> None:
    native, written = pair()
    given = tuple(inputs())
    results = []
    for module in (native, written):

        def loss(params: dict[str, Tensor], module: Module = module) -> Tensor:
            y: Tensor = functional_call(module, params, given)
            return y.pow(2).sum()

        params = {k: p.detach() for k, p in module.named_parameters()}
        several = {k: torch.stack([p, 1.1 * p]) for k, p in params.items()}
        results.append([loss(params), *grad(loss)(params).values(), vmap(loss)(several)])
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= 1e-11 * (1 + expected.abs().max())


def test_forward_mode() -> None:
    """Of sequences and, without gradients in reverse mode, of single ticks."""
    found = []
    for module in pair():
        q, k, v, rate = inputs()
        with forward_ad.dual_level():
            tangent = q.flip(0)
            whole = unpack(module(q, k, dual(v, tangent), rate)).tangent
            with torch.no_grad():
                state = module.init_state(BATCH_SIZE)
                _, state = module.step(q[:, 0], k[:, 0], dual(v[:, 0], tangent[:, 0]), rate[:, 0], state)
                y, _ = module.step(q[:, 1], k[:, 1], v[:, 1], rate[:, 1], state)
                tick = unpack(y).tangent
        found.append((whole, tick))
    for got, want in zip(*found, strict=True):
        assert want.abs().max() > 1e-3
        assert (got - want).abs().max() <= 1e-12


def test_the_native_form_is_taken_without_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pair()[0]
    assert isinstance(module.emitted, NativeModule)
    monkeypatch.setattr(module.emitted.written, "_make", lambda: pytest.fail("the torch form was made"))
    y = module(*inputs())
    y.sum().backward()
