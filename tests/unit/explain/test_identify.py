"""Known functions behind elementwise arithmetic."""

from __future__ import annotations

import math

import pytest

from nldsl.dims import symbol
from nldsl.explain.identify import fold, value_at
from nldsl.explain.product import times
from nldsl.explain.terms import Call, Num, Sym, Term, add, negate, power
from nldsl.explain.text import TextPrinter

N = (symbol("n"),)
Z, G, H = Sym(N, "z"), Sym(N, "g"), Sym(N, "h")


def call(name: str, term: Term) -> Term:
    return Call(term.shape, name, (term,))


def number(value: float) -> Term:
    return Num((), value)


def shown(term: Term) -> str:
    return TextPrinter().term(term)


SIGMOID = call("sigmoid", Z)
SILU = times(Z, SIGMOID)
SLOPE = add(SIGMOID, times(times(Z, SIGMOID), add(number(1), negate(SIGMOID))))
INNER = times(number(math.sqrt(2 / math.pi)), add(Z, times(number(0.044715), power(Z, number(3)))))
TANH = call("tanh", INNER)
GELU = times(number(0.5), times(Z, add(number(1), TANH)))
CUBIC = times(number(math.sqrt(2 / math.pi)), add(number(1), times(number(3 * 0.044715), power(Z, number(2)))))
GELU_SLOPE = add(
    times(number(0.5), add(number(1), TANH)),
    times(number(0.5), times(times(Z, add(number(1), negate(power(TANH, number(2))))), CUBIC)),
)


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (SILU, "silu(z)"),
        (SLOPE, "silu′(z)"),
        (GELU, "gelu(z)"),
        (GELU_SLOPE, "gelu′(z)"),
        (add(number(1), negate(power(call("tanh", Z), number(2)))), "tanh′(z)"),
        (times(SIGMOID, add(number(1), negate(SIGMOID))), "sigmoid′(z)"),
        (call("log1p", call("exp", Z)), "softplus(z)"),
        (times(G, SILU), "g ⊙ silu(z)"),
        (add(times(G, SIGMOID), times(times(G, times(Z, SIGMOID)), add(number(1), negate(SIGMOID)))), "g ⊙ silu′(z)"),
        (times(number(3), SILU), "3·silu(z)"),
        (add(times(G, SLOPE), H), "g ⊙ silu′(z) + h"),
    ],
)
def test_known(term: Term, text: str) -> None:
    assert shown(fold(term)) == text


@pytest.mark.parametrize(
    "term",
    [
        times(Z, call("sigmoid", G)),
        times(Z, call("tanh", Z)),
        add(SIGMOID, times(times(Z, SIGMOID), add(number(1.001), negate(SIGMOID)))),
        add(Z, times(number(1e-7), SIGMOID)),
        power(Z, number(2)),
    ],
)
def test_unknown_stays(term: Term) -> None:
    assert fold(term) == term


def test_values() -> None:
    assert value_at(SILU, Z, 0.0) == 0.0
    assert value_at(times(G, SILU), Z, 1.0) is None
    assert value_at(call("log", Z), Z, -1.0) is None
