"""Every program of the standard library with native loops, forward and backward, beside the reference interpreter."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.backends.mlir.native_step import NativeStep
from nldsl.backends.mlir.views import FallbackWarning
from nldsl.verify.subject import ModuleSubject
from tests.stdlib.cases import BATCH_SIZE, EVERY, TICKS, case, worst
from tests.stdlib.native_gaps import AMPLIFIES, INPUTS, NO_FORM, rows

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "mlir.md"
SINGLE, DOUBLE = 1e-5, 1e-8
FAST = ("memories/delta:GatedDelta", "memories/ttt:TTTLinear", "memories/titans:TitansLinear", "blocks/basic:conv")


def error(name: str, single: bool) -> float:
    """Of values, of gradients, and of the first ticks one by one."""
    known = case(name)
    program, drawn = known.program, known.drawn
    subject = ModuleSubject("mlir", program, drawn.params, single=single)
    values = subject.run(drawn.inputs, TICKS)
    gradients = subject.gradients(drawn.inputs, TICKS, known.weights)
    errors = [
        worst(known.values.outputs | known.values.losses, values.outputs | values.losses),
        worst(known.values.states, values.states),
        *(worst(getattr(known.gradients, k), getattr(gradients, k)) for k in ("params", "inputs", "starts")),
    ]
    tick = getattr(subject.module.emitted, "tick", None)
    assert not program.states or not program.outputs or isinstance(tick, NativeStep)
    if program.states and program.outputs and not any(i.ahead for i in program.inputs):
        state, stepped = subject.begin(BATCH_SIZE), {k: y.copy() for k, y in known.values.outputs.items()}
        for n in range(2):
            outputs, state = subject.step({k: x[:, n] for k, x in drawn.inputs.items()}, state)
            for k, y in outputs.items():
                stepped[k][:, n] = y
        errors.append(worst(known.values.outputs, stepped))
    return max(errors)


def every_case(name: str) -> object:
    marks = [] if name in FAST else [pytest.mark.slow]
    reason = AMPLIFIES.get(EVERY[name].name) or NO_FORM.get(EVERY[name].name)
    if reason is not None:
        marks.append(pytest.mark.xfail(strict=True, raises=(AssertionError, FallbackWarning), reason=reason))
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [every_case(n) for n in EVERY])
def test_single_precision(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        assert error(name, single=True) < SINGLE


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EVERY if EVERY[n].name in AMPLIFIES])
def test_what_amplifies_rounding_is_right_in_double_precision(name: str) -> None:
    assert error(name, single=False) < DOUBLE


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EVERY if EVERY[n].name in AMPLIFIES and EVERY[n].name != "Proximal"])
def test_pytorch_amplifies_rounding_as_much(name: str) -> None:
    """In float32 the native form is no worse than the torch backend but for what differs from one order of sums to
    another: a factor of four. (Proximal takes minutes to differentiate in PyTorch.)"""
    known = case(name)
    errors = []
    for backend in ("mlir", "torch"):
        subject = ModuleSubject(backend, known.program, known.drawn.params, single=True)
        gradients = subject.gradients(known.drawn.inputs, TICKS, known.weights)
        values = subject.run(known.drawn.inputs, TICKS)
        own = [worst(getattr(known.gradients, k), getattr(gradients, k)) for k in ("params", "inputs", "starts")]
        errors.append(max(*own, worst(known.values.outputs, values.outputs), worst(known.values.states, values.states)))
    assert errors[0] <= 4 * errors[1]


def test_the_table_of_gaps_is_in_the_documentation() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition("| program | gap |\n| --- | --- |\n")[2].partition("\n\n")[0].splitlines()
    assert shown == rows()
    known = {entry.name for entry in EVERY.values()}
    assert {*AMPLIFIES, *NO_FORM, *INPUTS} <= known
