# mypy: disable-error-code="no-any-return, misc"
"""Optimizers, the same text inside a memory (per token) and outside (per training step), against torch.optim.

Inside a memory each is run for 100 ticks on given gradients and differentiated; outside it descends on a small problem
for 100 steps, where a difference would grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5

from nldsl.api import load_program
from nldsl.backends.reference import Reference
from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.driver import Options, derived, names_of
from nldsl.runtime.initialize import initialize
from nldsl.semantics.assemble import optimizer_program
from tests.oracles.harness import Case, Tensors, agree, both_backends, doubles

ROWS, COLUMNS = 4, 3
Make = Callable[[torch.Tensor], torch.optim.Optimizer]
Step = Callable[[torch.Tensor, torch.Tensor, dict[str, Any], int], torch.Tensor]


def imported(template: str) -> str:
    return template.partition("(")[0] + (", Whitening" if "Whitening" in template else "")


def text_of(file: str, template: str, weight: bool) -> str:
    passed = "g, weight = w" if weight else "g"
    return f"""
from "optimizers/{file}" import {imported(template)}
memory Descent() {{
  optimizer opt: {template}
  state w: [{ROWS}, {COLUMNS}] = learned normal(1.0)
  step(g: [{ROWS}, {COLUMNS}]) -> [{ROWS}, {COLUMNS}] every token {{
    w <- w + opt.learn({passed})
    return w
  }}
}}
"""


def library(make: Make) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """A library's optimizer run on the gradients of each sequence; differentiable where it says so."""

    def run(x: Tensors, p: Tensors) -> torch.Tensor:
        sequences = []
        for g in x["g"]:
            with doubles():
                w = p["w_0"].clone()
                if not make(w.detach()).defaults.get("differentiable"):
                    w, g = w.detach(), g.detach()
                optimizer = make(w)
                found = []
                for slope in g:
                    w.grad = slope.clone()
                    optimizer.step()
                    found.append(w.clone())
            sequences.append(torch.stack(found))
        return torch.stack(sequences)

    return run


def loop(step: Step) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """A hand-written step, differentiated by autograd: (g, w, states, tick) to the change."""

    def run(x: Tensors, p: Tensors) -> torch.Tensor:
        sequences = []
        for g in x["g"]:
            w, states, found = p["w_0"], dict[str, Any](p), []
            for t, slope in enumerate(g, 1):
                w = w + step(slope, w, states, t)
                found.append(w)
            sequences.append(torch.stack(found))
        return torch.stack(sequences)

    return run


# ---------------------------------------------------------------- hand-written steps


def newton_schulz(
    x: torch.Tensor, a: float = 3.4445, b: float = -4.7750, c: float = 2.0315, steps: int = 5
) -> torch.Tensor:
    """By the singular values, which the iteration maps by its polynomial."""
    u, s, v = torch.linalg.svd(x / x.norm(), full_matrices=False)
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ v


def momentum(nesterov: bool) -> Step:
    def step(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
        s["m"] = 0.9 * s.get("m", 0) + g
        return -0.1 * (g + 0.9 * s["m"] if nesterov else s["m"])

    return step


def amsgrad(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.9 * s.get("v", 0) + 0.1 * g**2
    s["top"] = torch.maximum(s["v"], s.get("top", torch.zeros_like(g)))
    return -0.01 * s["m"] / (1 - 0.9**t) / ((s["top"] / (1 - 0.9**t)).sqrt() + 1e-8)


def rmsprop(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    s["mean"] = 0.99 * s.get("mean", 0) + 0.01 * g
    s["m"] = 0.9 * s.get("m", 0) + g / ((s["v"] - s["mean"] ** 2).sqrt() + 1e-8)
    return -0.01 * s["m"]


def muon(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    s["m"] = 0.95 * s.get("m", 0) + 0.05 * g
    return -0.02 * (newton_schulz(0.95 * s["m"] + 0.05 * g) * (ROWS / COLUMNS) ** 0.5 + 0.1 * w)


def adamuon(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    direction = newton_schulz(s["m"])
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * direction**2
    scaled = direction / ((s["v"] / (1 - 0.95**t)).sqrt() + 1e-10)
    return -0.02 * 0.2 * ROWS**0.5 * COLUMNS**0.5 * scaled / (scaled.norm() + 1e-10)


def root(a: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(a)
    return vectors @ torch.diag(values**-0.25) @ vectors.T


def shampoo(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    s["l"] = s.get("l", 0.1 * torch.eye(ROWS, dtype=g.dtype)) + g @ g.T
    s["r"] = s.get("r", 0.1 * torch.eye(COLUMNS, dtype=g.dtype)) + g.T @ g
    return -0.1 * root(s["l"]) @ g @ root(s["r"])


def soap(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    p, q = s.get("p", torch.eye(ROWS, dtype=g.dtype)), s.get("q", torch.eye(COLUMNS, dtype=g.dtype))
    s["m"] = 0.95 * s.get("m", 0) + 0.05 * g
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * (p.T @ g @ q) ** 2
    step = p.T @ s["m"] @ q / (1 - 0.95**t) / ((s["v"] / (1 - 0.95**t)).sqrt() + 1e-8)
    s["l"] = 0.95 * s.get("l", 0) + 0.05 * g @ g.T
    s["r"] = 0.95 * s.get("r", 0) + 0.05 * g.T @ g
    if t % 5 == 0:
        s["p"], s["q"] = torch.linalg.qr(s["l"] @ p)[0], torch.linalg.qr(s["r"] @ q)[0]
    return -0.01 * (p @ step @ q.T + 0.01 * w)


def signum(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    return -0.01 * s["m"].sign()


def m3(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    """Algorithm 1 with the whole history kept: all sums are written out."""
    past = s.setdefault("past", [])
    past.append(g)
    chunk = (t - 1) // 4
    m1, v = 0.5 * sum(past), 0.7 * sum(x**2 for x in past)
    fast = newton_schulz(m1)
    slow = newton_schulz(0.9 * sum(past[: 4 * chunk])) if chunk else 0.0
    return -0.05 * (fast + 0.3 * slow) / (v.sqrt() + 1e-8)


def delta_momentum(left: bool, erase: float) -> Step:
    def step(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
        m = s.get("m", torch.zeros_like(g))
        if left:
            s["m"] = (0.9 * torch.eye(ROWS, dtype=g.dtype) - erase * g @ g.T) @ m - 0.05 * g
        else:
            s["m"] = m @ (0.9 * torch.eye(COLUMNS, dtype=g.dtype) - erase * g.T @ g) - 0.05 * g
        return s["m"]

    return step


def preconditioned(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    s["m"] = 0.9 * s.get("m", 0) - 0.01 * g / (s["v"].sqrt() + 1e-8)
    return s["m"]


def deep_momentum(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    w1, w2 = s.get("w1", s["opt.w1_0"]), s.get("w2", s["opt.w2_0"])

    def network(w1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
        return torch.stack([w2 @ torch.tanh(w1 @ row) - 0.01 * row for row in g])

    d1, d2 = torch.func.grad(lambda a, b: network(a, b).sum(), argnums=(0, 1))(w1, w2)
    s["w1"], s["w2"] = 0.9 * w1 - 0.01 * d1, 0.9 * w2 - 0.01 * d2
    return network(s["w1"], s["w2"])


def learned(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g**2
    features = torch.stack([g, s["m"], g / (s["v"].sqrt() + 1e-8)], -1)
    added = torch.tanh(features @ s["opt.w"].T + s["opt.b"]) @ s["opt.out"]
    return -0.01 * (s["m"] + added)


def ftrl(g: torch.Tensor, w: torch.Tensor, s: dict[str, Any], t: int) -> torch.Tensor:
    n = s.get("n", torch.zeros_like(g))
    s["n"] = n + g**2
    s["z"] = s.get("z", 0) + g - (s["n"].sqrt() - (n.sqrt() if t > 1 else n)) / 0.1 * w
    leader = (s["z"].sign() * 0.2 - s["z"]) / ((0.5 + s["n"].sqrt()) / 0.1 + 0.3)
    return torch.where(s["z"].abs() <= 0.2, 0.0, leader) - w


# ---------------------------------------------------------------- the table

T = torch.optim
# file, the instance, whether it takes the weight, the oracle, its name, whether the oracle can be differentiated
ROWS_OF_TABLE: list[tuple[str, str, bool, Callable[[Tensors, Tensors], torch.Tensor], str, bool]] = [
    (
        "sgd",
        "SGD(rate = 0.1)",
        False,
        library(lambda w: T.SGD([w], lr=0.1, differentiable=True)),
        "torch.optim.SGD",
        True,
    ),
    (
        "momentum",
        "Momentum(rate = 0.1, beta = 0.9)",
        False,
        library(lambda w: T.SGD([w], lr=0.1, momentum=0.9)),
        "torch.optim.SGD(momentum)",
        False,  # it detaches its first gradient
    ),
    ("momentum", "Momentum(rate = 0.1, beta = 0.9)", False, loop(momentum(False)), "loop", True),
    (
        "momentum",
        "Nesterov(rate = 0.1, beta = 0.9)",
        False,
        library(lambda w: T.SGD([w], lr=0.1, momentum=0.9, nesterov=True)),
        "torch.optim.SGD(nesterov)",
        False,
    ),
    ("momentum", "Nesterov(rate = 0.1, beta = 0.9)", False, loop(momentum(True)), "loop", True),
    (
        "adam",
        "Adam(rate = 0.01)",
        False,
        library(lambda w: T.Adam([w], lr=0.01, differentiable=True)),
        "torch.optim.Adam",
        True,
    ),
    (
        "adam",
        "AdamW(rate = 0.01, decay = 0.1)",
        True,
        library(lambda w: T.AdamW([w], lr=0.01, weight_decay=0.1, differentiable=True)),
        "torch.optim.AdamW",
        True,
    ),
    (
        "adam",
        "AMSGrad(rate = 0.01, beta2 = 0.9)",
        False,
        library(lambda w: T.Adam([w], lr=0.01, betas=(0.9, 0.9), amsgrad=True)),
        "torch.optim.Adam(amsgrad)",
        False,  # it changes a value that its backward pass needs
    ),
    ("adam", "AMSGrad(rate = 0.01, beta2 = 0.9)", False, loop(amsgrad), "loop", True),
    (
        "adam",
        "NAdam(rate = 0.01)",
        False,
        library(lambda w: T.NAdam([w], lr=0.01, differentiable=True)),
        "torch.optim.NAdam",
        True,
    ),
    (
        "adagrad",
        "AdaGrad(rate = 0.1)",
        False,
        library(lambda w: T.Adagrad([w], lr=0.1, differentiable=True)),
        "torch.optim.Adagrad",
        True,
    ),
    (
        "adagrad",
        "RMSProp(rate = 0.01)",
        False,
        library(lambda w: T.RMSprop([w], lr=0.01, differentiable=True)),
        "torch.optim.RMSprop",
        True,
    ),
    (
        "adagrad",
        "RMSProp(rate = 0.01, beta = 0.9, centered = true)",
        False,
        library(lambda w: T.RMSprop([w], lr=0.01, momentum=0.9, centered=True)),
        "torch.optim.RMSprop(centered)",
        False,  # it changes a value that its backward pass needs
    ),
    ("adagrad", "RMSProp(rate = 0.01, beta = 0.9, centered = true)", False, loop(rmsprop), "loop", True),
    ("sign", "Signum(rate = 0.01)", False, loop(signum), "loop", True),
    (
        "sign",
        "Lion(rate = 0.01, decay = 0.1)",
        True,
        library(lambda w: pytorch_optimizer.Lion([w], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)),
        "pytorch_optimizer.Lion",
        False,
    ),
    ("muon", "Muon(rate = 0.02)", True, library(lambda w: T.Muon([w], lr=0.02)), "torch.optim.Muon in float64", False),
    ("muon", "Muon(rate = 0.02)", True, loop(muon), "loop by singular values", True),
    ("muon", "AdaMuon()", True, loop(adamuon), "loop by singular values", True),
    (
        "shampoo",
        "Shampoo(rate = 0.1, epsilon = 0.1)",
        False,
        library(lambda w: pytorch_optimizer.Shampoo([w], lr=0.1, matrix_eps=0.1)),
        "pytorch_optimizer.Shampoo",
        False,
    ),
    ("shampoo", "Shampoo(rate = 0.1, epsilon = 0.1)", False, loop(shampoo), "loop by eigenvalues", True),
    ("shampoo", "SOAP(rate = 0.01, period = 5)", True, loop(soap), "loop with torch.linalg.qr", True),
    (
        "m3",
        "M3(rate = 0.05, beta1 = 0.5, beta2 = 0.7, beta3 = 0.9, alpha = 0.3, period = 4)",
        True,
        loop(m3),
        "loop over the whole past",
        True,
    ),
    ("delta", "DeltaMomentum(rate = 0.05, erase = 0.1)", False, loop(delta_momentum(False, 0.1)), "loop", True),
    (
        "delta",
        "DeltaMomentum(rate = 0.05, erase = 0.1, left = true)",
        False,
        loop(delta_momentum(True, 0.1)),
        "loop",
        True,
    ),
    (
        "deep",
        "PreconditionedMomentum(rate = 0.01, precondition = Whitening(beta = 0.99))",
        False,
        loop(preconditioned),
        "loop",
        True,
    ),
    ("deep", "DeepMomentum(rate = 0.01, hidden = 5)", False, loop(deep_momentum), "loop with torch.func.grad", True),
    ("learned", "LearnedOptimizer(beta2 = 0.99, hidden = 4)", False, loop(learned), "loop", True),
    (
        "ftrl",
        "FTRL(rate = 0.1, beta = 0.5, lasso = 0.2, ridge = 0.3)",
        True,
        library(lambda w: pytorch_optimizer.FTRL([w], lr=0.1, beta=0.5, lambda_1=0.2, lambda_2=0.3)),
        "pytorch_optimizer.FTRL",
        False,
    ),
    ("ftrl", "FTRL(rate = 0.1, beta = 0.5, lasso = 0.2, ridge = 0.3)", True, loop(ftrl), "loop", True),
]
SHORT = {"SOAP": 12, "Shampoo": 12, "M3": 12, "DeepMomentum": 12}


def _cases() -> Iterator[Case]:
    for file, template, weight, oracle, against, smooth in ROWS_OF_TABLE:
        name, _, arguments = template.partition("(")
        text = text_of(file, template, weight)
        yield Case(
            f"{name}.nl",
            "Descent",
            {},
            oracle,
            against,
            text=text,
            ticks=SHORT.get(name, 100),
            label=f"{name}({arguments} vs {against}",
            batch=2,
            values=1e-12 if against.startswith("torch.optim") and name != "Muon" else 1e-10,
            gradients=1e-8 if smooth else None,
        )


CASES = list(_cases())


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_inside_a_memory(case: Case, backend: str) -> None:
    agree(case, backend)


# ---------------------------------------------------------------- outside, per training step


def slope(w: torch.Tensor) -> torch.Tensor:
    """The gradient of a loss with curvature, valleys and a bend."""
    with torch.enable_grad():
        x = w.detach().requires_grad_()
        target = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
        loss = ((x - target) ** 2 * (1 + target**2)).sum() + 0.3 * torch.sin(3 * x).sum() + 0.1 * (x @ x.T).sum() ** 2
        return torch.autograd.grad(loss, x)[0]


OUTSIDE: list[tuple[str, str, dict[str, Any], Make]] = [
    ("sgd", "SGD", {"rate": 0.01}, lambda w: T.SGD([w], lr=0.01)),
    ("momentum", "Momentum", {"rate": 0.01}, lambda w: T.SGD([w], lr=0.01, momentum=0.9)),
    ("momentum", "Nesterov", {"rate": 0.01}, lambda w: T.SGD([w], lr=0.01, momentum=0.9, nesterov=True)),
    ("adam", "Adam", {"rate": 0.05}, lambda w: T.Adam([w], lr=0.05)),
    ("adam", "AdamW", {"rate": 0.05, "decay": 0.1}, lambda w: T.AdamW([w], lr=0.05, weight_decay=0.1)),
    ("adam", "AMSGrad", {"rate": 0.05}, lambda w: T.Adam([w], lr=0.05, amsgrad=True)),
    ("adam", "NAdam", {"rate": 0.05}, lambda w: T.NAdam([w], lr=0.05)),
    ("adagrad", "AdaGrad", {"rate": 0.1}, lambda w: T.Adagrad([w], lr=0.1)),
    ("adagrad", "RMSProp", {"rate": 0.01}, lambda w: T.RMSprop([w], lr=0.01)),
    ("sign", "Signum", {"rate": 0.01}, lambda w: pytorch_optimizer.SignSGD([w], lr=0.01, momentum=0.9)),
    ("sign", "Lion", {"rate": 0.01}, lambda w: pytorch_optimizer.Lion([w], lr=0.01, betas=(0.9, 0.99))),
    ("muon", "Muon", {"rate": 0.02}, lambda w: T.Muon([w], lr=0.02)),
    (
        "muon",
        "AdaMuon",
        {"rate": 0.02},
        lambda w: pytorch_optimizer.AdaMuon([{"params": [w], "use_muon": True, "lr": 0.02}]),
    ),
    ("shampoo", "Shampoo", {"rate": 0.1}, lambda w: pytorch_optimizer.Shampoo([w], lr=0.1)),
    ("ftrl", "FTRL", {"rate": 0.1, "lasso": 0.1}, lambda w: pytorch_optimizer.FTRL([w], lr=0.1, lambda_1=0.1)),
]
# Newton's iteration for the roots and the singular value decomposition round differently; sums of 100 steps grow it.
LOOSE = {"Shampoo": 1e-8, "Muon": 1e-10, "AdaMuon": 1e-10}


def spec_of(file: str, name: str, given: dict[str, Any]) -> Any:
    bag = DiagnosticBag()
    names = names_of("outside.nl", Options(), bag, f'from "optimizers/{file}" import {name}\n')
    bag.raise_if_errors()
    assert names is not None
    template = names.scopes[names.root].bindings[name].value
    return type(template)(template.decl, template.scope, tuple(given.items()))


def outside_error(file: str, name: str, given: dict[str, Any], make: Make, steps: int = 100) -> float:
    """The largest difference of the weights over all steps."""
    bag = DiagnosticBag()
    options = Options()
    program = optimizer_program(spec_of(file, name, given), (ROWS, COLUMNS), bag, options.limits)
    bag.raise_if_errors()
    assert program is not None
    reference = Reference(derived(program), {})
    state = reference.init_state(1)
    random = np.random.default_rng(5)
    ours = 0.5 * random.standard_normal((ROWS, COLUMNS))
    theirs = torch.tensor(ours.copy())
    worst = 0.0
    exact = partial(zero_power_via_newton_schulz_5, dtype=torch.float64)
    with doubles(), patch("pytorch_optimizer.optimizer.muon.adamuon.zero_power_via_newton_schulz_5", exact):
        optimizer = make(theirs)
        for _ in range(steps):
            outputs, state = reference.tick(state, {"g": slope(torch.tensor(ours)).numpy(), "weight": ours})
            ours = ours + outputs["change"]
            theirs.grad = slope(theirs)
            optimizer.step()
            worst = max(worst, float(np.abs(ours - theirs.numpy()).max()))
    return worst


@pytest.mark.parametrize(("file", "name", "given", "make"), OUTSIDE, ids=[row[1] for row in OUTSIDE])
def test_outside(file: str, name: str, given: dict[str, Any], make: Make) -> None:
    assert outside_error(file, name, given, make) <= LOOSE.get(name, 1e-12)


# ---------------------------------------------------------------- the same text at both places


@pytest.mark.parametrize("row", ROWS_OF_TABLE, ids=lambda row: f"{row[1]}-{row[4]}")
def test_inside_is_outside(row: tuple[Any, ...]) -> None:
    """A program of its own at every step of training gives the changes that it gives as a memory at every token."""
    file, template, weight = row[:3]
    bag, options = DiagnosticBag(), Options()
    found = names_of(
        "outside.nl", options, bag, f'from "optimizers/{file}" import {imported(template)}\nrule = {template}\n'
    )
    bag.raise_if_errors()
    assert found is not None
    outside = optimizer_program(found.scopes[found.root].bindings["rule"].value, (ROWS, COLUMNS), bag, options.limits)
    bag.raise_if_errors()
    assert outside is not None
    inside = load_program("inside.nl", "Descent", text=text_of(file, template, weight))
    values = initialize(inside, 0)
    own = {p.name: values[f"opt.{p.name.rpartition('.')[2]}"] for p in outside.params}
    gradients = np.random.default_rng(1).standard_normal((1, 12, ROWS, COLUMNS))
    expected, _, _ = Reference(inside, values).run({"g": gradients})
    rule, w = Reference(derived(outside), own), values["w_0"]
    state = rule.init_state(1)
    for t in range(12):
        outputs, state = rule.tick(state, {"g": gradients[0, t], "weight": w})
        w = w + outputs["change"]
        assert np.abs(w - expected["y"][0, t]).max() <= 1e-14
