"""Values that only guarded ones need are guarded too."""

from __future__ import annotations

from nldsl.ir.program import Instr
from nldsl.ir.types import Clock, Type
from nldsl.passes.sink_guards import with_guards

SLOW, SLOWER = Clock(4), Clock(8)


def op(name: str, *args: int, guard: Clock | None = None) -> Instr:
    return Instr(name, args, (), Type(), guard)


def test_a_chain_takes_the_guard_of_its_end() -> None:
    body = (op("given"), op("exp", 0), op("neg", 1), op("add", 2, 0, guard=SLOW), op("mul", 0, 0))
    guards = [i.guard for i in with_guards(body, [3, 4])]
    assert guards == [None, SLOW, SLOW, SLOW, None]


def test_what_is_needed_elsewhere_has_none() -> None:
    body = (op("given"), op("exp", 0), op("neg", 1, guard=SLOW), op("abs", 1), op("sqrt", 1, guard=SLOWER))
    assert with_guards(body, [2, 3, 4]) == body


def test_neither_two_clocks_nor_a_root() -> None:
    body = (op("given"), op("exp", 0), op("neg", 1, guard=SLOW), op("sqrt", 1, guard=SLOWER), op("log", 0))
    assert with_guards(body, [2, 3, 4]) == body
    chain = (op("given"), op("exp", 0), op("neg", 1, guard=SLOW))
    assert with_guards(chain, [1, 2]) == chain
