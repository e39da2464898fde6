"""Every program of the standard library as a module of IREE: values and gradients on the CPU, PTX for a GPU."""

from __future__ import annotations

import re
from typing import Any

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
from tests.numeric.iree_compare import CLOSE, errors, functions, loaded, usable
from tests.numeric.iree_programs import AMPLIFIES, CUDA_GAPS, GAPS, QUICK
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


@pytest.mark.parametrize("name", params(GAPS, QUICK))
def test_on_the_cpu(name: str) -> None:
    program = program_of(name)
    kinds = [INPUTS[EVERY[name].name]] if EVERY[name].name in INPUTS else list(KINDS)
    drawn, run = usable(program, min(ticks_for(program), MOST_TICKS), 2, kinds)
    found = errors(program, loaded(program, drawn.params), drawn, run)
    wrong = {what: e for what, e in found.items() if not e < CLOSE}
    assert bool(wrong) == (name in AMPLIFIES), wrong
    assert all(e < 100 * CLOSE for e in found.values()), wrong


@pytest.mark.parametrize("name", params(CUDA_GAPS, ("optimizers/adagrad:AdaGrad",)))
def test_for_a_gpu_that_is_not_here(name: str) -> None:
    schedule = plan(program_of(name))
    data = compile_text(whole_module(schedule, functions(schedule)).text, target="cuda")
    assert b".target sm_80" in data
    kernels = set(re.findall(rb"\.visible \.entry (\w+)\(", data))
    assert any(k.startswith(b"backward") for k in kernels), "the kernels of the way back are in the module"
