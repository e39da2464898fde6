"""Work divided otherwise than at the sizes of other tests: grams in tiles of their channels, kernels for other GPUs."""

from __future__ import annotations

import pytest
import torch

from nldsl.backends.torch.backend import TorchBackend
from nldsl.backends.triton.generate import Choices
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.backends.triton.tune import DEVICE, capability
from nldsl.passes.plan import plan
from tests.triton.compare import inputs_of, kernels_of, largest_error, program, run, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses


@pytest.mark.slow
def test_a_gram_with_decays_for_each_channel_in_tiles() -> None:
    source = program("memories/delta.nl", "KimiDelta", dk=24, dv=3)  # two tiles of 16 channels
    inputs = inputs_of(source, 1, 18, torch.float64)
    module = kernels_of(source, Choices(room=2500, segment=16))
    assert "decay_gram(" in module.emitted.source.partition("for column in range(0, 32, BV):")[2]
    assert largest_error(run(ticks_of(source).double(), inputs), run(module.double(), inputs)) < 1e-10


def test_products_that_stand_the_other_way_round() -> None:
    """States with more channels than columns: the channels are the rows of their products."""
    source = program("memories/delta.nl", "DeltaNet", dk=24, dv=20)
    inputs = inputs_of(source, 1, 18, torch.float64)
    module = kernels_of(source, Choices(room=2000, segment=16))
    assert "tl.trans(inverse_k_M" in module.emitted.source
    assert largest_error(run(ticks_of(source).double(), inputs), run(module.double(), inputs)) < 1e-10


def test_where_products_read_registers_kernels_do_less() -> None:
    planned = plan(program("memories/delta.nl", "DeltaNet", dk=128, dv=128))
    counts = []
    for number in (80, 90):
        writer = LoopKernelWriter(required=True, capability=number)
        TorchBackend("triton", kernels=writer).emit(planned)
        counts.append(sum(len(job.kernels) for job in writer.written))
    assert counts[0] > counts[1]


@pytest.mark.parametrize(("path", "entry"), [("delta", "GatedDelta"), ("gated_linear", "Mamba2")])
def test_kernels_whose_products_read_registers(path: str, entry: str) -> None:
    """What is made of loads is rounded where it lies."""
    source = program(f"memories/{path}.nl", entry, dk=4, dv=3)
    inputs = inputs_of(source, 1, 18, torch.float64)
    module = kernels_of(source, Choices(segment=16), capability=80)
    assert "rounded(" in module.emitted.source
    assert largest_error(run(ticks_of(source).double(), inputs), run(module.double(), inputs)) < 1e-10


def test_the_gpu_that_kernels_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEVICE, "sm_80 NVIDIA A100")
    assert capability() == 80
    monkeypatch.setenv(DEVICE, "")
    assert capability() == 90
