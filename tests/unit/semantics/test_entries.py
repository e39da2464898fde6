"""What is compiled: the entry, its arguments, and the bounds that need more than one declaration to show."""

from __future__ import annotations

import pytest

from nldsl.api import check_text, load_program
from nldsl.diagnostics.diagnostic import DiagnosticError

STEP = """memory M(d: dim = 2) {
  state S: [d] = 0
  step(x: [d]) -> [d] {
    S <- S + x
    return S
  }
}
"""


def codes(text: str, entry: str | None = None, **dims: object) -> list[str]:
    with pytest.raises(DiagnosticError) as raised:
        load_program("program.nl", entry, text=text, **dims)
    return [d.code for d in raised.value.diagnostics]


def test_a_memory_with_step_is_a_program() -> None:
    program = load_program("program.nl", text=STEP)
    assert [i.name for i in program.inputs] == ["x"]
    assert [s.name for s in program.states] == ["S"]
    assert program.outputs


def test_a_memory_without_step_is_not() -> None:
    assert codes("memory M(d: dim = 2) { state S: [d] = 0 }") == ["NL0224"]


def test_functions_are_no_program() -> None:
    assert codes("fn f(x: []) -> [] = x") == ["NL0225"]


def test_the_last_model_is_the_entry() -> None:
    text = STEP + "model A(d: dim = 2) { input x: [d]\n return x }\nmodel B(d: dim = 2) { input y: [d]\n return y }\n"
    assert load_program("program.nl", text=text).name == "B"
    assert load_program("program.nl", "M", text=text).name == "M"


def test_unknown_entry_and_parameter() -> None:
    assert codes(STEP, "N") == ["NL0201"]
    assert codes(STEP, None, dd=3) == ["NL0203"]
    assert codes(STEP.replace("dim = 2", "dim")) == ["NL0203"]


def test_sizes_come_from_the_caller() -> None:
    assert load_program("program.nl", text=STEP, d=5).states[0].type.shape == (5,)


def test_calls_nest_within_a_bound() -> None:
    """NL0011: a chain of functions longer than the limit, a short one is fine."""
    chain = "".join(f"fn f{n}(x: []) -> [] = f{n + 1}(x)\n" for n in range(200)) + "fn f200(x: []) -> [] = x\n"
    assert "NL0011" in [d.code for d in check_text(chain)]
    short = "".join(f"fn f{n}(x: []) -> [] = f{n + 1}(x)\n" for n in range(50)) + "fn f50(x: []) -> [] = x\n"
    assert check_text(short) == []


SHARED = """memory M(d: dim = 2) {
  shared state S: [d] = 0
  step(x: [d]) -> [d] {
    S <- S + x
    return grad(sum((S - x)^2), x)
  }
}
"""


def test_a_gradient_belongs_to_one_sequence() -> None:
    assert codes(SHARED) == ["NL0503"]
    load_program("program.nl", text=SHARED.replace("    S <- S + x\n", ""))


def test_inputs_without_a_type() -> None:
    """One with a default has that value; of one without, nothing is known until the method is called."""
    text = """
    memory M(d: dim) {{
      state h: [d] = 0
      step(x: [d], rate{default}) -> [d] {{
        h <- 0.9 * h + rate * x
        return h
      }}
    }}
    """
    assert not check_text(text.format(default=" = 0.1"), "m.nl")
    assert not check_text(text.format(default=""), "m.nl")
    used = text.format(default="") + "model A {\n input x: [3]\n memory m: M(3)\n return m.step(x, [1, 2])\n}\n"
    assert [d.code for d in check_text(used, "m.nl")] == ["NL0301"]


def test_sizes_without_a_type() -> None:
    text = "memory M(d) {\n state h: [d] = 0\n step(x: [d]) -> [d] {\n h <- h + x\n return h\n }\n}\n"
    assert not check_text(text, "m.nl")
