"""Every program of the standard library with native loops, forward and backward, beside the reference interpreter."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.backends.mlir.native_step import NativeStep
from nldsl.backends.mlir.views import FallbackWarning
from nldsl.ir.program import Program
from nldsl.standalone import Request
from nldsl.verify.inputs import KINDS, Arrays, Sample, is_usable, sample
from nldsl.verify.sizes import load_small
from nldsl.verify.subject import ModuleSubject, ReferenceSubject, Run, Weights, rounded
from tests.oracles.catalogue import AROUND, STDLIB, Entry, _spelled_out, entries
from tests.stdlib.native_gaps import AMPLIFIES, INPUTS, NO_FORM, rows

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "mlir.md"
TICKS, BATCH_SIZE = 21, 2  # a segment of 16 ticks, and five of one
SINGLE, DOUBLE = 1e-5, 1e-8
EVERY = {f"{e.file}:{e.name}": e for e in entries()}
FAST = ("memories/delta:GatedDelta", "memories/ttt:TTTLinear", "memories/titans:TitansLinear", "blocks/basic:conv")


@dataclass(frozen=True)
class Case:
    """A program, what it is given, and what the reference makes of it."""

    program: Program
    drawn: Sample
    values: Run
    weights: Weights
    gradients: Run


@lru_cache(maxsize=1)
def case(name: str) -> Case:
    """Inputs and parameters are numbers of float32."""
    entry = EVERY[name]
    program = load_small(request(entry)).program
    kinds = [INPUTS[entry.name]] if entry.name in INPUTS else list(KINDS)
    for kind in kinds:
        with np.errstate(all="ignore"):  # inputs on which a program overflows are left for the next kind
            found = ran(program, kind)
        if is_usable(found.values.outputs | found.values.losses | found.values.states) and finite(found.gradients):
            return found
    raise AssertionError(f"{name}: no inputs on which the reference is finite")


def finite(gradients: Run) -> bool:
    return all(np.isfinite(x).all() for k in ("params", "inputs", "starts") for x in getattr(gradients, k).values())


def ran(program: Program, kind: str) -> Case:
    drawn = sample(program, BATCH_SIZE, TICKS, 0, kind)
    drawn = replace(drawn, inputs=rounded(drawn.inputs), params=rounded(drawn.params))
    reference = ReferenceSubject(program, drawn.params)
    values = reference.run(drawn.inputs, TICKS)
    weights = Weights.random(values, 1)
    return Case(program, drawn, values, weights, reference.gradients(drawn.inputs, TICKS, weights))


def request(entry: Entry) -> Request:
    path = STDLIB / f"{entry.file}.nl"
    text = path.read_text(encoding="utf-8")
    if entry.name in AROUND:
        slower = AROUND[entry.name].replace("rate = 0.1)", "rate = 0.002)")  # at 0.1 some of them diverge
        return Request(path, "Alone", text=text + slower)
    return Request(path, entry.name, text=_spelled_out(entry, text)) if entry.of else Request(path, entry.name)


def worst(expected: Arrays, found: Arrays) -> float:
    """The largest error, relative to the largest entry of its tensor."""
    errors = [0.0]
    for name, value in expected.items():
        if value.dtype.kind == "f" and value.size:
            scale = float(np.abs(value).max())
            assert np.isfinite(found[name]).all(), name
            errors.append(float(np.abs(found[name] - value).max()) / (scale or 1.0))
    return max(errors)


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


def test_the_table_of_gaps_is_in_the_documentation() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition("| program | gap |\n| --- | --- |\n")[2].partition("\n\n")[0].splitlines()
    assert shown == rows()
    known = {entry.name for entry in EVERY.values()}
    assert {*AMPLIFIES, *NO_FORM, *INPUTS} <= known
