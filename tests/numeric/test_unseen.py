"""Memories and models that nothing was built for, on every backend, beside the reference: values, states and
gradients, single ticks, cut and packed sequences. Compiling native loops takes most of the time: a few in every run."""

from __future__ import annotations

import warnings
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from nldsl.ir.program import Program
from nldsl.runtime.build import build_module
from nldsl.runtime.module import Module
from nldsl.standalone import Request, load
from nldsl.verify.inputs import KINDS, is_usable
from nldsl.verify.subject import ModuleSubject
from tests.stdlib.cases import BATCH_SIZE, Case, finite, ran, worst

FILE = Path(__file__).parent / "unseen.nl"
TICKS = 19  # a segment of 16 and a part of one, or two of 8
SINGLE, DOUBLE = 1e-5, 1e-10
EVERY = (
    "HuberMemory CosineMemory Contrast Bilinear Rotating Scalars MatrixDecay AdamInside RateGiver Sphere "
    "SwigluAnchored Slots ThreeClocks TwoAnchors LearnedWindow TapsWindow Resetting Teacher "
    "Consolidate Continuum Solver"
).split()
MLIR = ("HuberMemory", "Teacher")
TRITON = ("AdamInside", "TwoAnchors", "Continuum")
SEGMENT = 8
NO_KERNELS = dict.fromkeys(("MatrixDecay", "LearnedWindow"), "`matrix_scan` has no form in a kernel")


def some(fast: tuple[str, ...], every: list[str] = EVERY) -> list[Any]:
    return [pytest.param(n, marks=[] if n in fast else [pytest.mark.slow]) for n in every]


@lru_cache(maxsize=2)
def program_of(name: str) -> Program:
    return load(Request(FILE, name)).program


@lru_cache(maxsize=2)
def known(name: str, ticks: int = TICKS) -> Case:
    for kind in KINDS:
        found = ran(program_of(name), kind, ticks)
        if is_usable(found.values.outputs | found.values.losses | found.values.states) and finite(found.gradients):
            return found
    raise AssertionError(f"{name}: the reference is not finite")


def error(case: Case, subject: ModuleSubject) -> float:
    """Of values, states and gradients; of single ticks; of a sequence in three calls."""
    inputs, ticks = case.drawn.inputs, case.drawn.ticks
    values, slopes = subject.run(inputs, ticks), subject.gradients(inputs, ticks, case.weights)
    expected = case.values.outputs
    errors = [
        worst(expected | case.values.losses, values.outputs | values.losses),
        worst(case.values.states, values.states),
        *(worst(getattr(case.gradients, k), getattr(slopes, k)) for k in ("params", "inputs", "starts")),
    ]
    for cuts in ((1, 4, ticks), range(1, ticks + 1)):
        state, parts, at = subject.begin(BATCH_SIZE), [], 0
        for end in cuts:
            if isinstance(cuts, range):
                y, state = subject.step({n: x[:, at] for n, x in inputs.items()}, state)
                y = {n: x[:, None] for n, x in y.items()}
            else:
                y, state = subject.call(case.drawn.cut(at, end), state)
            parts.append(y)
            at = end
        errors.append(worst(expected, {n: np.concatenate([p[n] for p in parts], 1) for n in expected}))
    return max(errors)


@pytest.mark.parametrize("name", EVERY)
def test_torch(name: str) -> None:
    case = known(name)
    assert error(case, ModuleSubject("torch", case.program, case.drawn.params)) < DOUBLE


@pytest.mark.parametrize("single", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", some(MLIR))
def test_mlir(name: str, single: bool) -> None:
    pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")
    case = known(name)
    subject = ModuleSubject("mlir", case.program, case.drawn.params, single=single, required=True)
    assert error(case, subject) < (SINGLE if single else DOUBLE)


@pytest.mark.parametrize("name", some(TRITON))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
def test_triton(name: str) -> None:
    pytest.importorskip("triton")
    from tests.triton.test_stdlib import kernels

    case = known(name, 11)
    writer, module = kernels(case.program, SEGMENT)
    assert {reason for _, reason in writer.refused} == ({NO_KERNELS[name]} if name in NO_KERNELS else set())
    subject = ModuleSubject("torch", case.program, case.drawn.params, single=True)
    module.load_state_dict(subject.module.state_dict())
    subject.module = module.to(subject.dtype)
    assert error(case, subject) < SINGLE


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["HuberMemory", "Sphere", "ThreeClocks"])
def test_iree(name: str) -> None:
    pytest.importorskip("iree.compiler", reason="the extra mlir is not installed")
    from tests.numeric.iree_compare import compare, loaded, usable

    program = program_of(name)
    drawn, run = usable(program, TICKS)
    compare(program, loaded(program, drawn.params), drawn, run)


@pytest.mark.parametrize("name", [n for n in EVERY if n != "Continuum"])  # that one waits for the next token
def test_packed_sequences(name: str) -> None:
    """``cu_seqlens`` is a loop over the sequences."""
    case = known(name)
    module: Module = build_module(case.program, "torch", 0).double()
    rows = {n: torch.as_tensor(x[:1]) for n, x in case.drawn.inputs.items()}
    cuts = [0, 3, 12, TICKS]
    with torch.no_grad():
        found, _ = module(**rows, cu_seqlens=cuts, state=module.init_state(len(cuts) - 1))
        for a, b in pairwise(cuts):
            expected, _ = module(**{n: x[:, a:b] for n, x in rows.items()}, state=module.init_state(1))
            assert torch.allclose(found[:, a:b], expected, rtol=0, atol=1e-10)


def test_weights_of_a_window_are_taps_of_past_values() -> None:
    """``taps[i] * x[i]`` over a window, against the same with ``prev``."""
    modules = [
        build_module(load(Request(FILE, name)).program, "torch", 0).double() for name in ("TapsWindow", "TapsPlain")
    ]
    modules[1].load_state_dict(modules[0].state_dict())
    x = torch.randn(2, TICKS, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(modules[0](x), modules[1](x), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "stage", ["syntax", "program", "derived", "simplified", "schedule", "chunk", "torch", "triton"]
)
def test_every_stage_can_be_printed(name: str, stage: str) -> None:
    from nldsl.explain.stages import stage_text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert stage_text(stage, str(FILE), name, {})[0]
