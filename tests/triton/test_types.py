"""The types that kernels get and give: modules in half precision, and under autocast."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from nldsl.api import load_program
from nldsl.ir.program import Program
from tests.triton.compare import inputs_of, kernels_of, largest_error, low_errors, program, relative_rms, run, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
GATED = """
memory Gated(d: dim) {
  state S: [d, d] = 0
  param forget: [d] = normal(0.5)
  param key: [d, d] = normal(0.5)
  step(x: [d], q: [d], v: [d]) -> [d] {
    keep = exp(-softplus(dot(forget, x) - 4))
    k = key @ x
    S <- keep * S + outer(v, k)
    return S @ q
  }
}
"""


def gated() -> Program:
    return load_program("gated.nl", "Gated", text=GATED, d=16)


def test_gates_of_half_precision() -> None:
    """Rates of a state space model, whose rounding error would be there again at each of 150 ticks."""
    errors = low_errors(program("memories/gated_linear.nl", "Mamba2", dk=32, dv=32), 150)
    assert max(errors.values()) < 6e-3, errors


def seen_types(module: Any, monkeypatch: pytest.MonkeyPatch) -> list[set[torch.dtype]]:
    """What each run of kernels gets, gates left out."""
    space, found = vars(cast(Any, module.emitted).module), []
    own = space["kernel_types"]

    def kernel_types(tensors: Any, streams: Any) -> Any:
        found.append({x.dtype for x in streams})
        return own(tensors, streams)

    monkeypatch.setitem(space, "kernel_types", kernel_types)
    return found


@pytest.mark.parametrize("half", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str)
def test_streams_are_in_half_precision_and_gates_are_not(half: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    source = gated()
    inputs = inputs_of(source, 1, 40, half)
    expected = run(ticks_of(source).to(half).double(), {n: x.double() for n, x in inputs.items()})
    module = kernels_of(source).to(half)
    seen = seen_types(module, monkeypatch)
    found = run(module, inputs)
    assert seen == [{half}, {half}]  # forward and back
    assert found.values["y"].dtype == half
    pairs = [(v, found.values[n]) for n, v in expected.values.items()]
    pairs += [(g, found.gradients[n]) for n, g in expected.gradients.items()]  # type: ignore[misc]
    assert max(relative_rms(v, x) for v, x in pairs) < 6e-3


def test_segments_of_float32_are_half_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its products take more registers: 70 ticks are two segments in half precision, and three in float32."""
    source = load_program("gated.nl", "Gated", text=GATED, d=4)
    module = kernels_of(source)
    space, found = vars(cast(Any, module.emitted).module), []
    own = space["segment_count"]

    def segment_count(*segments: Any) -> Any:
        found.append(own(*segments))
        return found[-1]

    monkeypatch.setitem(space, "segment_count", segment_count)
    inputs = inputs_of(source, 1, 70, torch.float32)
    expected = run(ticks_of(source).double(), {n: x.double() for n, x in inputs.items()})
    assert largest_error(expected, run(module, inputs)) < 1e-5
    count, found[:] = {*found}, []
    run(module.bfloat16(), {n: x.bfloat16() for n, x in inputs.items()})
    assert (count, {*found}) == ({3}, {2})


def test_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels multiply in the type that products come in; states and gates are float32, inputs stay what they are."""
    source = gated()
    inputs = inputs_of(source, 1, 40, torch.float32)
    module = kernels_of(source)
    expected = run(ticks_of(source).double(), {n: x.double() for n, x in inputs.items()})
    seen = seen_types(module, monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(module, inputs)
    assert seen[0] == {torch.float32, torch.bfloat16}  # q and v as they are given, k as the product gives it
    assert all(x.dtype == torch.float32 for n, x in found.values.items() if n.startswith("state"))
    assert max(relative_rms(v, found.values[n]) for n, v in expected.values.items()) < 6e-3
    for name, gradient in found.gradients.items():
        assert gradient is not None
        assert gradient.dtype == torch.float32, name
