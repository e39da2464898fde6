"""Optimizer memories against torch.optim, on levels of different periods, with checkpoints in between."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nldsl.api import compile as compile_program
from nldsl.api import load_program
from nldsl.ir.program import Program
from nldsl.runtime.module import Module
from nldsl.runtime.optimizer import LevelOptimizers, MemoryOptimizer, Rule

MODEL = """
{imports}
model Small(vocab: int = 7, d: dim = 6) {{
  level fast = every 1 step
  level slow = every 3 step
  input tokens: int[]
  param table: [vocab, d] = normal(1.0)
  param w: [d, d] = normal(0.5) at slow
  param w2: [d, d] = normal(0.5)
  param head: [vocab, d] = normal(0.5)
  y = head @ tanh(w2 @ tanh(w @ table[tokens]))
  minimize cross_entropy(y, next(tokens)) at fast with {optimizer}
  return y
}}
"""

OPTIMIZERS: dict[str, tuple[str, str, Callable[[Any], torch.optim.Optimizer]]] = {
    "SGD": (
        "optimizers/sgd",
        "SGD(rate = 0.1)",
        lambda p: torch.optim.SGD(p, lr=0.1),
    ),
    "Adam": (
        "optimizers/adam",
        "Adam(rate = 0.01)",
        lambda p: torch.optim.Adam(p, lr=0.01),
    ),
    "AdamW": (
        "optimizers/adam",
        "AdamW(rate = 0.01, decay = 0.1)",
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    ),
}


def model(name: str) -> Module:
    file, call, _ = OPTIMIZERS[name]
    text = MODEL.format(imports=f'from "{file}" import {name}', optimizer=call)
    return compile_program("small", text=text).double()


def batches(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, 7, (4, 9), generator=generator) for _ in range(count)]


def far(a: Module, b: Module) -> float:
    return max(float((x - y).detach().abs().max()) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_like_torch_optim_over_100_steps(name: str) -> None:
    ours = model(name)
    theirs = copy.deepcopy(ours)
    optimizers = LevelOptimizers(ours)
    params = dict(theirs.named_parameters())
    make = OPTIMIZERS[name][2]
    fast, slow = make([p for n, p in params.items() if n != "w"]), make([params["w"]])
    for n, tokens in enumerate(batches(100)):
        optimizers.zero_grad()
        ours.loss(tokens)[0].backward()  # type: ignore[no-untyped-call]
        ticked = optimizers.step()
        assert ticked == (("fast", "slow") if (n + 1) % 3 == 0 else ("fast",))
        fast.zero_grad()
        theirs.loss(tokens)[0].backward()  # type: ignore[no-untyped-call]
        fast.step()
        if (n + 1) % 3 == 0:
            slow.step()
            slow.zero_grad()
    assert far(ours, theirs) < 1e-12
    assert optimizers.cadence == {"fast": 100, "slow": 33}


def train(module: Module, optimizers: LevelOptimizers, data: list[torch.Tensor]) -> None:
    for tokens in data:
        optimizers.zero_grad()
        module.loss(tokens)[0].backward()  # type: ignore[no-untyped-call]
        optimizers.step()


def test_stored_and_read_back_in_the_middle_of_a_slow_level() -> None:
    data = batches(10)
    whole = model("AdamW")
    first = copy.deepcopy(whole)
    train(whole, LevelOptimizers(whole), data)
    before = LevelOptimizers(first)
    train(first, before, data[:4])
    stored = before.state_dict()
    second = copy.deepcopy(first)
    train(first, before, data[4:5])  # what is stored stays as it was
    after = LevelOptimizers(second)
    after.load_state_dict(stored)
    train(second, after, data[4:])
    assert far(whole, second) == 0.0


ORTHOGONAL = """
memory Scaled(rate: real = 0.1) {
  state n, m: [] = 0
  learn(g, weight: like g) -> like g {
    n <- norm(g)
    every 2 tick { m <- m + last of norm(weight) }
    return -rate * g / (1 + n + m)
  }
}
model M(d: dim = 4) {
  input x: [d]
  level outer_level = every 1 step
  param w: [d, d] = normal(0.5)
  minimize sum((w @ x)^2) at outer_level with Scaled()
}
"""


def rule() -> Rule:
    found: Rule = load_program("scaled", text=ORTHOGONAL).levels[0].optimizer
    return found


def test_copies_are_trained_each_on_its_own() -> None:
    torch.manual_seed(1)
    start = torch.randn(3, 4, 4, dtype=torch.float64)
    together = torch.nn.Parameter(start.clone())
    apart = [torch.nn.Parameter(row.clone()) for row in start]
    one = MemoryOptimizer([together], rule(), lanes={together: 1})
    many = MemoryOptimizer(apart, rule())
    assert isinstance(rule()((4, 4)), Program)
    for _ in range(5):
        gradient = torch.randn(3, 4, 4, dtype=torch.float64)
        together.grad = gradient.clone()
        for row, g in zip(apart, gradient, strict=True):
            row.grad = g.clone()
        one.step()
        many.step()
        torch.testing.assert_close(together.detach(), torch.stack([p.detach() for p in apart]), rtol=0, atol=0)


def test_an_ordinary_optimizer_for_any_module() -> None:
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))
    spec = load_program(
        "small", text=MODEL.format(imports='from "optimizers/adam" import Adam', optimizer="Adam(0.05)")
    )
    optimizer = MemoryOptimizer(net.parameters(), spec.levels[0].optimizer)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    x = torch.randn(64, 3)
    y = x.sum(-1, keepdim=True).sin()

    def closure() -> float:
        optimizer.zero_grad()
        loss = ((net(x) - y) ** 2).mean()
        loss.backward()
        return float(loss.detach())

    losses = []
    for _ in range(60):
        losses.append(optimizer.step(closure))
        schedule.step()
    assert losses[-1] < 0.2 * losses[0]
    stored = optimizer.state_dict()
    assert all(isinstance(x, torch.Tensor) for own in stored["state"].values() for x in own.values())


def test_frozen_parameters_stay() -> None:
    module = model("AdamW")
    optimizers = LevelOptimizers(module)
    frozen = dict(module.named_parameters())["w2"]
    frozen.requires_grad_(False)
    before = frozen.detach().clone()
    train(module, optimizers, batches(4))
    assert torch.equal(before, frozen)


def test_a_level_without_an_optimizer_is_an_error() -> None:
    text = """
model M(d: dim = 2) {
  input x: [d]
  level outer_level = every 1 step
  param w: [d] = normal(0.5)
  minimize sum((w * x)^2) at outer_level
}
"""
    with pytest.raises(ValueError, match="has no optimizer"):
        LevelOptimizers(compile_program("m", text=text))
