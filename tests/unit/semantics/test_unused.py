"""What is declared and not used, and calls without effect: said once for a place, and only where it is so."""

from __future__ import annotations

import pytest

from nldsl.api import check_text


def warnings(text: str) -> list[tuple[str, int]]:
    found = check_text(text, "m.nl")
    assert not any(d.is_error for d in found), found
    return [(d.code, d.span.line) for d in found]


MEMORY = """memory M(d: dim) {
  state S: [d, d] = 0
  param w: [d] = 1
  state count: [] = 0
  learn(k: [d], v: [d], unused: []) { S <- S + outer(v, k); count <- count + 1 }
  read(q: [d]) -> [d] = S @ q
  gain() -> [d] = w
}
"""


def test_a_memory_by_itself() -> None:
    assert warnings(MEMORY) == []  # a parameter that a method gives back, a state that is only written
    assert warnings(MEMORY.replace("= w\n", "= ones([d])\n")) == [("NL0505", 3)]


def test_states_for_others() -> None:
    assert warnings("memory Cell(d: dim) { state a: [d] = 0 }\n") == []


def test_a_member_that_another_memory_uses() -> None:
    user = "block B(x: [4]) {\n  memory m: M(4)\n  m.learn(x, x, 1.0)\n  return m.read(x)\n}\n"
    assert warnings(MEMORY + user) == [("NL0505", 3)]  # here `gain` is never asked for
    both = user.replace("m.read(x)", "m.gain() * m.read(x)")
    assert warnings(MEMORY + both) == []
    one_of_two = both.replace("  return", "  memory n: M(4)\n  n.learn(x, x, 1.0)\n  return n.read(x) +")
    assert warnings(MEMORY + one_of_two) == []  # the same place, used in one of two instances


MODEL = """model T {
  input x: [4]
  input target: [4]
  param w: [4, 4] = normal(0.5)
  state h: [4] = 0
  before = h
  h <- tanh(w @ x)
  minimize sum((before - next(target))^2) at step
  return before
}
"""


def test_models() -> None:
    assert warnings(MODEL) == []  # through a state at later ticks, and through `next`
    assert warnings(MODEL.replace("tanh(w @ x)", "x")) == [("NL0505", 4)]
    assert warnings(MODEL.replace("next(target)", "1.0")) == [("NL0505", 3)]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [("read(k)", ["NL0506"]), ("write(k)", []), ("unit(k)", ["NL0506"]), ("twice(k)", [])],
)
def test_calls_without_effect(statement: str, expected: list[str]) -> None:
    text = (
        "memory M(d: dim) {\n  state S: [d] = 0\n  read(q: [d]) -> [d] = S * q\n"
        "  write(k: [d]) { S <- S + k }\n  twice(k: [d]) -> [d] { S <- 2 * S; return S }\n"
        f"  step(k: [d]) -> [d] {{\n    {statement}\n    write(k)\n    return read(k)\n  }}\n}}\n"
    )
    assert [code for code, _ in warnings(text)] == expected
