"""Kernels run in Triton's interpreter here: on the CPU, in NumPy, with memory that was never written full of NaN."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")  # as tests/conftest.py does, for one folder alone

pytest.importorskip("torch")
pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """What ``torch.empty`` gives is NaN: what a kernel reads before anything wrote it shows."""
    import torch

    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled()
    fill = memory.fill_uninitialized_memory
    memory.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)
    yield
    memory.fill_uninitialized_memory = fill
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True)
def _products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter holds bfloat16 as bits in integers, and multiplies the integers: here it multiplies the numbers,
    and adds in float32 as the hardware does."""
    from tests.triton.bfloat16 import repair

    repair(monkeypatch.setattr)
