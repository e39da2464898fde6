"""Operands that products take with all of their digits: in deep memories alone, and to some effect."""

from __future__ import annotations

import pytest
import torch

from nldsl.api import load_program
from nldsl.backends.triton import exact
from tests.triton.compare import inputs_of, kernels_of, program, relative_rms, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses


def states() -> dict[str, float]:
    """The errors of the final states of a deep memory in bfloat16."""
    source = load_program("tests/triton/novel.nl", "DeepMoments", dk=16, dv=16, hidden=24)
    inputs = inputs_of(source, 2, 32, torch.bfloat16)
    with torch.no_grad():
        reference, module = ticks_of(source).bfloat16().double(), kernels_of(source).bfloat16()
        expected = reference(**{n: x.double() for n, x in inputs.items()}, state=reference.init_state(2))[1].states
        found = module(**inputs, state=module.init_state(2))[1].states
    return {n: relative_rms(x, found[n]) for n, x in expected.items() if x.is_floating_point()}


def test_states_of_a_deep_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same kernels with rounded operands."""
    found = states()
    monkeypatch.setattr(exact, "CHAIN", 99)
    rounded = states()
    assert max(found.values()) < 0.9 * max(rounded.values()), (found, rounded)


@pytest.mark.parametrize(
    ("path", "entry", "dims", "passes"),
    [
        ("memories/delta.nl", "GatedDelta", {"dk": 16, "dv": 16}, 0),
        ("memories/ttt.nl", "TTTLinear", {"d": 16}, 0),
        ("memories/ttt.nl", "TTTMlp", {"d": 16}, 4),
    ],
)
def test_who_takes_more_passes(path: str, entry: str, dims: dict[str, int], passes: int) -> None:
    """A linear memory and a single layer do not; a network does, for its states and for what it is wrong by."""
    text = kernels_of(program(path, entry, **dims)).emitted.source
    forward = text.split("_fwd_step(")[1].split("@triton.jit")[0]
    assert forward.count("= with_rest(") == passes
