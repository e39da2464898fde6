"""Each invariant of a program, broken once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nldsl.ir.program import Axis, Instr, Program
from nldsl.ir.types import Clock, Type
from nldsl.ir.verify import InvalidProgramError, problems, verify
from tests.numeric.maker import Maker

GUARD = Clock(4)


def good() -> Program:
    made = Maker(heads=2)
    x = made.input("x", 3)
    made.param("w", 3)
    S = made.state("S", 3, axes=("heads",))
    made.state("T", 3, start=0.0)
    slow = made.op("mul", S, x, guard=GUARD)
    made.updates["S"] = made.op("when", slow, S, clock=GUARD)
    loss = made.op("axis_sum", made.op("sum", S, dims=(0,)), axis="heads")
    made.losses = [("step", loss)]
    made.outputs = [("y", made.op("collect", S, axis="heads", size=2))]
    return made.program()


def test_a_program_without_faults_is_given_back() -> None:
    program = good()
    assert verify(program) is program


def change(n: int, **fields: Any) -> Callable[[Program], Program]:
    """One instruction of the body changed."""

    def apply(p: Program) -> Program:
        body = [replace(instr, **fields) if i == n else instr for i, instr in enumerate(p.body)]
        return replace(p, body=tuple(body))

    return apply


def index(op: str) -> int:
    return next(n for n, i in enumerate(good().body) if i.op == op)


def with_init(*instrs: Instr) -> Callable[[Program], Program]:
    return lambda p: replace(p, init=(*p.init, *instrs))


FAULTS: list[tuple[Callable[[Program], Program], str]] = [
    (lambda p: replace(p, axes=(*p.axes, Axis("heads", 2))), "axis heads: declared 2 times"),
    (lambda p: replace(p, axes=(*p.axes, Axis("copies", None))), "only batch is without a size"),
    (lambda p: replace(p, states=p.states * 2), "state S: declared 2 times"),
    (lambda p: replace(p, axes=p.axes[:1]), "no axis heads"),
    (lambda p: replace(p, updates=(("U", 0),)), "no such state"),
    (lambda p: replace(p, updates=(("S", 99),)), "no value %99"),
    (lambda p: replace(p, updates=(("T", index("mul")),)), "type .* for"),
    (lambda p: replace(p, outputs=(("y", index("mul")),)), "computed every 4 only"),
    (lambda p: replace(p, losses=(("step", 0),)), "loss step: type"),
    (lambda p: replace(p, states=(replace(p.states[0], init=9), p.states[1])), "no initial value %9"),
    (change(index("mul"), op="multiply"), "no such operation here"),
    (change(index("mul"), args=(50, 0)), "not defined before"),
    (change(index("mul"), args=(index("mul"), 0)), "not defined before"),
    (change(index("mul"), attrs=(("dim", 0),)), "attributes"),
    (change(index("mul"), type=Type((4,))), "expected"),
    (change(index("mul"), guard=Clock(3)), "computed every 3, used every 4"),
    (change(index("when"), guard=GUARD, attrs=(("clock", Clock(3)),)), "computed every 4 only"),
    (change(index("when"), attrs=(("clock", Clock(3)),)), "computed every 4, used every 3"),
    (change(index("sum"), attrs=(("dims", (0, 0)),)), "not in order"),
    (change(index("sum"), attrs=(("dims", (5,)),)), "no type"),
    (change(index("input"), attrs=(("input", "z"),)), "z is not declared"),
    (change(index("collect"), attrs=(("axis", "tails"), ("size", 2))), "type"),
    (with_init(Instr("clock", (), (("period", 0), ("scale", 1)), Type((), (), "int"))), "no such operation here"),
    (with_init(Instr("const", (), (("value", 1.0),), Type(), GUARD)), "a guard in init"),
    (
        lambda p: replace(
            p,
            init=(Instr("state", (), (("state", "T"),), p.states[1].type),),
            states=(replace(p.states[0], type=p.states[1].type, init=0), replace(p.states[1], init=0)),
            body=(),
            updates=(),
            outputs=(),
            losses=(),
        ),
        "reads T, which is not declared before",
    ),
]


@pytest.mark.parametrize(("fault", "message"), FAULTS, ids=[message.replace(" ", "-") for _, message in FAULTS])
def test_a_fault_is_found(fault: Callable[[Program], Program], message: str) -> None:
    with pytest.raises(InvalidProgramError, match=message):
        verify(fault(good()))


def test_all_faults_are_reported() -> None:
    program = good()
    broken = replace(program, axes=(*program.axes, Axis("heads", 2)), body=(replace(program.body[0], op="?"),))
    assert len(problems(broken)) == 2
