"""What lies in memory in the type of matrix products, and what in float32."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from nldsl.api import load_program
from nldsl.backends.torch.backend import TorchBackend
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.passes.plan import plan

SQUASHED = """
memory Squashed(dk: dim, dv: dim) {
  state M: [dv, dk] = 0
  step(q: [dk], k: [dk], v: [dv], keep: []) -> [dv] {
    seen = tanh(M at start of 16)
    M <- keep * M + outer(v - seen @ k, k)
    return M @ q
  }
}
"""


def types(path: str, entry: str, text: str | None = None) -> dict[str, set[str]]:
    """The names of workspaces by the type they have."""
    schedule = plan(load_program(path, entry, text=text, dk=16, dv=16))
    source = TorchBackend("triton", kernels=LoopKernelWriter(required=True)).emit(schedule)
    found: dict[str, set[str]] = {"wide": set(), "narrow": set()}
    for name, kind in re.findall(r"(\w+) = \w+\.new_empty\(.*dtype=(wide|narrow)\)", source):
        found[kind].add(name)
    return found


def test_operands_of_products_are_narrow_and_gates_are_not() -> None:
    found = types("stdlib/memories/delta.nl", "GatedDelta")
    assert {"M_begin", "d_M_begin", "inverse_kept"} <= found["narrow"]
    assert found["wide"] and all("keep" in name or name.endswith("_sum_kept") for name in found["wide"])


def test_gates_of_channels_are_float32() -> None:
    found = types("stdlib/memories/delta.nl", "KimiDelta")
    assert "M_begin" in found["narrow"]
    assert any("keep" in name for name in found["wide"])


def test_a_state_that_goes_into_a_function_is_float32() -> None:
    found = types("squashed.nl", "Squashed", SQUASHED)
    assert any(name.startswith(("M_at_16_begin", "M_16")) for name in found["wide"]), found
    assert "M_begin" in found["narrow"], found
