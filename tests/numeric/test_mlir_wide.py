"""Native loops of memories wider than a vector, in float32, beside the torch backend in float64.

Sums of many rows at once, transposed copies, tables whose halves are left out and decays between halves only occur at
sizes that the loops of the other tests do not have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

import nldsl

MEMORIES = Path(__file__).parents[2] / "stdlib" / "memories"
TICKS = 64  # a segment
SIZES = {
    "GatedDelta": ("delta.nl", {"dk": 32, "dv": 48}),
    "KimiDelta": ("delta.nl", {"dk": 32, "dv": 48}),
    "TTTMlp": ("ttt.nl", {"d": 16}),
    "TitansLinear": ("titans.nl", {"dk": 32, "dv": 48}),
}


def case(name: str) -> object:
    return pytest.param(name, marks=() if name == "GatedDelta" else pytest.mark.slow)


@pytest.mark.parametrize("name", [case(n) for n in SIZES])
def test_wide_memories(name: str) -> None:
    file, sizes = SIZES[name]
    dims: dict[str, Any] = dict(sizes)
    native = nldsl.compile(str(MEMORIES / file), name, backend="mlir", **dims)
    exact = nldsl.compile(str(MEMORIES / file), name, backend="torch", **dims).double()
    assert "native.run(" in native.emitted.source
    exact.load_state_dict({k: v.double() for k, v in native.state_dict().items()})
    gen = torch.Generator().manual_seed(0)
    inputs = {}
    for item in native.program.inputs:
        value = torch.randn([2, TICKS, *(int(str(n)) for n in item.type.shape)], generator=gen)
        inputs[item.name] = value / value.shape[-1] ** 0.5 if item.type.shape else value.sigmoid()
    single = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    double = {k: v.double().requires_grad_() for k, v in inputs.items()}
    found, expected = native(**single), exact(**double)
    weight = torch.randn(expected.shape, generator=gen)
    pairs = [(found, expected)]
    got = torch.autograd.grad(found, list(single.values()), weight)
    want = torch.autograd.grad(expected, list(double.values()), weight.double())
    pairs += list(zip(got, want, strict=True))
    for mine, theirs in pairs:
        assert (mine - theirs).abs().max() < 1e-5 * theirs.abs().max()
