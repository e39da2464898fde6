"""The interpreter's own rules: layouts of results, results without a batch, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nldsl.backends.reference import Reference, gradients
from nldsl.dims import symbol
from nldsl.ir.types import Clock
from nldsl.passes.derive import Derive
from tests.numeric.maker import Maker, random_arrays


def test_results_have_the_axis_of_the_batch() -> None:
    made = Maker()
    made.input("x", 3)
    made.outputs = [("w", made.param("w", 2))]
    outputs, _, _ = Reference(made.program(), {"w": np.array([1.0, 2.0])}).run({"x": np.zeros((4, 5, 3))})
    assert outputs["w"].shape == (4, 5, 2)


def test_an_optimizer_has_no_batch() -> None:
    made = Maker(batched=False)
    g, m = made.input("g", 2, 3), made.state("m", 2, 3)
    made.updates["m"] = made.op("add", made.op("mul", 0.9, m), g)
    made.outputs = [("change", made.op("mul", -0.1, made.updates["m"]))]
    program = made.program()
    data = random_arrays(0, g=(5, 2, 3))["g"]
    outputs, _, state = Reference(program, {}).run({"g": data})
    expected = np.zeros((2, 3))
    for t in range(5):
        expected = 0.9 * expected + data[t]
        np.testing.assert_allclose(outputs["change"][t], -0.1 * expected)
    assert state["m"].shape == (2, 3)
    found = gradients(program, {}, {"g": data}, {"change": np.ones((5, 2, 3))})
    np.testing.assert_allclose(found.inputs["g"][:, 0, 0], [-0.1 * sum(0.9**n for n in range(5 - t)) for t in range(5)])


def test_losses_of_one_level_are_added() -> None:
    made = Maker()
    x = made.input("x")
    made.losses = [("step", x), ("slow", x), ("step", made.op("mul", 2.0, x))]
    _, losses, _ = Reference(made.program(), {}).run({"x": np.ones((1, 2))})
    assert {name: value.tolist() for name, value in losses.items()} == {"step": [[3.0, 3.0]], "slow": [[1.0, 1.0]]}


def test_a_program_without_inputs() -> None:
    made = Maker()
    n = made.state("n")
    made.updates["n"] = made.op("add", n, 1.0)
    made.outputs = [("n", n)]
    reference = Reference(made.program(), {})
    outputs, _, _ = reference.run({}, reference.init_state(2), ticks=3)
    assert outputs["n"].tolist() == [[0.0, 1.0, 2.0]] * 2


def test_probes_at_ticks_at_which_they_exist() -> None:
    made = Maker()
    x = made.input("x")
    probe = made.op("exp", x, guard=Clock(2))
    made.outputs = [("y", x)]
    program = replace(made.program(), probes=(("p", probe),), body=tuple(made.body.instrs))
    reference = Reference(program, {})
    steps, _ = reference.run_values(reference.sequence_of({"x": np.zeros((1, 4))}), None)
    assert [sorted(step.probes) for step in steps] == [[], ["p"], [], ["p"]]


def test_an_integer_assigned_to_a_real_state() -> None:
    made = Maker()
    x, S = made.input("x"), made.state("S", start=0.5)
    made.updates["S"] = made.op("clock", scale=1, period=0)
    made.outputs = [("y", made.op("mul", S, x))]
    outputs, _, _ = Reference(made.program(), {}).run({"x": np.full((1, 3), 0.5)})
    assert outputs["y"].tolist() == [[0.25, 0.5, 1.0]]


def test_infinities_are_values() -> None:
    made = Maker()
    made.outputs = [("y", made.op("log", made.input("x")))]
    outputs, _, _ = Reference(made.program(), {}).run({"x": np.zeros((1, 1))})
    assert outputs["y"].tolist() == [[-np.inf]]


def test_rows_outside_a_table() -> None:
    made = Maker()
    made.outputs = [("y", made.op("take", made.param("w", 4, 2), made.input("i", kind="int")))]
    reference = Reference(made.program(), {"w": np.zeros((4, 2))})
    for index in (4, -1):
        with pytest.raises(IndexError, match=f"row {index} of a table of 4 rows"):
            reference.run({"i": np.array([[index]])})


def test_one_hot_of_a_number_outside_is_zero() -> None:
    made = Maker()
    made.outputs = [("y", made.op("one_hot", made.input("i", kind="int"), n=2))]
    outputs, _, _ = Reference(made.program(), {}).run({"i": np.array([[1, 2, -1]])})
    assert outputs["y"].tolist() == [[[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]]


def test_wrong_parameter() -> None:
    made = Maker()
    made.outputs = [("y", made.param("w", 4, 2))]
    with pytest.raises(ValueError, match=r"parameter w: shape \(2, 4\), not \(4, 2\)"):
        Reference(made.program(), {"w": np.zeros((2, 4))})


def test_missing_input() -> None:
    made = Maker()
    made.outputs = [("y", made.op("add", made.input("x"), made.input("z")))]
    with pytest.raises(ValueError, match="no values for the inputs z"):
        Reference(made.program(), {}).run({"x": np.zeros((1, 1))})


def test_symbolic_sizes() -> None:
    made = Maker()
    made.state("S", symbol("d"))
    with pytest.raises(ValueError, match="the size d is not known"):
        Reference(made.program(), {}).init_state()


def test_second_derivatives_need_derive() -> None:
    made = Maker()
    x = made.input("x")
    (first,) = made.grad(made.op("sin", x), x)
    (second,) = made.grad(first, x)
    made.outputs = [("first", first), ("second", second)]
    program = made.program()
    data = {"x": np.full((1, 1), 0.3)}
    with pytest.raises(NotImplementedError, match="derive"):
        Reference(program, {}).run(data)
    outputs, _, _ = Reference(Derive().apply(program), {}).run(data)
    np.testing.assert_allclose(outputs["second"], -np.sin(0.3))


def test_states_with_the_same_first_value_have_gradients_of_their_own() -> None:
    made = Maker()
    w = made.param("w")
    a, b = made.state("a", start="w"), made.state("b", start="w")
    made.outputs = [("y", made.op("add", made.op("mul", 2.0, a), made.op("mul", made.op("mul", 3.0, b), w)))]
    program = made.program()
    found = gradients(program, {"w": np.array(5.0)}, {}, {"y": np.ones((1, 1))}, ticks=1)
    assert found.states["a"].tolist() == [2.0]
    assert found.states["b"].tolist() == [15.0]
    assert float(found.params["w"]) == 2.0 + 15.0 + 15.0
