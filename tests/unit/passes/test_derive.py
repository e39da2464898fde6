"""The form of expanded derivatives: size, sharing, guards, names, spans. Their values: ``tests/numeric``."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nldsl.dims import symbol
from nldsl.ir.print import print_program
from nldsl.ir.program import Program
from nldsl.ir.types import Clock
from nldsl.ir.verify import verify
from nldsl.passes.derive import Derive, vjp
from nldsl.passes.simplify import Simplify
from nldsl.source import SourceFile
from tests.numeric.maker import Maker, run


def derived(program: Program) -> Program:
    return verify(Derive().apply(program))


def operations(program: Program) -> list[str]:
    return [i.op for i in program.body]


@pytest.mark.parametrize("op", ["tanh", "sigmoid", "softplus", "exp", "sin", "square", "erf"])
def test_a_long_chain_grows_linearly(op: str) -> None:
    made = Maker()
    value = x = made.input("x", 3)
    for _ in range(1000):
        value = made.op("mul", value, value) if op == "square" else made.op(op, value)
    loss = made.op("sum", value, dims=(0,))
    made.outputs = [("g", made.grad(loss, x)[0])]
    program = made.program()
    assert len(derived(program).body) <= 10 * len(program.body)


def test_a_chain_of_derivatives_does_not_explode() -> None:
    """Twenty steps of gradient descent inside a tick, differentiated as a whole."""
    made = Maker()
    x, start = made.input("x", 3), made.param("start", 3)
    theta = start
    for _ in range(20):
        loss = made.l2(made.op("tanh", made.op("mul", theta, x)), x)
        theta = made.op("sub", theta, made.op("mul", 0.1, made.grad(loss, theta)[0]))
    made.outputs = [("g", made.grad(made.l2(theta, x), start)[0])]
    program = made.program()
    assert len(derived(program).body) < 25 * len(program.body)


def test_one_sweep_serves_all_variables() -> None:
    made = Maker()
    x, y = made.input("x", 3), made.input("y", 3)
    loss = made.l2(made.op("tanh", made.op("mul", x, y)), y)
    made.outputs = [(f"g{n}", g) for n, g in enumerate(made.grad(loss, x, y))]
    counted = Counter(operations(Simplify().apply(derived(made.program()))))
    assert counted["tanh"] == 1
    assert counted["mul"] <= 7


def test_a_program_without_derivatives_is_the_same() -> None:
    made = Maker()
    made.outputs = [("y", made.input("x", 3))]
    program = made.program()
    assert Derive().apply(program) is program


def test_names_and_spans() -> None:
    file = SourceFile("a.nl", "grad(loss, S)")
    made = Maker()
    k, S = made.input("k", 3), made.state("S", 2, 3)
    loss = made.op("sum", made.einsum("ij,j->i", S, k), dims=(0,))
    g = made.body.emit("grad", loss, S, index=0, span=file.span(0, 13))
    made.outputs = [("g", g)]
    program = derived(made.program())
    named = [i for i in program.body if i.name == "d_S"]
    assert len(named) == 1
    assert named[0].type.shape == (2, 3)
    forward = len(made.program().body) - 1
    assert all(i.span.text == "grad(loss, S)" for i in program.body[forward:])


def test_a_derivative_is_a_value_of_its_own() -> None:
    """The derivative of x * y is y; a loss of y does not depend on it."""
    made = Maker()
    x, y = made.input("x"), made.input("y")
    (first,) = made.grad(made.op("mul", x, y), x)
    (other,) = made.grad(made.op("sin", y), first)
    (own,) = made.grad(made.op("sin", first), first)
    (made_of_it,) = made.grad(made.op("exp", made.op("sin", y)), made.op("sin", first))
    made.outputs = [("other", other), ("own", own), ("made of it", made_of_it)]
    data = {"x": np.ones((1, 3)), "y": np.linspace(0, 1, 3)[None]}
    for stage in (derived(made.program()), Simplify().apply(derived(made.program()))):
        found = run(stage, data)
        np.testing.assert_allclose(found["other"], np.zeros((1, 3)))
        np.testing.assert_allclose(found["made of it"], np.zeros((1, 3)))
        np.testing.assert_allclose(found["own"], np.cos(data["y"]))


def test_symbolic_sizes() -> None:
    d, n = symbol("d"), symbol("n")
    made = Maker()
    S, k = made.state("S", d, n), made.input("k", n)
    y = made.op("concat", made.einsum("ij,j->i", S, k), made.op("slice", k, dim=0, start=1, stop=n - 1), dim=0)
    loss = made.op("sum", made.op("mul", y, y), dims=(0,))
    made.outputs = [(f"g{i}", g) for i, g in enumerate(made.grad(loss, S, k))]
    program = verify(Simplify().apply(derived(made.program())))
    assert [str(program.body[v].type) for _, v in program.outputs] == ["[d, n]{batch}", "[n]{batch}"]


def test_guarded_derivative_computes_nothing_at_other_ticks() -> None:
    guard = Clock(4)
    made = Maker()
    x, S = made.input("x", 3), made.state("S", 3)
    loss = made.l2(made.op("tanh", S, guard=guard), x, guard=guard)
    (g,) = made.grad(loss, S, guard=guard)
    made.updates["S"] = made.op("when", made.op("sub", S, g, guard=guard), S, clock=guard)
    program = derived(made.program())
    assert [i.op for i in program.body if i.guard is None] == ["input", "state", "when"]


def test_vjp_of_several_seeds() -> None:
    made = Maker()
    x = made.input("x", 3)
    one, two = made.op("sin", x), made.op("exp", x)
    b = made.body
    seeds = {one: made.op("cos", x), two: made.op("tanh", x)}
    (found,) = vjp(b, seeds, [x], ("batch",))
    assert found is not None
    made.outputs = [("g", found)]
    data = np.linspace(-1, 1, 6).reshape(1, 2, 3)
    expected = np.cos(data) * np.cos(data) + np.tanh(data) * np.exp(data)
    np.testing.assert_allclose(run(made.program(), {"x": data})["g"], expected)


def test_vjp_without_influence_is_none() -> None:
    made = Maker()
    x, y = made.input("x", 3), made.input("y", 3)
    assert vjp(made.body, {made.op("sin", x): x}, [y], ("batch",)) == [None]
    assert vjp(made.body, {made.op("sign", x): x}, [x], ("batch",)) == [None]
    assert vjp(made.body, {made.op("stop_grad", x): x}, [x], ("batch",)) == [None]
    assert vjp(made.body, {x: y}, [x], ("batch",)) == [y]


def test_vjp_without_lanes_sums_them() -> None:
    """The gradient of a parameter for the whole batch."""
    made = Maker()
    x, w = made.input("x", 3), made.param("w", 3)
    loss = made.op("sum", made.op("mul", x, w), dims=(0,))
    (found,) = vjp(made.body, {loss: made.body.const(1.0)}, [w], ())
    assert found is not None
    assert made.body.instrs[found].op == "axis_sum"
    assert made.body.type(found).axes == ()


def test_expanded_delta_rule() -> None:
    made = Maker()
    k, v, rate = made.input("k", symbol("dk")), made.input("v", symbol("dv")), made.input("rate")
    S = made.state("S", symbol("dv"), symbol("dk"))
    (g,) = made.grad(made.l2(made.einsum("ij,j->i", S, k), v), S)
    made.updates["S"] = made.op("sub", S, made.op("mul", rate, g))
    program = Simplify().apply(derived(made.program()))
    body = print_program(program).split("body {\n")[1]
    assert body == (
        '  %0:k = input("k") : [dk]{batch}\n'
        '  %1:v = input("v") : [dv]{batch}\n'
        '  %2:rate = input("rate") : []{batch}\n'
        '  %3:S = state("S") : [dv, dk]{batch}\n'
        '  %4 = einsum("ij,j->i") %3, %0 : [dv]{batch}\n'
        "  %5 = sub %4, %1 : [dv]{batch}\n"
        '  %6:d_S = einsum("i,j->ij") %5, %0 : [dv, dk]{batch}\n'
        "  %7 = mul %2, %6 : [dv, dk]{batch}\n"
        "  %8 = sub %3, %7 : [dv, dk]{batch}\n"
        "}\n"
        "update S = %8\n"
    )
