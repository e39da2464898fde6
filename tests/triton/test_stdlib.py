"""Every program of the standard library: which loops have kernels, and that these are the program."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from nldsl.backends.torch.backend import TorchBackend
from nldsl.backends.triton.generate import Choices
from nldsl.backends.triton.provider import BackendRemark, LoopKernelWriter
from nldsl.ir.program import Program
from nldsl.passes.plan import plan
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module
from nldsl.verify.sizes import load_small
from nldsl.verify.subject import ModuleSubject
from tests.stdlib.cases import EVERY, case, request, worst
from tests.stdlib.native_gaps import AMPLIFIES
from tests.triton.gaps import CANCELS, LONG, NO_KERNELS, rows

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "gpu.md"
TICKS, SEGMENT = 11, 8  # a segment and a part of one
SINGLE, DOUBLE = 1e-5, 1e-8
SLOW = {f"{file}:{name}" for file, names in LONG.items() for name in names.split()} | {*NO_KERNELS}


def kernels(program: Program, segment: int = 0) -> tuple[LoopKernelWriter, Module]:
    """The writer, with what it refused, and the module."""
    writer = LoopKernelWriter(choices=Choices(segment=segment) if segment else None)
    backend = TorchBackend("triton", kernels=writer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BackendRemark)
        planned = plan(program, ticks=True)
        emitted = backend.load(backend.emit(planned), planned)
    return writer, Module(program, emitted, initialize(program, 0))


def every_case() -> list[object]:
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EVERY]


@pytest.mark.parametrize("name", every_case())
def test_loops_have_kernels(name: str) -> None:
    writer, _ = kernels(load_small(request(EVERY[name])).program)
    assert {reason for _, reason in writer.refused} == {NO_KERNELS[name]} if name in NO_KERNELS else not writer.refused


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [n for n in EVERY if n not in NO_KERNELS])
def test_kernels_are_the_program(name: str) -> None:
    """Values, states and gradients beside the reference interpreter; in float64 where a program amplifies rounding."""
    known = case(name, TICKS)
    writer, module = kernels(known.program, SEGMENT)
    if not writer.written:
        pytest.skip("it has no loop")
    single = EVERY[name].name not in {*AMPLIFIES, *CANCELS}
    subject = ModuleSubject("torch", known.program, known.drawn.params, single=single)
    module.load_state_dict(subject.module.state_dict())
    subject.module = module.to(subject.dtype)
    values = subject.run(known.drawn.inputs, TICKS)
    gradients = subject.gradients(known.drawn.inputs, TICKS, known.weights)
    errors = [
        worst(known.values.outputs | known.values.losses, values.outputs | values.losses),
        worst(known.values.states, values.states),
        *(worst(getattr(known.gradients, k), getattr(gradients, k)) for k in ("params", "inputs", "starts")),
    ]
    assert max(errors) < (SINGLE if single else DOUBLE)


def test_the_table_of_gaps_is_in_the_documentation() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition("| program | why its loops have no kernels |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert shown.splitlines() == rows()
    assert {*NO_KERNELS, *SLOW} <= set(EVERY)
