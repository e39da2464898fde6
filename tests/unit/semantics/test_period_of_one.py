"""A block that runs at every tick: what is reduced over its ticks is the value itself."""

from __future__ import annotations

import numpy as np
import pytest

from nldsl.api import check_text, load_program
from nldsl.backends.reference import Reference

TEXT = """
memory Slow(period: int) {{
  state s: [2] = 0
  step(x: [2]) -> [2] every token {{
    every period token {{ s <- 0.5 * s + {kind} of x }}
    return s
  }}
}}
"""


@pytest.mark.parametrize("kind", ["sum", "mean", "last", "max"])
def test_a_period_of_one_reduces_to_the_value(kind: str) -> None:
    program = load_program("slow.nl", text=TEXT.format(kind=kind), period=1)
    x = np.random.default_rng(0).standard_normal((1, 5, 2))
    outputs, _, _ = Reference(program, {}).run({"x": x})
    expected, s = [], np.zeros(2)
    for token in x[0]:
        s = 0.5 * s + token
        expected.append(s)
    assert np.allclose(outputs["y"][0], expected)


def test_names_of_the_block_stay_inside() -> None:
    text = TEXT.format(kind="sum").replace("{ s <- ", "{\n y = x\n s <- ").replace("return s", "return y")
    assert [d.code for d in check_text(text.replace("every period token", "every 1 token"))] == ["NL0201"]


def test_outside_of_a_block_it_is_a_mistake() -> None:
    assert [d.code for d in check_text("memory M() {\n  step(x: [2]) -> [2] every token = sum of x\n}\n")] == ["NL0402"]
