"""Memories that combine features in ways that the library does not, on every backend, beside the reference."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pytest

pytest.importorskip("torch")

from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.schedule import Scan
from nldsl.passes.plan import plan
from nldsl.standalone import Request, load
from nldsl.verify.subject import ModuleSubject
from tests.numeric.test_unseen import DOUBLE, SEGMENT, SINGLE, error, some
from tests.stdlib.cases import Case, finite, ran

FILE = Path(__file__).parent / "combinations.nl"
TICKS = 19
EVERY = "SharedKeys Mutual Diagonals Table TwoCopies".split()
MLIR = ("Diagonals", "TwoCopies")
TRITON = ("Mutual",)


@lru_cache(maxsize=4)
def known(name: str, ticks: int = TICKS) -> Case:
    found = ran(load(Request(FILE, name)).program, "signed", ticks)
    assert finite(found.gradients)
    return found


@pytest.mark.parametrize("name", EVERY)
def test_torch(name: str) -> None:
    case = known(name)
    assert error(case, ModuleSubject("torch", case.program, case.drawn.params)) < DOUBLE


@pytest.mark.parametrize("name", some(MLIR, EVERY))
def test_mlir(name: str) -> None:
    pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")
    case = known(name)
    assert error(case, ModuleSubject("mlir", case.program, case.drawn.params, required=True)) < DOUBLE


@pytest.mark.parametrize("name", some(TRITON, EVERY))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
def test_triton(name: str) -> None:
    pytest.importorskip("triton")
    from tests.triton.test_stdlib import kernels

    case = known(name, 11)
    writer, module = kernels(case.program, SEGMENT)
    assert not writer.refused
    subject = ModuleSubject("torch", case.program, case.drawn.params, single=True)
    module.load_state_dict(subject.module.state_dict())
    subject.module = module.to(subject.dtype)
    assert error(case, subject) < SINGLE


def test_rows_that_integers_pick_are_read_in_parallel() -> None:
    loops = [p for p in plan(known("Table").program).phases if isinstance(p, (ChunkLoop, Scan))]
    assert [type(p) for p in loops] == [ChunkLoop]
