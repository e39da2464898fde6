"""``every`` blocks inside of one another: a stream is reduced over the ticks since the inner block last ran."""

from __future__ import annotations

import numpy as np
import pytest

from nldsl.api import load_program
from nldsl.backends.reference.interpreter import Reference

TEXT = """
memory N(d: dim = 3) {
  state total, mean_, most, latest, products, between: [d] = 0
  step(x: [d]) -> [6, d] {
    y = x + 1
    every 2 token {
      between <- between + sum of y
      every 6 token {
        total <- sum of y
        mean_ <- mean of x
        most <- max of x
        latest <- last of y
        products <- products + sum of (x * y)
      }
    }
    return stack(total, mean_, most, latest, products, between)
  }
}
"""


@pytest.mark.parametrize("tick", [6, 12, 18])
def test_reductions_over_two_clocks(tick: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 20, 3))
    outputs, _, _ = Reference(load_program("n.nl", text=TEXT), {}).run({"x": x})
    now = next(iter(outputs.values()))[0, tick - 1]
    window = x[0, tick - 6 : tick]
    before = x[0, :tick]
    products, between = (before * (before + 1)).sum(0), (before + 1).sum(0)
    expected = [(window + 1).sum(0), window.mean(0), window.max(0), window[-1] + 1, products, between]
    assert np.allclose(now, np.stack(expected), rtol=0, atol=1e-12)
