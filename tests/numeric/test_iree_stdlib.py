"""Every program of the standard library as a module of IREE: values and gradients on the CPU, PTX for a GPU."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("iree.compiler")
pytest.importorskip("iree.runtime")

from nldsl.backends.iree.compiler import compile_text
from nldsl.backends.iree.loader import LoadError
from nldsl.backends.iree.package import whole_module
from nldsl.diagnostics.diagnostic import DiagnosticError
from nldsl.ir.program import Program
from nldsl.passes.plan import plan
from nldsl.verify.inputs import KINDS
from nldsl.verify.sizes import load_small, ticks_for
from tests.numeric.iree_compare import (
    CLOSE,
    ORDER_OF_SUMS,
    errors,
    errors_of_pytorch,
    functions,
    loaded,
    training_errors,
    usable,
)
from tests.numeric.iree_programs import AMPLIFIES, CUDA_GAPS, GAPS, QUICK, rows
from tests.stdlib.cases import EVERY, request
from tests.stdlib.native_gaps import INPUTS

MOST_TICKS = 45


def params(gaps: dict[str, str], quick: tuple[str, ...]) -> list[Any]:
    found = []
    for name in EVERY:
        marks = [] if name in quick else [pytest.mark.slow]
        if name in gaps:
            raised = (DiagnosticError, LoadError, AssertionError)
            marks = [pytest.mark.slow, pytest.mark.xfail(reason=gaps[name], strict=True, raises=raised)]
        found.append(pytest.param(name, id=name, marks=marks))
    return found


def program_of(name: str) -> Program:
    return load_small(request(EVERY[name])).program


def test_the_tables_have_programs_that_there_are() -> None:
    assert not {*QUICK, *AMPLIFIES, *GAPS, *CUDA_GAPS} - set(EVERY)
    page = Path(__file__).parents[2] / "docs" / "reference" / "iree.md"
    shown = page.read_text(encoding="utf-8").partition("| program | largest error |\n| --- | --- |\n")[2]
    assert shown.partition("\n\n")[0].splitlines() == rows()


@pytest.mark.parametrize("name", params(GAPS, QUICK))
def test_on_the_cpu(name: str) -> None:
    program = program_of(name)
    kinds = [INPUTS[EVERY[name].name]] if EVERY[name].name in INPUTS else list(KINDS)
    drawn, run = usable(program, min(ticks_for(program), MOST_TICKS), 2, kinds)
    found = errors(program, loaded(program, drawn.params), drawn, run)
    wrong = {what: e for what, e in found.items() if not e < CLOSE}
    assert bool(wrong) == (name in AMPLIFIES), wrong
    if wrong:
        assert max(wrong.values()) < ORDER_OF_SUMS * max(errors_of_pytorch(program, drawn, run).values())


@pytest.mark.parametrize("name", params(CUDA_GAPS, ("optimizers/adagrad:AdaGrad",)))
def test_for_a_gpu_that_is_not_here(name: str) -> None:
    schedule = plan(program_of(name))
    text = whole_module(schedule, functions(schedule)).text
    data = compile_text(text, target="cuda")
    assert b".target sm_80" in data
    kernels = [k.decode() for k in re.findall(rb"\.visible \.entry (\w+)\(", data)]
    assert any(k.startswith(tuple(way_back(text))) for k in kernels), "the kernels of the way back are in the module"


def way_back(text: str) -> set[str]:
    """The functions of a module that ``backward`` needs and none of the others does."""
    pieces = re.split(r"^(?=(?:func|util)\.func )", text, flags=re.MULTILINE)[1:]
    calls = {re.findall(r"@(\w+)", p)[0]: set(re.findall(r"util\.call @(\w+)", p)) for p in pieces}

    def needed(name: str) -> set[str]:
        return {name}.union(*map(needed, calls[name]))

    others = [n for n in calls if n != "backward" and not n.startswith("part_")]
    return needed("backward").difference(*map(needed, others))


@pytest.mark.slow
def test_training_steps_of_hope() -> None:
    """Two layers with all their levels, which train at every step, every second and every third one. The first steps of
    Adam divide small gradients by themselves: in float32 PyTorch is as far away."""
    dims = (("chunk", 4), ("mid_period", 2), ("slow_period", 3))
    program = load_small(replace(request(EVERY["models/hope:HopeLM"]), dims=dims)).program
    rng = np.random.default_rng(0)
    for found in training_errors(program, [(rng.integers(0, 16, (3, 11)),) for _ in range(6)]):
        assert found["loss"][0] < CLOSE
        wrong = {n: pair for n, pair in found.items() if pair[0] > max(CLOSE, ORDER_OF_SUMS * pair[1])}
        assert not wrong
