"""Second derivatives through native loops: the loop in its torch form, against differences and the torch backend."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import compile as compile_program
from nldsl.backends.mlir import custom_ops
from nldsl.backends.mlir.function import FallbackWarning
from nldsl.runtime import build
from nldsl.runtime.module import Module

STDLIB = Path(__file__).parents[2] / "stdlib"
RESETS = """
memory Resets(d: dim = 3) {
  param w: [d, d] = normal(0.5)
  param first: [d] = normal(0.5)
  state s: [d] = 0.5 * first reset every 4 tokens
  state m: [d, d] = 0
  step(x: [d], rate: []) -> [d] every token {
    s <- tanh(w @ s + x)
    m <- rate * m + outer(x, s)
    return m @ x + s
  }
}
"""
PROGRAMS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "TTTMlp": ("memories/ttt.nl", "TTTMlp", {"d": 3, "hidden": 4}),
    "GatedDelta": ("memories/delta.nl", "GatedDelta", {"dk": 3, "dv": 2}),
    "Titans": ("memories/titans.nl", "Titans", {"dk": 3, "dv": 2, "chunk": 4}),
    "Resets": (RESETS, "Resets", {}),
}


@pytest.fixture(autouse=True)
def _no_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that other tests have compiled do not count."""
    monkeypatch.setattr(custom_ops, "LOOPS", {})


def compiled(name: str, backend: str = "mlir", **more: Any) -> Module:
    where, entry, dims = PROGRAMS[name]
    if "{" in where:
        return compile_program("resets", entry, text=where, backend=backend, **dims, **more).double()
    return compile_program(STDLIB / where, entry, backend=backend, **dims, **more).double()


def inputs(module: Module, ticks: int) -> list[Tensor]:
    gen = torch.Generator().manual_seed(0)
    shapes = [(2, ticks, *(int(str(n)) for n in d.type.shape)) for d in module.streams.now]
    return [(0.2 + 0.4 * torch.rand(s, generator=gen, dtype=torch.float64)).requires_grad_() for s in shapes]


def second(module: Module, ticks: int) -> list[Tensor]:
    """The gradient of the squares of a gradient, for inputs and parameters."""
    given = inputs(module, ticks)
    every = [*given, *module.parameters()]
    first = torch.autograd.grad(module(*given).pow(2).sum(), every, create_graph=True, materialize_grads=True)
    total = torch.stack([g.pow(2).sum() for g in first]).sum()
    return [total, *torch.autograd.grad(total, every, materialize_grads=True)]


@pytest.mark.parametrize("name", ["TTTMlp", "Resets", pytest.param("Titans", marks=pytest.mark.slow),
                                  pytest.param("GatedDelta", marks=pytest.mark.slow)])  # fmt: skip
def test_as_the_torch_backend(name: str) -> None:
    native, written = compiled(name), compiled(name, "torch")
    written.load_state_dict(native.state_dict())
    assert "native.run(" in native.emitted.source
    with pytest.warns(FallbackWarning, match="has no native form; it and the first one"):
        found = second(native, 9)
    expected = second(written, 9)
    assert len(found) == len(expected) > 3 and all(x.abs().max() > 1e-4 for x in expected)
    for got, want in zip(found, expected, strict=True):
        assert (got - want).abs().max() <= 1e-11 * (1 + want.abs().max())


@pytest.mark.filterwarnings("ignore::nldsl.backends.mlir.function.FallbackWarning")
@pytest.mark.parametrize("name", ["GatedDelta", "Resets"])
def test_as_differences(name: str) -> None:
    module = compiled(name)
    torch.autograd.gradgradcheck(lambda *x: module(*x), inputs(module, 5), atol=1e-6)


def test_it_is_said_once() -> None:
    module = compiled("Resets")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            second(module, 6)
    texts = [str(w.message) for w in said if w.category is FallbackWarning]
    assert len(texts) == len(set(texts)) > 0


def test_the_first_derivative_alone_is_native(recwarn: pytest.WarningsRecorder) -> None:
    module = compiled("TTTMlp")
    given = inputs(module, 9)
    module(*given).sum().backward()
    assert not [w for w in recwarn if w.category is FallbackWarning]


def test_required_is_an_error() -> None:
    module = compiled("TTTMlp", require_backend=True)
    with pytest.raises(RuntimeError, match=r"no second derivative here \(`require_backend`"):
        second(module, 9)


def test_a_program_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLDSL_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "WORTH_STORING", 0.0)
    found = []
    for _ in range(2):
        monkeypatch.setattr(custom_ops, "LOOPS", {})
        with pytest.warns(FallbackWarning, match="has no native form; it and the first one"):
            found.append(second(compiled("Resets"), 9))
    assert len(list(tmp_path.glob("*.json"))) == 1
    assert all(map(torch.equal, *found))
