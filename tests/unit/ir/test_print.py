"""Programs as text: what it looks like, what reads back, what is refused."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nldsl.dims import Dim, divide, floor_divide, symbol
from nldsl.ir.parse import ParseError, parse_program
from nldsl.ir.print import print_program
from nldsl.ir.program import (
    Axis,
    Initializer,
    InputDecl,
    Instr,
    Level,
    MemoryInfo,
    ParamDecl,
    Program,
    Reset,
    StateDecl,
)
from nldsl.ir.scan import Line
from nldsl.ir.types import Clock, Type

D, H = symbol("d"), symbol("heads")
FULL = Program(
    "a program",
    (Axis("batch", None), Axis("heads", H)),
    (InputDecl("x", Type((D,), ("batch",))), InputDecl("next_x", Type((), ("batch",), "int"), "x", 1)),
    (
        ParamDecl("w", Type((D, D * 2 + 1)), Initializer("normal", (0.5,)), "step", "layers.0"),
        ParamDecl("b", Type((2, 2)), Initializer("values", (((1.0, -2.0), (3, 1e-30)),))),
    ),
    (
        StateDecl(
            "m.S", Type((D, 3), ("batch", "heads")), 1, Reset("clock", Clock(4, True)), "m", True, True, Clock(2)
        ),
        StateDecl("odd name", Type(), 0, Reset("never")),
    ),
    (
        Instr("input", (), (("input", "x"),), Type((D,), ("batch",)), None, "x"),
        Instr("const", (), (("value", -math.inf),), Type()),
        Instr("const", (), (("value", 3),), Type((), (), "int"), Clock(3)),
        Instr("einsum", (0, 0), (("spec", "i,i->"),), Type((), ("batch",)), Clock(3, True), 'a "quoted" name'),
        Instr("when", (3, 3), (("clock", Clock(3, True)),), Type((), ("batch",))),
        Instr("cumsum", (0,), (("dim", 0), ("reverse", True)), Type((D,), ("batch",))),
    ),
    (("m.S", 0),),
    (("y", 5),),
    (("step", 4),),
    (("m.loss", 4),),
    (Instr("const", (), (("value", 0.0),), Type()), Instr("broadcast", (0,), (("shape", (D, 3)),), Type((D, 3)))),
    (Level("step", "step", 1, None, "AdamW"), Level("fast", "token", 16)),
    (MemoryInfo("", "M", "model"), MemoryInfo("m", "Delta", "memory", ("m.S", "odd name"), ("w",), "step", H)),
)
TEXT = """\
program "a program"
axis batch
axis heads = heads
level step = every 1 step, optimizer AdamW
level fast = every 16 token
input x : [d]{batch}
input next_x : int[]{batch}, source x, ahead 1
param w : [d, 2*d + 1] = normal(0.5), level step, owner layers.0
param b : [2, 2] = values([[1.0, -2.0], [3, 1e-30]])
state m.S : [d, 3]{batch, heads} = %1, reset clock every 4 start, owner m, shared, hidden, clock every 2
state "odd name" : [] = %0, reset never
memory "" = model M
memory "m" = memory Delta, states [m.S, "odd name"], params [w], level step, copies heads
init {
  %0 = const(0.0) : []
  %1 = broadcast(shape=[d, 3]) %0 : [d, 3]
}
body {
  %0:x = input("x") : [d]{batch}
  %1 = const(#-inf) : []
  %2 = const(3) : int[] @3
  %3:"a \\"quoted\\" name" = einsum("i,i->") %0, %0 : []{batch} @3 start
  %4 = when(clock=every 3 start) %3, %3 : []{batch}
  %5 = cumsum(dim=0, reverse=true) %0 : [d]{batch}
}
update m.S = %0
output y = %5
loss step = %4
probe m.loss = %4
"""


def test_everything_prints_and_reads_back() -> None:
    assert print_program(FULL) == TEXT
    assert parse_program(TEXT) == FULL


def test_kinds_of_numbers_are_kept() -> None:
    body = tuple(Instr("const", (), (("value", v),), Type()) for v in (1, 1.0, True, 0.1, 1e300, -1e-7, -0.0))
    found = parse_program(print_program(Program("p", body=body))).body
    assert [repr(i.attr("value")) for i in found] == [repr(i.attr("value")) for i in body]


sizes = st.recursive(
    st.integers(1, 9) | st.sampled_from([D, H, symbol("a_b"), symbol("size@12")]),
    lambda inner: st.tuples(inner, inner, st.sampled_from("+-*/fm")).map(lambda item: combined(*item)),
    max_leaves=8,
)


def combined(left: Dim, right: Dim, op: str) -> Dim:
    if op == "+":
        return left + right
    if op == "-":
        return left - right
    if op == "*":
        return left * right
    if op == "m":
        return symbol(f"({left})%({right})")
    quotient = divide(left, right) if op == "/" else floor_divide(left, right)
    return left if quotient is None else quotient


@given(sizes)
def test_sizes_read_back(size: Dim) -> None:
    line = Line(str(size), 1)
    assert line.dim() == size
    line.end()


@given(st.text(max_size=20))
def test_names_read_back(name: str) -> None:
    program = Program(name, probes=((name, 0),), body=(Instr("const", (), (("value", 0.0),), Type(), None, name),))
    found = parse_program(print_program(program))
    assert found == program
    assert found.body[0].name == name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("program", "programme", "no declaration"),
        ("%1 = broadcast", "%2 = broadcast", "expected value %1"),
        ("}\nupdate", "update", "expected value"),
        ("[d, 3]{batch, heads}", "[d 3]{batch, heads}", "expected `,`"),
        ("reset never", "rest never", "no clause"),
        ("%5 = cumsum", "%5 == cumsum", "expected name"),
        ("axis batch", "axis batch batch", "end of the line"),
        ("axis batch", "axis ?", "no word"),
        ("einsum(", "einsum(0, ", "name of an attribute"),
        ("#-inf", "[" * 40, "nest deeper"),
        ("2*d", "d^99", "power"),
        ("axis heads = heads", "axis heads = heads/0", "no size"),
        ('"a \\"quoted\\" name"', '"\\q"', "not a string"),
    ],
)
def test_what_is_not_a_program(old: str, new: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_program(TEXT.replace(old, new, 1))


def test_an_open_body() -> None:
    with pytest.raises(ParseError, match="no end"):
        parse_program("body {\n")


@given(st.text(alphabet='%:=[](){}"#@,+-*/^ \n0123456789abinitbody', max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ParseError):
        parse_program(text)
