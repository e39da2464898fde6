"""Programs of the standard library with native loops in float32, beside the torch backend in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.driver import derived, simplified
from nldsl.runtime.build import build_module
from nldsl.standalone import Request, load

STDLIB = Path(__file__).parents[2] / "stdlib"
TICKS = 21  # a segment of 16 ticks, and five of one
CASES = {  # the last one: its way back adds over heads, so that it has fewer lanes than its way forth
    "KimiDelta": "memories/delta.nl",
    "TitansLinear": "memories/titans.nl",
    "SelfModifying": "memories/self_modifying.nl",
    "Mamba2Layer": "blocks/mamba2.nl",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_native_loops(name: str) -> None:
    program = simplified(derived(load(Request(str(STDLIB / CASES[name]), name, ()), stop="program").program))
    native, exact = build_module(program, "mlir"), build_module(program, "torch").double()
    assert "native.run(" in native.emitted.source
    exact.load_state_dict({k: v.double() for k, v in native.state_dict().items()})
    gen = torch.Generator().manual_seed(0)
    inputs = {}
    for item in program.inputs:
        value = 0.5 * torch.randn([2, TICKS, *(int(str(n)) for n in item.type.shape)], generator=gen)
        inputs[item.name] = value if item.type.shape else value.sigmoid()
    single = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    double = {k: v.double().requires_grad_() for k, v in inputs.items()}
    found, expected = native(**single), exact(**double)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    weight = torch.randn(expected.shape, generator=gen)
    found.backward(weight)
    expected.backward(weight.double())
    pairs = [(single[k].grad, double[k].grad) for k in inputs]
    pairs += [(p.grad, q.grad) for p, q in zip(native.parameters(), exact.parameters(), strict=True)]
    for got, want in pairs:
        if want is not None and want.abs().max() > 0:
            assert got is not None
            assert (got - want).abs().max() < 1e-4 * want.abs().max()
