"""Each simplification: what it makes of one expression, and that the value stays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nldsl.backends.reference import Reference
from nldsl.dims import symbol
from nldsl.ir.program import Program
from nldsl.ir.types import Clock
from nldsl.ir.verify import verify
from nldsl.passes.simplify import RULES, Simplify
from tests.numeric.maker import Array, Maker, random_arrays


class Small(Maker):
    """x: [3], y: [3], A: [2, 3], s: [], h: [2] in each of two heads."""

    def __init__(self) -> None:
        super().__init__(heads=2)
        self.x, self.y = self.input("x", 3), self.input("y", 3)
        self.A, self.s = self.input("A", 2, 3), self.input("s")
        self.h = self.param("h", 2, axes=("heads",))

    def each(self) -> int:
        """A scalar in each head."""
        return self.op("sum", self.h, dims=(0,))

    def x_row(self) -> int:
        return self.op("reshape", self.x, shape=(1, 3))

    def full(self, number: float, *shape: int) -> int:
        return self.op("broadcast", number, shape=shape)


Build = Callable[[Small], int]
# rule, expression, what it becomes: operations in order, leaves left out
CASES: list[tuple[str, Build, str]] = [
    ("fold", lambda m: m.op("add", m.x, m.op("mul", 2.0, 3.0)), "const 6.0, add"),
    ("fold", lambda m: m.op("mul", m.x, m.op("exp", 0.0)), ""),
    ("fold", lambda m: m.op("where", m.op("gt", 2.0, 1.0), m.x, m.y), ""),
    ("drop-stretch", lambda m: m.op("mul", m.x, m.full(2.0, 3)), "const 2.0, mul"),
    ("drop-stretch", lambda m: m.op("add", m.A, m.op("reshape", m.x, shape=(1, 3))), "add"),
    (
        "stretch-later",
        lambda m: m.op("exp", m.op("broadcast", m.s, shape=(3,))),
        "exp, broadcast",
    ),
    ("times-zero", lambda m: m.op("mul", 0.0, m.x), "const 0.0, broadcast"),
    ("times-zero", lambda m: m.op("div", m.full(0.0, 3), m.x), "const 0.0, broadcast"),
    ("times-one", lambda m: m.op("mul", m.x, 1.0), ""),
    ("times-one", lambda m: m.op("mul", m.s, m.full(1.0, 3)), "broadcast"),
    ("over-one", lambda m: m.op("div", m.x, 1.0), ""),
    ("plus-zero", lambda m: m.op("add", m.full(0.0, 3), m.x), ""),
    ("minus-zero", lambda m: m.op("sub", m.x, 0.0), ""),
    ("zero-minus", lambda m: m.op("sub", 0.0, m.x), "neg"),
    ("minus-itself", lambda m: m.op("sub", m.x, m.x), "const 0.0, broadcast"),
    ("plus-itself", lambda m: m.op("add", m.x, m.x), "const 2.0, mul"),
    ("constant-first", lambda m: m.op("mul", m.x, 2.0), "const 2.0, mul"),
    ("merge-constants", lambda m: m.op("mul", 2.0, m.op("mul", 3.0, m.x)), "const 6.0, mul"),
    ("hoist-constant", lambda m: m.op("mul", 0.5, m.op("mul", m.op("mul", 2.0, m.x), m.y)), "mul"),
    ("minus-negative", lambda m: m.op("sub", m.x, m.op("neg", m.y)), "add"),
    ("minus-negative", lambda m: m.op("add", m.x, m.op("mul", m.s, m.op("neg", m.y))), "mul, sub"),
    ("minus-negative", lambda m: m.op("add", m.x, m.op("mul", -2.0, m.y)), "const 2.0, mul, sub"),
    ("negative-plus", lambda m: m.op("add", m.op("neg", m.x), m.y), "sub"),
    ("negate", lambda m: m.op("neg", m.op("neg", m.x)), ""),
    ("negate", lambda m: m.op("neg", m.op("mul", 2.0, m.x)), "const -2.0, mul"),
    ("negate", lambda m: m.op("neg", m.op("sub", m.x, m.y)), "sub"),
    ("power", lambda m: m.op("pow", m.x, 2.0), "mul"),
    ("power", lambda m: m.op("pow", m.x, 1.0), ""),
    ("power", lambda m: m.op("pow", m.op("exp", m.x), -0.5), "exp, rsqrt"),
    ("power", lambda m: m.op("pow", m.x, -1.0), "const 1.0, div"),
    ("choice", lambda m: m.op("where", m.x, m.y, m.y), ""),
    ("to-real", lambda m: m.op("to_real", m.x), ""),
    ("always", lambda m: m.op("when", m.x, m.y, clock=Clock(1)), ""),
    ("always", lambda m: m.op("when", m.x, m.x, clock=Clock(3)), ""),
    ("stopped", lambda m: m.op("stop_grad", m.op("stop_grad", m.x)), "stop_grad"),
    ("stopped", lambda m: m.op("add", m.x, m.op("stop_grad", 1.0)), "const 1.0, add"),
    ("same-shape", lambda m: m.op("reshape", m.x, shape=(3,)), ""),
    ("reshape-twice", lambda m: m.op("reshape", m.op("reshape", m.A, shape=(6,)), shape=(3, 2)), "reshape"),
    ("reshape-twice", lambda m: m.op("reshape", m.op("broadcast", m.s, shape=(6,)), shape=(3, 2)), "broadcast"),
    (
        "broadcast-twice",
        lambda m: m.op("broadcast", m.op("broadcast", m.x, shape=(2, 3)), shape=(4, 2, 3)),
        "broadcast",
    ),
    ("broadcast-twice", lambda m: m.op("broadcast", m.op("reshape", m.x, shape=(1, 3)), shape=(2, 3)), "broadcast"),
    ("whole-slice", lambda m: m.op("slice", m.A, dim=1, start=0, stop=3), ""),
    ("slice-of-concat", lambda m: m.op("slice", m.op("concat", m.A, m.x_row(), dim=0), dim=0, start=0, stop=2), ""),
    ("no-padding", lambda m: m.op("pad", m.x, dim=0, before=0, after=0), ""),
    ("one-part", lambda m: m.op("concat", m.x, dim=0), ""),
    ("zero-in", lambda m: m.op("cumsum", m.full(0.0, 3), dim=0, reverse=True), "const 0.0, broadcast"),
    ("sum-nothing", lambda m: m.op("sum", m.x, dims=()), ""),
    ("sum-twice", lambda m: m.op("sum", m.op("sum", m.A, dims=(0,)), dims=(0,)), "sum"),
    ("sum-scaled", lambda m: m.op("sum", m.op("mul", 2.0, m.A), dims=(0, 1)), "const 2.0, sum, mul"),
    ("sum-scaled", lambda m: m.op("sum", m.op("broadcast", m.s, shape=(2, 3)), dims=(0, 1)), "const 6.0, mul"),
    ("sum-of-einsum", lambda m: m.op("sum", m.einsum("ij,j->ij", m.A, m.x), dims=(1,)), "einsum ij,j->i"),
    ("zero-factor", lambda m: m.einsum("ij->ji", m.full(0.0, 2, 3)), "const 0.0, broadcast"),
    ("scalar-factor", lambda m: m.einsum(",ij,j->i", m.s, m.A, m.x), "einsum ij,j->i, mul"),
    ("scalar-factor", lambda m: m.einsum("i,i->", m.x, m.full(2.0, 3)), "const 2.0, sum, mul"),
    ("scalar-factor", lambda m: m.einsum("i,j->ij", m.full(2.0, 4), m.x), "const 2.0, mul, broadcast"),
    ("scalar-factor", lambda m: m.einsum("ik,j->kj", m.full(2.0, 4, 2), m.x), "const 8.0, mul, broadcast"),
    ("scalar-factor", lambda m: m.einsum(",->", m.s, m.s), "mul"),
    ("idle-einsum", lambda m: m.einsum("ij->ij", m.A), ""),
    ("idle-einsum", lambda m: m.einsum("ij->j", m.A), "sum"),
    (
        "diagonal-factor",
        lambda m: m.einsum("ij,kj->ki", m.op("mul", m.op("one_hot", m.op("iota", n=3), n=3), m.x), m.A),
        "einsum i,ji->ji",
    ),
    ("diagonal-factor", lambda m: m.einsum("ij,j->i", m.op("one_hot", m.op("iota", n=3), n=3), m.x), ""),
    ("transposed-operand", lambda m: m.einsum("ji,j->i", m.einsum("ij->ji", m.A), m.x), "einsum ij,j->i"),
    ("transposed-result", lambda m: m.einsum("ij->ji", m.einsum("i,j->ij", m.x, m.y)), "einsum i,j->ji"),
    ("letters", lambda m: m.einsum("vk,k->v", m.A, m.x), "einsum ij,j->i"),
    (
        "spread-of-collect",
        lambda m: m.op("spread", m.op("collect", m.h, axis="heads", size=2), axis="heads"),
        "",
    ),
    ("collect-of-spread", lambda m: m.op("collect", m.op("spread", m.A, axis="heads"), axis="heads", size=2), ""),
    ("collect-same", lambda m: m.op("collect", m.x, axis="heads", size=2), "broadcast"),
    ("spread-same", lambda m: m.op("spread", m.full(2.0, 2, 3), axis="heads"), "const 2.0, broadcast"),
    ("axis-sum-same", lambda m: m.op("axis_sum", m.x, axis="heads"), "const 2.0, mul"),
    (
        "axis-sum-of-scaled",
        lambda m: m.op("axis_sum", m.op("mul", m.s, m.op("exp", m.h)), axis="heads"),
        "exp, axis_sum, mul",
    ),
    (
        "axis-sum-of-scaled",
        lambda m: m.op("axis_sum", m.op("mul", m.each(), m.einsum("i,j->ij", m.h, m.x)), axis="heads"),
        "sum, mul, axis_sum, einsum i,j->ij",
    ),
    (
        "axis-sum-of-einsum",
        lambda m: m.op("axis_sum", m.einsum("i,j->ij", m.op("spread", m.A, axis="heads"), m.h), axis="heads"),
        "collect, einsum ij,ik->jk",
    ),
    (
        "axis-sum-of-einsum",
        lambda m: m.op("axis_sum", m.einsum("i,j->ij", m.h, m.x), axis="heads"),
        "axis_sum, einsum i,j->ij",
    ),
    ("mean-same", lambda m: m.op("batch_mean", m.op("exp", m.h)), "exp"),
    (
        "sum-of-pads",
        lambda m: m.op("add", m.op("pad", m.y, dim=0, before=4, after=1), m.op("pad", m.x, dim=0, before=1, after=4)),
        "concat, pad",
    ),
    (
        "sum-of-spreads",
        lambda m: m.op(
            "add", m.op("spread", m.op("exp", m.A), axis="heads"), m.op("spread", m.op("sin", m.A), axis="heads")
        ),
        "exp, sin, add, spread",
    ),
]


def finished(m: Small, value: int) -> Program:
    m.outputs = [("out", value)]
    return m.program()


def shown(program: Program) -> str:
    extra = {"const": "value", "einsum": "spec"}
    leaves = ("input", "param", "state")
    found = [i.op + (f" {i.attr(extra[i.op])}" if i.op in extra else "") for i in program.body if i.op not in leaves]
    return ", ".join(found)


def value_of(program: Program) -> Array:
    sizes: dict[str, tuple[int, ...]] = {"x": (3,), "y": (3,), "A": (2, 3), "s": ()}
    data = random_arrays(0, **{name: (2, 4, *shape) for name, shape in sizes.items()})
    reference = Reference(program, random_arrays(1, h=(2, 2)))
    outputs, _, _ = reference.run(data)
    return outputs["out"]


@pytest.mark.parametrize(("name", "build", "expected"), CASES, ids=[f"{n}-{c[0]}" for n, c in enumerate(CASES)])
def test_rule(name: str, build: Build, expected: str) -> None:
    made = Small()
    program = finished(made, build(made))
    simple = verify(Simplify().apply(program))
    assert shown(simple) == expected
    without = verify(Simplify(disabled=frozenset({name})).apply(program))
    assert without.body != simple.body
    with np.errstate(all="ignore"):
        before = value_of(program)
    for stage in (simple, without):
        after = value_of(stage)
        lanes = after if after.ndim == before.ndim else after[:, :, None]
        np.testing.assert_allclose(np.broadcast_to(lanes, before.shape), before, rtol=1e-12)


def test_every_rule_has_a_case() -> None:
    assert {rule.name for rule in RULES} == {name for name, _, _ in CASES}
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_what_nothing_needs_is_removed() -> None:
    made = Small()
    made.op("exp", made.x)
    S = made.state("S", 3)
    made.updates = {"S": S}
    program = Simplify().apply(finished(made, made.y))
    assert [i.op for i in program.body] == ["input"]
    assert program.updates == ()
    assert [s.name for s in program.states] == ["S"]


def test_a_value_used_twice_is_computed_once() -> None:
    made = Small()
    product = made.einsum("i,j->ij", made.x, made.y)
    made.outputs = [("sum", made.op("sum", product, dims=(0,)))]
    program = Simplify().apply(finished(made, product))
    made.outputs.append(("all", product))
    both = Simplify().apply(made.program())
    assert shown(program) == "einsum i,j->ij"
    assert shown(both) == "einsum i,j->ij"


def test_values_of_a_slow_clock_stay_there() -> None:
    guard = Clock(4)
    made = Small()
    slow = made.op("mul", made.op("neg", made.x, guard=guard), made.full(2.0, 3), guard=guard)
    held = made.op("when", made.op("sub", made.y, slow, guard=guard), made.y, clock=guard)
    program = verify(Simplify().apply(finished(made, held)))
    assert [(i.op, i.guard) for i in program.body if i.op in ("mul", "add", "neg", "sub")] == [
        ("mul", guard),
        ("add", guard),
    ]


def test_symbolic_sizes_are_left_alone() -> None:
    n = symbol("n")
    made = Maker()
    x = made.input("x", n)
    made.outputs = [("y", made.op("sum", made.op("broadcast", made.input("s"), shape=(n,)), dims=(0,))), ("x", x)]
    assert [i.op for i in Simplify().apply(made.program()).body] == ["input", "input", "broadcast", "sum"]


def test_what_has_no_value_is_left_to_the_run() -> None:
    made = Small()
    program = Simplify().apply(finished(made, made.op("add", made.op("log", 0.0), made.op("div", 1.0, 0.0))))
    assert [i.op for i in program.body] == ["const", "log", "const", "div", "add"]


def test_integers_stay_integers() -> None:
    made = Maker()
    i = made.input("i", kind="int")
    two = made.body.const(2)
    doubled = made.op("mul", two, made.op("mul", i, two))
    made.outputs = [("y", made.op("add", doubled, made.op("mul", i, made.body.const(0))))]
    program = verify(Simplify().apply(made.program()))
    assert program.body[program.outputs[0][1]].type.kind == "int"
    found, _, _ = Reference(program, {}).run({"i": np.array([[3]])})
    assert found["y"].tolist() == [[12]]
