"""Random programs: every stage is well-formed, prints and reads back, and means the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from nldsl.backends.reference import Reference, gradients
from nldsl.ir.parse import parse_program
from nldsl.ir.print import print_program
from nldsl.ir.program import Program
from nldsl.ir.verify import verify
from nldsl.passes.derive import Derive
from nldsl.passes.simplify import Simplify
from tests.numeric.maker import Array
from tests.numeric.random_programs import Made, programs

relaxed = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
thorough = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))


def results(program: Program, made: Made) -> dict[str, Array]:
    reference = Reference(program, made.params)
    outputs, _, state = reference.run(made.inputs)
    return outputs | {s.name: state[s.name] for s in program.states}


def agree(expected: dict[str, Array], found: dict[str, Array]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-7, atol=1e-9, err_msg=name)


def check_stages(made: Made) -> None:
    program = made.program
    derived = verify(Derive().apply(program))
    assert all(i.op != "grad" for i in derived.body)
    simple = verify(Simplify().apply(derived))
    assert Simplify().apply(simple) == simple
    early = verify(Simplify().apply(program))  # the rules also hold where derivatives are still operations
    for stage in (program, derived, simple, early):
        text = print_program(stage)
        assert parse_program(text) == stage
        assert print_program(parse_program(text)) == text
    found = results(derived, made)
    assume(all(np.isfinite(x).all() for x in found.values()))
    agree(found, results(simple, made))
    try:
        expected = results(program, made)
    except NotImplementedError:  # a derivative of a derivative has no definition without `derive`
        return
    agree(expected, found)
    agree(expected, results(early, made))


@relaxed
@given(programs())
def test_stages(made: Made) -> None:
    check_stages(made)


@pytest.mark.slow
@thorough
@given(programs(size=25))
def test_stages_of_larger_programs(made: Made) -> None:
    check_stages(made)


@settings(relaxed, max_examples=25)
@given(programs())
def test_outer_gradients_survive_simplification(made: Made) -> None:
    derived = Derive().apply(made.program)
    simple = Simplify().apply(derived)
    random = np.random.default_rng(0)
    shapes, _, _ = Reference(derived, made.params).run(made.inputs)
    weights = {name: random.standard_normal(value.shape) for name, value in shapes.items()}
    one = gradients(derived, made.params, made.inputs, weights)
    two = gradients(simple, made.params, made.inputs, weights)
    assume(all(np.isfinite(x).all() for x in (*one.params.values(), *one.inputs.values())))
    agree(one.params, two.params)
    agree(one.inputs, two.inputs)
    agree(one.states, two.states)
