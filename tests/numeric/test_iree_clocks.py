"""What only a slow clock needs is computed where it fires, in modules of IREE too: forward, back, tick by tick."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("iree.compiler")
pytest.importorskip("iree.runtime")

from nldsl.backends.iree.choices import Branch, planned
from nldsl.backends.iree.package import whole_module
from nldsl.driver import Options, front, middle
from nldsl.ir.demand import reachable
from nldsl.ir.program import Program
from nldsl.passes.plan import plan
from tests.numeric.iree_compare import CLOSE, compare, loaded, training_errors, usable

STDLIB = Path(__file__).parents[2] / "stdlib"

# Two slow clocks: the slower one reads what the other one has just changed, and both read a fast state.
NESTED = """
memory Nested(d: dim = 4) {
  state fast, slow, deep: [d, d] = learned normal(0.3)
  step(x: [d]) -> [d] {
    h = tanh(fast @ x)
    fast <- 0.8 * fast + 0.1 * outer(tanh(slow @ h), x)
    every 4 token { slow <- tanh(slow @ slow) + mean of (outer(h, x) + fast) }
    every 12 token { deep <- tanh(deep @ slow @ slow) }
    return h + deep @ x
  }
}
"""
# Two states of one clock, each made of the other one, and a state that is reset.
TOGETHER = """
memory Together(d: dim = 4) {
  state fast: [d, d] = learned normal(0.3) reset every 7 token
  state left, right: [d, d] = 0
  step(x: [d], rate: []) -> [d] {
    h = tanh(fast @ x + left @ x)
    fast <- 0.7 * fast + outer(h, x)
    every 5 token {
      left <- 0.5 * right @ right + 0.1 * last of fast
      right <- left @ right - mean of rate * right
    }
    return h + right @ x
  }
}
"""
# An optimizer that makes a momentum orthogonal at every second step only.
TRAINED = """
from "blocks/basic" import linear
from "optimizers/m3" import M3
model Line(d: dim = 3) {
  level fast = every 1 step
  input x: [d]
  input y: [d]
  minimize sum((linear(x, d) - y)^2) at fast with M3(rate = 1e-2, beta1 = 0.5, beta3 = 0.5, epsilon = 1.0, period = 2)
}
"""

# A level that ticks at every third step: its optimizer's products are of those steps alone.
SLOW_LEVEL = """
from "blocks/basic" import linear
from "optimizers/adam" import AdamW
from "optimizers/muon" import Muon
model Levels(d: dim = 3) {
  level fast = every 1 step
  level slow = every 3 step with Muon(rate = 1e-1)
  input x: [d]
  input y: [d]
  h = linear(x, d) at slow
  minimize sum((linear(h, d) - y)^2) at fast with AdamW(rate = 1e-2)
}
"""


def program_of(text: str) -> Program:
    options = Options(roots=(str(STDLIB),))
    return middle(front("clocks.nl", options, text), options)


def branches(program: Program) -> list[Branch]:
    roots = [v for _, v in (*program.outputs, *program.updates)]
    values = [v for v in sorted(reachable(program.body, roots)) if program.body[v].args]
    found = planned(program.body, values, roots, None)
    order = [v for item in found for v in ((*item.inside, *item.whens) if isinstance(item, Branch) else (item,))]
    assert sorted(order) == values, "every value once"
    done: set[int] = set()
    for item in found:
        inside = {*item.inside, *item.whens} if isinstance(item, Branch) else {item}
        taken = {a for v in inside for a in program.body[v].args if a in values} - inside
        assert taken <= done, "what is taken is known"
        done |= {*item.whens} if isinstance(item, Branch) else inside
    return [item for item in found if isinstance(item, Branch)]


@pytest.mark.parametrize(("text", "clocks"), [(NESTED, [4, 12]), (TOGETHER, [5])])
def test_each_clock_has_one_branch(text: str, clocks: list[int]) -> None:
    found = branches(program_of(text))
    assert [b.clock.period for b in found] == clocks
    products = [sum(program_of(text).body[v].op == "einsum" for v in b.inside) for b in found]
    assert all(products), "products of matrices are inside"


def test_products_of_a_slow_clock_are_in_a_loop_of_their_own() -> None:
    """In a tick: a contraction that stands deeper than the tick itself."""
    text = whole_module(plan(program_of(NESTED)), ["step"]).text
    step = text[text.index("func.func @step") :]
    deep = [len(line) - len(line.lstrip()) for line in step.splitlines() if "scf.for" in line]
    assert len(deep) == 2
    rounds = re.findall(r"arith\.select %\S+, %\S+, %\S+ : index", step)
    assert len(rounds) == 2, "one round or none"


@pytest.mark.parametrize("text", [NESTED, pytest.param(TOGETHER, marks=pytest.mark.slow)])
def test_it_agrees_with_the_reference(text: str) -> None:
    program = program_of(text)
    drawn, run = usable(program, 29, 2)
    compare(program, loaded(program, drawn.params), drawn, run)


def test_the_clock_of_an_optimizer() -> None:
    program = program_of(TRAINED)
    train = whole_module(plan(program), ["train"]).text
    assert "arith.select" in train, "a loop of one round or none"
    rng = np.random.default_rng(0)
    batches = [tuple(rng.standard_normal((2, 5, 3), dtype=np.float32) for _ in range(2)) for _ in range(5)]
    for found in training_errors(program, batches):
        assert all(own < CLOSE for own, _ in found.values()), found


def test_the_optimizer_of_a_slow_level() -> None:
    """It is one branch for its parameter, with all its products, and agrees over two of its ticks and after."""
    program = program_of(SLOW_LEVEL)
    train = whole_module(plan(program), ["train"]).text
    (at,) = (m.start() for m in re.finditer(r"arith\.select %\S+, %\S+, %\S+ : index", train))
    before, inside = train[:at].count("linalg.generic"), train[at:].count("linalg.generic")
    assert inside > 10, (before, inside)
    rng = np.random.default_rng(0)
    batches = [tuple(rng.standard_normal((2, 5, 3), dtype=np.float32) for _ in range(2)) for _ in range(7)]
    for found in training_errors(program, batches):
        assert all(own < CLOSE for own, _ in found.values()), found
