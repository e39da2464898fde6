"""Kernels whose programs divide one dim and go through another: values and gradients, and what each does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nldsl.api import load_program
from nldsl.backends.torch.backend import TorchBackend
from nldsl.backends.triton import two_level
from nldsl.backends.triton.generate import Choices
from nldsl.backends.triton.host import Written
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.ir.stages import FINISH
from nldsl.passes.plan import plan
from tests.triton.compare import inputs_of, kernels_of, largest_error, program, run, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
LINEAR = ("gated_linear.nl", "GatedLinearAttention"), ("delta.nl", "DeltaNet"), ("delta.nl", "KimiDelta")


def check(source: Any, room: int, calls: tuple[int, ...] = ()) -> None:
    inputs = inputs_of(source, 1, 18, torch.float64)
    module = kernels_of(source, Choices(room=room, segment=16))
    assert "part = tl.program_id(1) * BP" in module.emitted.source
    assert largest_error(run(ticks_of(source).double(), inputs), run(module.double(), inputs, calls)) < 1e-10


def test_sums_over_columns_that_programs_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    """32 columns in two parts, 20 in two tiles of which the second has a tail; the second segment has two ticks."""
    monkeypatch.setattr(two_level, "WIDTHS", (16,))
    check(program("memories/delta.nl", "GatedDelta", dk=32, dv=20), 6000)


@pytest.mark.slow
@pytest.mark.parametrize(("file", "entry"), LINEAR, ids=[entry for _, entry in LINEAR])
def test_keys_that_fill_no_power_of_two(file: str, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_level, "WIDTHS", (16,))
    check(program(f"memories/{file}", entry, dk=40, dv=20), 9000, (5, 13))


ECHO = """
memory Echo(dk: dim, dv: dim) {
  state M: [dv, dk] = 0
  step(q: [dk], k: [dk], v: [dv], rate: [], keep: [], write: []) -> [dv] {
    M <- keep * M - rate * outer(M @ k - tanh(v), k)
    M <- M + write * outer(v, q)
    return tanh(M @ q) + write * (M @ k)
  }
}
"""


@pytest.mark.slow
def test_a_memory_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writes at a tick, two reads, and functions around them."""
    monkeypatch.setattr(two_level, "WIDTHS", (16,))
    check(load_program("echo.nl", "Echo", text=ECHO, dk=32, dv=40), 12000)


def written(entry: str) -> Written:
    writer = LoopKernelWriter(required=True, capability=90)
    TorchBackend("triton", kernels=writer).emit(plan(program("memories/delta.nl", entry, dk=128, dv=128)))
    (back,) = (w for w in writer.written if w.job.reverse)
    return back


def test_the_way_back_reads_states_once() -> None:
    """For all cotangents: what is read from them, STEP has left when it ran again. Their cotangents and those of
    outputs once, too."""
    kernels = [k for k in written("GatedDelta").kernels if k.stage == FINISH]
    readers = {name: sum(name in (*k.arguments, *k.workspaces) for k in kernels) for name in ("M_begin", "d_M_begin")}
    assert readers == {"M_begin": 1, "d_M_begin": 1}
    assert sum("d_y" in k.arguments for k in kernels) == 1
    assert {"d_q", "d_k", "d_v"} <= {name for k in kernels if k.parts for name in k.arguments}
