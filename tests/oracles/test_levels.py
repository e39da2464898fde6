# mypy: disable-error-code="no-any-return, misc"
"""Continuum memory systems and stacked levels: levels of tokens against loops with torch.func.grad, levels of steps
against torch.optim with gradients added up by hand. The periods do not divide one another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import nldsl
from nldsl.runtime.optimizer import LevelOptimizers
from tests.oracles.harness import STDLIB, Case, Tensors, agree, between, both_backends
from tests.oracles.test_deep import each_sequence

Params = dict[str, torch.Tensor]
T = torch.optim


def rmsnorm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return gain * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def layer(p: Params, n: int, x: torch.Tensor) -> torch.Tensor:
    """A feed-forward block with its norm."""
    h = rmsnorm(x, p[f"l.{n}.rmsnorm.gain"])
    return F.silu(h @ p[f"l.{n}.mlp.w1"].T) @ p[f"l.{n}.mlp.w2"].T


def in_a_row(p: Params, x: torch.Tensor) -> torch.Tensor:
    for n in range(2):
        x = x + layer(p, n, x)
    return x


def beside(p: Params, x: torch.Tensor) -> torch.Tensor:
    return x + p["weight"][0] * layer(p, 0, x) + p["weight"][1] * layer(p, 1, x)


# ---------------------------------------------------------------- levels of tokens

TOKENS = """
from "blocks/cms" import {name}
from "optimizers/sgd" import SGD
from "objectives" import l2
model Test() {{
  level step
  level slow = every {slow} token with SGD(rate = 0.1)
  level fast = every {fast} token with SGD(rate = 0.2)
  input x: [3]
  input target: [3]
  y = {name}(x, [slow, fast], 4)
  minimize l2(y, target) at step with SGD()
  return y
}}
"""


def continuum(
    forward: Callable[[Params, torch.Tensor], torch.Tensor], block: str, slow: int, fast: int, nested: bool = False
) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """Each block takes one step with the sum of the slopes of the task loss since its last one."""

    def run(x: Tensors, given: Tensors) -> list[torch.Tensor]:
        first = {n.removeprefix(f"{block}."): p for n, p in given.items()}
        now, found = dict(first), []
        levels = {"l.0": (slow, 0.1), "l.1": (fast, 0.2)}
        sums: Params = {}
        for t, (token, target) in enumerate(zip(x["x"], x["target"], strict=True), 1):
            found.append(forward(now, token))

            def loss(p: Params, token: torch.Tensor = token, target: torch.Tensor = target) -> torch.Tensor:
                return 0.5 * ((forward(p, token) - target) ** 2).sum()

            slopes = torch.func.grad(loss)(now)
            for name in now:
                period, rate = levels.get(name[:3], (0, 0.0))
                if not period:
                    continue
                sums[name] = sums.get(name, torch.zeros(())) + slopes[name]
                if t % period == 0:
                    now[name] = now[name] - rate * sums.pop(name)
                if nested and name.startswith("l.1") and t % slow == 0:
                    now[name] = first[name]
        return found

    return each_sequence(run)


def tokens(name: str, forward: Callable[..., torch.Tensor], slow: int, fast: int, nested: bool = False) -> Case:
    block = {"Cms": "cms", "NestedCms": "nested_cms", "IndependentCms": "independent_cms"}[name]
    return Case(
        "cms.nl",
        "Test",
        {},
        continuum(forward, block, slow, fast, nested),
        "loop with torch.func.grad",
        label=f"({name}, every {slow} and {fast} tokens)",
        text=TOKENS.format(name=name, slow=slow, fast=fast),
        ticks=10,
        draws={"target": between(-1, 1)},
    )


CASES = [
    tokens("Cms", in_a_row, 3, 2),
    tokens("Cms", in_a_row, 5, 1),
    tokens("IndependentCms", beside, 3, 2),
    tokens("NestedCms", in_a_row, 4, 2, nested=True),
    tokens("NestedCms", in_a_row, 3, 2, nested=True),
]


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_agrees(case: Case, backend: str) -> None:
    agree(case, backend)


# ---------------------------------------------------------------- levels of steps

STEPS = """
from "blocks/cms" import {name}
from "optimizers/adam" import AdamW
from "optimizers/momentum" import Momentum
from "objectives" import l2
model Test() {{
  level step
  level slow = every 3 step with Momentum(rate = 0.05, beta = 0.8)
  level fast = every 2 step
  input x: [3]
  input target: [3]
  y = {name}(x, [slow, fast], 4)
  minimize l2(y, target) at step with AdamW(rate = 0.02, decay = 0.1)
  return y
}}
"""
VARIANTS = [("Cms", in_a_row, "cms"), ("IndependentCms", beside, "independent_cms")]


def trained_error(name: str, forward: Callable[[Params, torch.Tensor], torch.Tensor], block: str) -> float:
    """The largest difference of a weight over 12 steps, each side on its own."""
    module = nldsl.compile("steps.nl", "Test", text=STEPS.format(name=name), backend="torch").double()
    ours = {n.removeprefix(f"{block}."): p for n, p in module.named_parameters()}
    theirs = {n: p.detach().clone().requires_grad_() for n, p in ours.items()}
    slow = [p for n, p in theirs.items() if n.startswith("l.0")]
    fast = [p for n, p in theirs.items() if n.startswith("l.1")]
    rest = [p for n, p in theirs.items() if not n.startswith("l.")]
    # a learning rate inside the momentum, as in the language, is the same while it is constant
    peers: list[tuple[int, torch.optim.Optimizer]] = [
        (3, T.SGD(slow, lr=0.05, momentum=0.8)),
        (2, T.AdamW(fast, lr=0.02, weight_decay=0.1)),
    ]
    if rest:
        peers.append((1, T.AdamW(rest, lr=0.02, weight_decay=0.1)))
    optimizers = LevelOptimizers(module)
    generator, worst = torch.Generator().manual_seed(0), 0.0
    for step in range(1, 13):
        x, target = (torch.randn(4, 5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
        optimizers.zero_grad()
        loss, _ = module.loss(x=x, target=target)
        torch.autograd.backward(loss)
        optimizers.step()
        torch.autograd.backward(0.5 * ((forward(theirs, x) - target) ** 2).sum(-1).mean())  # gradients add up
        for period, peer in peers:
            if step % period == 0:
                peer.step()
                peer.zero_grad()
        worst = max(worst, *(float((ours[n] - theirs[n]).detach().abs().max()) for n in ours))
    return worst


@pytest.mark.parametrize(("name", "forward", "block"), VARIANTS, ids=[v[0] for v in VARIANTS])
def test_levels_of_steps(name: str, forward: Callable[[Params, torch.Tensor], torch.Tensor], block: str) -> None:
    assert trained_error(name, forward, block) <= 1e-12


# ---------------------------------------------------------------- stacked levels


def network(entry: str, **given: float) -> torch.nn.Module:
    sizes = {"vocab": 11, "d": 8, "heads": 2, "hidden": 6, "reach": 12}
    file = STDLIB / "models" / "level_stacking.nl"
    return nldsl.compile(file, entry, backend="torch", **(sizes | given)).double()  # type: ignore[arg-type]


def stacked(inner: float, weights: Params) -> torch.nn.Module:
    module = network("Stacked", inner=inner, slow_period=5, mid_period=3, fast_period=2)
    module.load_state_dict(weights)
    return module


@pytest.fixture(scope="module")
def pretrained() -> torch.nn.Module:
    return network("Pretrained")


def heads_of(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(*x.shape[:-1], 2, 4)


def text(length: int = 12) -> torch.Tensor:
    return torch.randint(11, (2, length), generator=torch.Generator().manual_seed(1))


def transformer(p: Params, tokens: torch.Tensor) -> torch.Tensor:
    """The pretrained network, written with PyTorch's attention."""
    x = p["embed.table"][tokens]
    for n in range(3):
        h = rmsnorm(x, p[f"l.{n}.rmsnorm.gain"])
        q, k, v = (heads_of(h @ p[f"l.{n}.attention.linear{s}.w"].T).transpose(1, 2) for s in ("", "_2", "_3"))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + y @ p[f"l.{n}.attention.linear_4.w"].T
        h = rmsnorm(x, p[f"l.{n}.rmsnorm_2.gain"])
        x = x + F.silu(h @ p[f"l.{n}.mlp.w1"].T) @ p[f"l.{n}.mlp.w2"].T
    return rmsnorm(x, p["rmsnorm.gain"]) @ p["linear.w"].T


def test_the_pretrained_network_is_a_transformer(pretrained: torch.nn.Module) -> None:
    p = {n: q.detach() for n, q in pretrained.named_parameters()}
    assert torch.allclose(pretrained(tokens=text()), transformer(p, text()), atol=1e-12)


def test_stacked_levels_that_do_not_learn_are_the_pretrained_network(pretrained: torch.nn.Module) -> None:
    module = stacked(0.0, pretrained.state_dict())
    assert torch.allclose(module(tokens=text()), pretrained(tokens=text()), atol=1e-12)


def test_stacked_levels_learn_at_their_periods(pretrained: torch.nn.Module) -> None:
    """Against a loop over the tokens: the loss of each prediction, its slopes added up, a step at each period."""
    module, rate = stacked(0.3, pretrained.state_dict()), 0.3
    now = {n: p.detach() for n, p in pretrained.named_parameters()}
    found = []
    tokens, periods = text(), (5, 3, 2)
    for row in tokens:
        weights, sums, outputs = dict(now), dict[str, torch.Tensor](), []
        past: list[Params] = []  # attention keeps keys and values made with the weights of their own tokens
        for t in range(1, len(row) + 1):
            past.append(dict(weights))
            outputs.append(logits_at(past, row[:t]).detach())
            if t == len(row):
                break

            def loss(w: Params, past: list[Params] = past, t: int = t, row: torch.Tensor = row) -> torch.Tensor:
                return F.cross_entropy(logits_at([*past[:-1], past[-1] | w], row[:t]), row[t])

            slopes = torch.func.grad(loss)({n: w for n, w in weights.items() if ".mlp." in n or "rmsnorm_2" in n})
            for name, slope in slopes.items():
                sums[name] = sums.get(name, torch.zeros_like(slope)) + slope
                if t % periods[int(name[2])] == 0:
                    weights[name] = weights[name] - rate * sums.pop(name)
        found.append(torch.stack(outputs))
    assert torch.allclose(module(tokens=tokens), torch.stack(found), atol=1e-11)
    assert not torch.allclose(module(tokens=tokens), pretrained(tokens=tokens), atol=1e-3)


def logits_at(weights: list[Params], tokens: torch.Tensor) -> torch.Tensor:
    """The logits for the last token, each token going through the network with the weights of its own time."""
    last = weights[-1]
    rows = [w["embed.table"][token] for w, token in zip(weights, tokens, strict=True)]
    for n in range(3):
        hs = [rmsnorm(x, w[f"l.{n}.rmsnorm.gain"]) for x, w in zip(rows, weights, strict=True)]
        new = []
        for t, x in enumerate(rows):
            q, k, v = (
                heads_of(torch.stack([h @ last[f"l.{n}.attention.linear{s}.w"].T for h in hs[: t + 1]]))
                for s in ("", "_2", "_3")
            )
            scores = torch.einsum("hd,thd->ht", q[-1], k) / 2
            y = torch.einsum("ht,thd->hd", torch.softmax(scores, -1), v).flatten()
            x = x + y @ last[f"l.{n}.attention.linear_4.w"].T
            own = weights[t]
            h = rmsnorm(x, own[f"l.{n}.rmsnorm_2.gain"])
            new.append(x + F.silu(h @ own[f"l.{n}.mlp.w1"].T) @ own[f"l.{n}.mlp.w2"].T)
        rows = new
    return rmsnorm(rows[-1], last["rmsnorm.gain"]) @ last["linear.w"].T
