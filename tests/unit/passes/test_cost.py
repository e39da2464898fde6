"""Costs: formulas in the sizes of a program."""

from __future__ import annotations

from nldsl.dims import Dim, symbol
from nldsl.ir.types import Clock
from nldsl.passes.cost import cost
from tests.unit.explain import programs
from tests.unit.explain.programs import Maker


def total(found: tuple[tuple[int, Dim], ...]) -> dict[int, str]:
    return {period: str(n) for period, n in found}


def test_delta() -> None:
    """Two matrix-vector products, an outer product, the rate and the difference: 7 per entry; 2 per value channel."""
    found = cost(programs.delta())
    assert total(found.operations) == {1: "7*dk*dv + 2*dv"}
    assert str(found.state) == "dk*dv"
    assert found.hidden == found.parameters == 0


def test_slower_clocks_are_counted_at_their_ticks() -> None:
    found = cost(programs.slow())
    assert total(found.operations) == {1: "2*d", 16: "2*d"}
    assert (str(found.state), str(found.hidden)) == ("d", "d")


def test_anchors_are_copies() -> None:
    found = cost(programs.deep())
    assert found.anchored == symbol("d") * symbol("hidden") * 2


def test_what_nothing_needs_costs_nothing() -> None:
    m = Maker("Unused")
    x = m.input("x", 8)
    m.op("exp", x)
    m.output("y", m.op("mul", x, x))
    assert cost(m.program()).operations == ((1, 8),)


def test_contractions_of_several_operands() -> None:
    """Left to right: [a b] x [b c] x [c] is a matrix product and a matrix-vector product."""
    m = Maker("Chain")
    a, b, c = m.input("a", 2, 3), m.input("b", 3, 5), m.input("c", 5)
    m.output("y", m.einsum("ij,jk,k->i", a, b, c))
    assert cost(m.program()).operations == ((1, 2 * 2 * 3 * 5 + 2 * 2 * 5),)


def test_guarded_by_use() -> None:
    """A value is counted at the clock on which it is needed, whatever its guard says."""
    m = Maker("Guarded")
    x, s = m.input("x", 4), m.state("s", 4)
    m.assign("s", m.op("when", m.op("exp", x), s, clock=Clock(4)), Clock(4))
    assert cost(m.program()).operations == ((4, 4),)
