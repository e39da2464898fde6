"""Pointwise work between products as native functions: phases that respect their operands, and the values and
gradients of PyTorch's autograd on the torch backend's module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import compile as compile_program
from nldsl.api import load_program
from nldsl.ir.fused import Fused
from nldsl.ir.schedule import Parallel
from nldsl.passes.plan import plan

WIDE = """
## A wide network with a gate, a bias and a norm.
model Wide(d: dim, hidden: dim) {
  input x: [d]
  input size: []
  param a, c: [hidden, d] = normal(d ** -0.5)
  param b: [d, hidden] = normal(hidden ** -0.5)
  param shift: [hidden] = normal(0.3)
  h = a @ x + shift
  g = c @ x
  n = (h - sum(h) / hidden) * rsqrt(sum(h * h) / hidden + 1e-5)
  wide = tanh(n) * sigmoid(g) * size + shift * exp(-g * g)
  return x + b @ wide + (b @ (wide * stop_grad(wide))) * size
}
"""
HEADS = """
## Copies of a network that read the same input, each with its own weights, and are read by the next one.
memory Features(d: dim, hidden: dim) {
  param a: [hidden, d] = normal(d ** -0.5)
  param b: [d, hidden] = normal(hidden ** -0.5)
  step(x: [d]) -> [d] every token {
    h = a @ x
    return b @ (h * h * sigmoid(2 * h) + max(h, 0.1))
  }
}

model Heads(d: dim, hidden: dim) {
  input x: [d]
  input size: []
  memory first: 3 of Features(d, hidden)
  memory second: 3 of Features(d, hidden)
  y = first.step(x)
  z = second.step(y)
  return size * sum(z, axis = 0)
}
"""
SIZES: dict[str, Any] = {"d": 12, "hidden": 600}
PROGRAMS = {"Wide": WIDE, "Heads": HEADS}
SHAPES = [(2, 37), (1, 16), (3, 1)]


def program(name: str, folder: Path) -> Path:
    file = folder / f"{name}.nl"
    file.write_text(PROGRAMS[name], encoding="utf-8")
    return file


def results(backend: str, file: Path, kind: torch.dtype, batch: int, ticks: int) -> list[Tensor]:
    """The outputs, and the gradients of all inputs and parameters."""
    torch.manual_seed(0)
    module = compile_program(file, backend=backend, **SIZES).to(kind)
    assert backend == "torch" or "native.run(" in module.emitted.source
    gen = torch.Generator().manual_seed(1)
    x = torch.randn(batch, ticks, SIZES["d"], generator=gen, dtype=torch.float64).to(kind).requires_grad_()
    size = torch.rand(batch, ticks, generator=gen, dtype=torch.float64).to(kind).requires_grad_()
    y = module(x=x, size=size)
    y.double().square().sum().backward()
    found = [y.detach(), x.grad, size.grad, *(p.grad for p in module.parameters())]
    return [value for value in found if value is not None]


@pytest.mark.parametrize(("batch", "ticks"), SHAPES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name: str, batch: int, ticks: int, tmp_path: Path) -> None:
    file = program(name, tmp_path)
    wanted = results("torch", file, torch.float64, batch, ticks)
    for limit, kind in ((1e-13, torch.float64), (1e-5, torch.float32), (0.05, torch.bfloat16)):
        found = results("mlir", file, kind, batch, ticks)
        assert len(found) == len(wanted)
        for want, got in zip(wanted, found, strict=True):
            assert got.dtype == kind
            assert (got.double() - want).abs().max() < limit * want.abs().max()


@pytest.mark.parametrize("name", PROGRAMS)
def test_phases_respect_their_operands(name: str, tmp_path: Path) -> None:
    loaded = load_program(program(name, tmp_path), **SIZES)
    whole, split = (plan(loaded, ticks=True, serial=True, fused=fused) for fused in (False, True))
    assert any(isinstance(p, Fused) for p in split.phases)
    values = [sorted(v for p in s.phases if isinstance(p, Parallel) for v in p.values) for s in (whole, split)]
    assert values[0] == values[1]
    known = {v for v, i in enumerate(loaded.body) if v not in values[0]}
    for phase in split.phases:
        assert isinstance(phase, Parallel)
        own = set(phase.values)
        assert all(a in known or a in own for v in own for a in loaded.body[v].args)
        known |= own


def test_little_work_is_left_alone(tmp_path: Path) -> None:
    loaded = load_program(program("Wide", tmp_path), d=12, hidden=32)
    assert not any(isinstance(p, Fused) for p in plan(loaded, ticks=True, serial=True, fused=True).phases)


def test_under_transforms(tmp_path: Path) -> None:
    """There the module runs as the torch backend's."""
    module = compile_program(program("Wide", tmp_path), backend="mlir", **SIZES).double()
    x, size = torch.randn(2, 3, SIZES["d"], dtype=torch.float64), torch.rand(2, 3, dtype=torch.float64)

    def total(given: Tensor) -> Tensor:
        y: Tensor = module(x=given, size=size)
        return y.square().sum()

    given = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(total(given), given)
    assert torch.allclose(torch.func.grad(total)(x), want, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:a derivative of a derivative")
def test_second_derivatives(tmp_path: Path) -> None:
    file = program("Wide", tmp_path)
    gen = torch.Generator().manual_seed(2)
    x = torch.randn(1, 3, SIZES["d"], generator=gen, dtype=torch.float64).requires_grad_()
    size = torch.rand(1, 3, generator=gen, dtype=torch.float64).requires_grad_()
    found = []
    for backend in ("torch", "mlir"):
        torch.manual_seed(0)
        module = compile_program(file, backend=backend, **SIZES).double()
        total = module(x=x, size=size).square().sum()
        first = torch.autograd.grad(total, (x, size), create_graph=True)
        penalty = first[0].square().sum() + first[1].square().sum()
        found.append(torch.autograd.grad(penalty, (x, size, *module.parameters())))
    for want, got in zip(*found, strict=True):
        assert (got - want).abs().max() < 1e-11 * want.abs().max()
