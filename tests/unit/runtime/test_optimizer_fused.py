"""Fused updates, as C and as foreach operations, against the reference interpreter run parameter by parameter."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nldsl.api import load_program
from nldsl.backends.reference import Reference
from nldsl.passes.entrywise import entrywise
from nldsl.runtime import optimizer_stacked
from nldsl.runtime.native import compile_native, compiler
from nldsl.runtime.optimizer import MemoryOptimizer, Rule
from nldsl.runtime.optimizer_entries import PIECE, EntryBatch
from nldsl.runtime.optimizer_stacked import StackedBatch

LIBRARY = {
    "SGD()": "sgd",
    "Momentum()": "momentum",
    "Nesterov()": "momentum",
    "AdaGrad()": "adagrad",
    "RMSProp(centered = true, beta = 0.5)": "adagrad",
    "Adam()": "adam",
    "AdamW()": "adam",
    "AMSGrad()": "adam",
    "NAdam()": "adam",
    "Signum()": "sign",
    "Lion(decay = 0.1)": "sign",
    "FTRL(lasso = 0.1, ridge = 0.2)": "ftrl",
    "PreconditionedMomentum()": "deep",
}

# Rules that no library has: every elementwise operation, swapped states, clocks, numbers that all entries share.
NOVEL = {
    "Swapped": """
memory Swapped() {
  state a: like g = 1
  state b: like g = 2
  learn(g, weight: like g) -> like g {
    old = a
    a <- b
    b <- old + g
    return a * b - 0.1 * weight
  }
}""",
    "Slow": """
memory Slow(keep: real = 0.8) {
  state fast, slow: like g = 0
  state factor: [] = 1
  learn(g, weight: like g) -> like g {
    fast <- keep * fast + g
    every 3 tick {
      slow <- slow + mean of g
      factor <- factor / 2
      fast <- 0.5 * last of fast
    }
    return -0.01 * factor * (fast + slow) / (1 + abs(weight))
  }
}""",
    "Many": """
memory Many() {
  state s: like g = 0.5
  learn(g, weight: like g) -> like g {
    a = where(g > s, exp(-abs(g)), min(g, 0.25)) + max(s, weight)
    b = softplus(a) + sigmoid(g) * tanh(s) + relu(weight) - erf(a)
    c = log1p(a^2) + sqrt(1 + b^2) + rsqrt(2 + g^2) + arctan(b) + floor(3 * g) + sin(a) * cos(b)
    d = 1 / (3 + s^2) - (2 - c) / 7 + (1 + abs(a))^1.5 + clamp(b, -1, 1) + expm1(0.1 * c)
    s <- 0.9 * s + 0.01 * d * clock(4)
    return -0.01 * d * sign(g) / (1 + clock())
  }
}""",
    "Shared": """
memory Shared() {
  state same: like g = 0
  learn(g, weight: like g) -> like g {
    same <- g
    return same
  }
}""",
    "Fixed": """
memory Fixed() {
  state s: like g = 3
  learn(g) -> like g {
    s <- 0 * s + 1
    return s * g
  }
}""",
}
SHAPES = [(3, 4), (5,), (2, 3, 2), (), (1,), (4, 3)]


def rule_of(call: str, file: str = "", text: str = "") -> Rule:
    name = call.partition("(")[0]
    head = f'from "optimizers/{file}" import {name}' if file else text
    body = "input x: [2]\nparam w: [2] = normal(1.0)\nminimize sum((w - x)^2) at outer"
    program = load_program("rule", text=f"{head}\nmodel R() {{\nlevel outer = every 1 step\n{body} with {call}\n}}")
    found: Rule = program.levels[0].optimizer
    return found


def reference(
    rule: Rule, start: torch.Tensor, gradients: list[torch.Tensor], rate: float
) -> tuple[Any, dict[str, Any]]:
    """The weight and the states after one tick for each gradient."""
    program = rule(tuple(start.shape))
    machine, weight = Reference(program, {}), start.numpy().copy()
    state = machine.init_state()
    for gradient in gradients:
        inputs = {"g": gradient.numpy()}
        if any(i.name == "weight" for i in program.inputs):
            inputs["weight"] = weight
        outputs, state = machine.tick(state, inputs)
        weight = weight + rate * outputs["change"]
    return weight, {s.name: state[s.name] for s in program.states}


def run(rule: Rule, native: bool, rate: float, dtype: torch.dtype) -> tuple[MemoryOptimizer, list[Any]]:
    generator = torch.Generator().manual_seed(5)
    starts = [torch.randn(s, dtype=torch.float64, generator=generator) for s in SHAPES]
    ticks = [[torch.randn(s, dtype=torch.float64, generator=generator) for _ in range(7)] for s in SHAPES]
    params = [torch.nn.Parameter(x.to(dtype, copy=True)) for x in starts]
    optimizer = MemoryOptimizer(params, rule, lr=rate, native=native)
    for tick in range(7):
        for param, gradients in zip(params, ticks, strict=True):
            param.grad = gradients[tick].to(dtype)
        optimizer.step()
    wanted = [reference(rule, x, g, rate) for x, g in zip(starts, ticks, strict=True)]
    return optimizer, wanted


RULES = {call: rule_of(call, file) for call, file in LIBRARY.items()} | {
    name: rule_of(f"{name}()", text=text) for name, text in NOVEL.items()
}
FORMS = [
    pytest.param(False, id="foreach"),
    pytest.param(True, id="native", marks=pytest.mark.skipif(compiler() is None, reason="no C compiler")),
]


@pytest.mark.parametrize("native", FORMS)
@pytest.mark.parametrize("call", RULES)
def test_like_the_reference_parameter_by_parameter(call: str, native: bool) -> None:
    optimizer, wanted = run(RULES[call], native, 0.7, torch.float64)
    batches = optimizer._batches[0]
    assert all(isinstance(b, EntryBatch) for b in batches)
    assert all(("#include" in source) == native for source in optimizer.sources())
    for param, (weight, states) in zip(optimizer.param_groups[0]["params"], wanted, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), weight, rtol=1e-11, atol=1e-12)
        for name, value in states.items():
            np.testing.assert_allclose(optimizer.state[param][name].numpy(), value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("native", FORMS)
def test_single_precision_is_as_exact_as_it_can_be(native: bool) -> None:
    optimizer, wanted = run(RULES["AdamW()"], native, 1.0, torch.float32)
    for param, (weight, _) in zip(optimizer.param_groups[0]["params"], wanted, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), weight, rtol=1e-6, atol=1e-6)


def test_all_shapes_are_one_batch() -> None:
    optimizer, _ = run(RULES["AdamW()"], False, 1.0, torch.float64)
    assert [len(b.members) for b in optimizer._batches[0]] == [len(SHAPES)]


@pytest.mark.parametrize("native", FORMS)
def test_long_tensors_are_cut_and_threaded(native: bool) -> None:
    """More entries than a piece, in tensors of several pieces, between others."""
    sizes = [(7,), (PIECE + 1000,), (3, 100), (2 * PIECE + 17,), (11,)]
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in sizes]
    others = copy.deepcopy(params)
    ours = MemoryOptimizer(params, rule_of("AdamW(rate = 0.01)", "adam"), native=native)
    theirs = torch.optim.AdamW(others, lr=0.01)
    for _ in range(4):
        for p, o in zip(params, others, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            o.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for p, o in zip(params, others, strict=True):
        torch.testing.assert_close(p.detach(), o.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("native", FORMS)
def test_resumed_in_the_middle_is_exact(native: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES]
    gradients = [[torch.randn(s, generator=generator) for s in SHAPES] for _ in range(6)]
    rule = RULES["NAdam()"]

    def steps(members: list[torch.nn.Parameter], optimizer: MemoryOptimizer, ticks: range) -> None:
        for tick in ticks:
            for p, g in zip(members, gradients[tick], strict=True):
                p.grad = g.clone()
            optimizer.step()

    whole = copy.deepcopy(params)
    steps(whole, MemoryOptimizer(whole, rule, native=native), range(6))
    first = MemoryOptimizer(params, rule, native=native)
    steps(params, first, range(3))
    stored, middle = first.state_dict(), copy.deepcopy(params)
    steps(params, first, range(3, 4))  # what is stored stays as it was
    second = MemoryOptimizer(middle, rule, native=native)
    second.load_state_dict(stored)
    steps(middle, second, range(3, 6))
    for a, b in zip(whole, middle, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("native", FORMS)
def test_parameters_that_join_later_begin_at_the_first_tick(native: bool) -> None:
    torch.manual_seed(0)
    early, late = torch.nn.Parameter(torch.randn(3)), torch.nn.Parameter(torch.randn(3))
    late.requires_grad_(False)
    ours = MemoryOptimizer([early, late], rule_of("Adam(0.1)", "adam"), native=native)
    alone = torch.nn.Parameter(late.detach().clone())
    theirs = torch.optim.Adam([alone], lr=0.1)
    for tick in range(5):
        early.grad = torch.randn(3)
        if tick >= 2:
            late.requires_grad_(True)
            late.grad = torch.randn(3)
            alone.grad = late.grad.clone()
            theirs.step()
        ours.step()
    torch.testing.assert_close(late.detach(), alone.detach())
    assert int(ours.state[late]["step"]) == 3
    assert int(ours.state[early]["step"]) == 5


@pytest.mark.parametrize("native", FORMS)
def test_tensors_in_any_layout(native: bool) -> None:
    """Transposed weights and gradients, expanded gradients, gradients that are missing."""
    torch.manual_seed(0)
    weight = torch.randn(4, 3, dtype=torch.float64).T
    params = [torch.nn.Parameter(weight), torch.nn.Parameter(torch.randn(5, dtype=torch.float64))]
    others = [torch.nn.Parameter(p.detach().clone().contiguous()) for p in params]
    ours = MemoryOptimizer(params, rule_of("AdamW(0.1)", "adam"), native=native)
    theirs = torch.optim.AdamW(others, lr=0.1)
    for _ in range(3):
        params[0].grad = torch.randn((), dtype=torch.float64).expand(3, 4)
        others[0].grad = params[0].grad.clone()
        others[1].grad = torch.zeros(5, dtype=torch.float64)
        ours.step()
        theirs.step()
    assert not params[0].is_contiguous()
    for p, o in zip(params, others, strict=True):
        torch.testing.assert_close(p.detach(), o.detach())


def test_a_changed_weight_is_noticed_by_autograd() -> None:
    w = torch.nn.Parameter(torch.ones(3))
    loss = (w * w).sum()
    w.grad = torch.ones(3)
    MemoryOptimizer([w], RULES["SGD()"], native=compiler() is not None).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


MIXING = {
    "norm": "return -g / (1 + norm(g))",
    "matrix product": "return -g @ g' @ g",
    "reset": "s <- s + g\n return s",
    "sum over rows": "return -g + 0 * sum(g, axis = 0)",
}


@pytest.mark.parametrize("why", MIXING)
def test_what_mixes_entries_is_not_entrywise(why: str) -> None:
    state = "state s: like g = 0 every 3 tick" if why == "reset" else "state s: like g = 0"
    if why == "reset":
        state = "state s: like g = 0 reset every 3 token"
    text = f"memory Mix() {{\n {state}\n learn(g: [a, b]) -> [a, b] {{\n {MIXING[why]}\n }}\n}}"
    program = rule_of("Mix()", text=text)((3, 4))
    assert entrywise(program, (3, 4)) is None


def test_matrices_and_vectors_of_one_rule() -> None:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s)) for s in [(4, 3), (3,), (5,), (4, 3)]]
    optimizer = MemoryOptimizer(params, rule_of("Muon()", "muon"))
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer.step()
    assert sorted((type(b).__name__, len(b.members)) for b in optimizer._batches[0]) == [
        ("EntryBatch", 2),
        ("StackedBatch", 2),
    ]
    assert any(isinstance(b, StackedBatch) for b in optimizer._batches[0])


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert compiler() is None
    assert compile_native("int update(void) { return 0; }", "update") is None
    optimizer, wanted = run(RULES["AdamW()"], True, 1.0, torch.float64)
    assert "#include" not in optimizer.sources()[0]
    np.testing.assert_allclose(optimizer.param_groups[0]["params"][0].detach().numpy(), wanted[0][0], rtol=1e-11)


@pytest.mark.skipif(compiler() is None, reason="no C compiler")
def test_source_that_does_not_compile() -> None:
    assert compile_native("this is not C", "update") is None
    assert compile_native("int other(void) { return 0; }", "update") is None


def test_large_matrices_run_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """States that take each other's values, a norm that needs the whole matrix, copies that are lanes of one tensor."""
    text = """
memory Turns() {
  state a: like g = 1
  state b: like g = 2
  state n: [] = 0
  learn(g, weight: like g) -> like g {
    old = a
    a <- b
    b <- old + g
    n <- norm(g)
    return (a * b - 0.1 * weight) / (1 + n)
  }
}"""
    rule = rule_of("Turns()", text=text)
    found = []
    for piece in (1, 20, 1 << 30):
        monkeypatch.setattr(optimizer_stacked, "PIECE", piece)
        torch.manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in [(2, 3), (5, 2, 3), (2, 3), (2, 3)]]
        optimizer = MemoryOptimizer(params, rule, lanes={params[1]: 1})
        for _ in range(4):
            for p in params:
                p.grad = torch.randn_like(p)
            optimizer.step()
        states = [optimizer.state[p][n] for p in params for n in ("optimizer.a", "optimizer.b", "optimizer.n")]
        found.append([*(p.detach() for p in params), *states])
        (batch,) = optimizer._batches[0]
        assert isinstance(batch, StackedBatch)
        assert len(batch._parts) == {1: 4, 20: 3, 1 << 30: 1}[piece]
    for other in found[1:]:
        for x, y in zip(found[0], other, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-14, atol=0)
    start = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = [torch.randn(2, 3, dtype=torch.float64) for _ in range(4)]
    weight, states_of = reference(rule, start, gradients, 1.0)
    one = torch.nn.Parameter(start.clone())
    optimizer = MemoryOptimizer([one], rule)
    for g in gradients:
        one.grad = g.clone()
        optimizer.step()
    np.testing.assert_allclose(one.detach().numpy(), weight, rtol=1e-12)
    for name, value in states_of.items():
        np.testing.assert_allclose(optimizer.state[one][name].numpy(), value, rtol=1e-12)
