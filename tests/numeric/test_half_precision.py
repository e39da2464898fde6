"""Modules in half precision, and under autocast, against float64 with the same numbers: gates are never rounded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from nldsl.api import load_program
from nldsl.backends.torch.backend import TorchBackend
from nldsl.ir.program import Program
from nldsl.passes.plan import plan
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module

LIMIT = 6e-3  # relative root mean square
TICKS = 160
HALVES = [torch.bfloat16, torch.float16]
SLOW = """
memory Slow(d: dim) {
  state S: [d, d] = 0
  state P: [d, d] = 0
  param forget: [d, d] = normal(0.3)
  param follow: [d] = normal(0.3)
  param bias = -5
  step(x: [d], q: [d], k: [d], v: [d]) -> [d] {
    keep = exp(-softplus(forget @ x + bias))
    beta = sigmoid(dot(follow, x) + 4)
    P <- beta * P + (1 - beta) * outer(v, k)
    S <- S @ diag(keep) + P
    return S @ q
  }
}
"""


def made(program: Program, gates: bool = True) -> Module:
    planned = plan(program)
    planned = planned if gates else replace(planned, wide=frozenset())
    backend = TorchBackend()
    return Module(program, backend.load(backend.emit(planned), planned), initialize(program, 0))


def inputs_of(program: Program, dtype: torch.dtype, ticks: int = TICKS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {i.name: [int(str(s)) for s in i.type.shape] for i in program.inputs}
    return {n: (0.3 * torch.randn(2, ticks, *s, generator=generator)).to(dtype) for n, s in shapes.items()}


def run(module: Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The output, final states, and gradients of a random projection of them."""
    given = {n: x.clone().requires_grad_() for n, x in inputs.items()}
    y, state = module(**given, state=module.init_state(2))
    found = {"y": y, **{f"state {n}": x for n, x in state.states.items()}}
    generator = torch.Generator().manual_seed(1)
    parts = [(x.double() * torch.randn(x.shape, generator=generator).double()).sum() for x in found.values()]
    wanted = {**given, **dict(module.named_parameters())}
    grads = torch.autograd.grad(torch.stack(parts).sum(), list(wanted.values()))
    found |= {f"gradient of {n}": g for n, g in zip(wanted, grads, strict=True)}
    return {n: x.detach() for n, x in found.items()}


def errors(expected: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, float]:
    """Relative, root mean square, of all that was found."""
    pairs = {n: (expected[n].double(), x.double()) for n, x in found.items()}
    return {n: float((x - y).square().mean().sqrt() / x.square().mean().sqrt()) for n, (x, y) in pairs.items()}


def half_errors(program: Program, half: torch.dtype, gates: bool = True) -> dict[str, float]:
    inputs = inputs_of(program, half)
    exact = made(program).to(half).double()
    return errors(run(exact, {n: x.double() for n, x in inputs.items()}), run(made(program, gates).to(half), inputs))


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_gates_are_in_single_precision(half: torch.dtype) -> None:
    program = load_program("slow.nl", "Slow", text=SLOW, d=16)
    found = half_errors(program, half)
    assert max(found.values()) < LIMIT, found


def test_what_rounding_them_does() -> None:
    """The test above can fail: with gates in bfloat16 it does, by far."""
    program = load_program("slow.nl", "Slow", text=SLOW, d=16)
    assert max(half_errors(program, torch.bfloat16, gates=False).values()) > 3 * LIMIT


def test_the_rates_of_a_state_space_model() -> None:
    program = load_program("stdlib/memories/gated_linear.nl", "Mamba2", dk=16, dv=16)
    found = half_errors(program, torch.bfloat16)
    assert max(found.values()) < LIMIT, found


def test_sums_are_added_up_in_single_precision() -> None:
    """Squares of these numbers add up to more than float16 has: their norm was infinite, and what it divides 0."""
    text = """
    memory Normed(d: dim) {
      state S: [d, d] = 0
      step(x: [d], k: [d]) -> [d] {
        y = x * rsqrt(mean(x * x) + 0.000001)
        S <- 0.9 * S + outer(y, k)
        return S @ k
      }
    }
    """
    program = load_program("normed.nl", "Normed", text=text, d=16)
    inputs = {n: 190 * x if n == "x" else x for n, x in inputs_of(program, torch.float16).items()}
    assert inputs["x"].square().sum(-1).isinf().any()
    exact = made(program).to(torch.float16).double()
    found = errors(run(exact, {n: x.double() for n, x in inputs.items()}), run(made(program).half(), inputs))
    assert max(e for n, e in found.items() if n != "gradient of x") < 2e-3, found  # that one is below float16's least


COUNTED = """
memory Corrected(d: dim) {
  state S: [d] = 0
  step(x: [d]) -> [d] {
    S <- 0.999 * S + 0.001 * x ^ 2
    return x / (sqrt(S / (1 - 0.999 ^ clock())) + 0.01)
  }
}
memory Placed(d: dim) {
  state S: [d] = 0
  step(x: [d]) -> [d] {
    S <- 0.9 * S + x
    return S * cos(0.37 * clock())
  }
}
"""


@pytest.mark.parametrize("entry", ["Corrected", "Placed"])
def test_what_counts_ticks_is_never_rounded(entry: str) -> None:
    """bfloat16 has no 257, and 0.999 is 1 in it: the first correction divided by 0."""
    program = load_program("counted.nl", entry, text=COUNTED, d=16)
    inputs = inputs_of(program, torch.bfloat16, 2 * TICKS)
    exact = made(program).to(torch.bfloat16).double()
    found = errors(run(exact, {n: x.double() for n, x in inputs.items()}), run(made(program).bfloat16(), inputs))
    assert max(found.values()) < LIMIT, found


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_systems_are_solved_in_single_precision(half: torch.dtype) -> None:
    """PyTorch solves none in half precision."""
    text = """
    memory Solved(d: dim) {
      state S: [d, d] = 0
      param ridge: [d, d] = normal(0.1)
      step(x: [d], k: [d]) -> [d] {
        S <- 0.9 * S + outer(k, k)
        return S @ solve(ridge + 2 * identity(d), x) + solve(S + identity(d), x)
      }
    }
    """
    program = load_program("solved.nl", "Solved", text=text, d=8)
    found = half_errors(program, half)
    assert max(found.values()) < LIMIT, found
    inputs = inputs_of(program, half, 5)
    with torch.no_grad():
        assert stepped(made(program).to(half), inputs).dtype == half


def stepped(module: Module, inputs: dict[str, Tensor]) -> Tensor:
    state, rows = module.init_state(2), []
    for tick in range(next(iter(inputs.values())).shape[1]):
        y, state = module.step(**{n: x[:, tick] for n, x in inputs.items()}, state=state)
        rows.append(y)
    return torch.stack(rows, 1)


def test_single_ticks() -> None:
    """States are rounded at each tick, to the nearest: gates are not, and neither is what they do to states."""
    program = load_program("slow.nl", "Slow", text=SLOW, d=16)
    inputs = inputs_of(program, torch.bfloat16)
    exact, module, rounded = made(program).to(torch.bfloat16), made(program), made(program, gates=False)
    with torch.no_grad():
        expected = {"y": stepped(exact.double(), {n: x.double() for n, x in inputs.items()})}
        found, worse = stepped(module.bfloat16(), inputs), stepped(rounded.bfloat16(), inputs)
    assert found.dtype == torch.bfloat16
    assert errors(expected, {"y": found})["y"] < 0.5 * errors(expected, {"y": worse})["y"]


@pytest.mark.parametrize(("path", "entry"), [("memories/low_rank.nl", "Longhorn"), ("memories/delta.nl", "DeltaNet")])
def test_loops_under_autocast_are_in_single_precision(path: str, entry: str) -> None:
    """Only what surrounds loops is lowered, which for the states of these is nothing."""
    program = load_program(f"stdlib/{path}", entry, dk=8, dv=8)
    inputs, module = inputs_of(program, torch.float32, 24), made(program)
    expected = run(module, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(module, inputs)
    inside = {n: e for n, e in errors(expected, found).items() if n.startswith("state")}
    assert max(inside.values()) < 1e-6, inside


def test_gates_under_autocast() -> None:
    """Products come in bfloat16; what is made of them is float32."""
    program = load_program("slow.nl", "Slow", text=SLOW, d=16)
    inputs, module = inputs_of(program, torch.float32), made(program)
    expected = run(module, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(module, inputs)
    differ = errors(expected, {n: x for n, x in found.items() if not n.startswith("gradient")})
    assert all(x.dtype == torch.float32 for n, x in found.items() if n.startswith("state"))
    assert max(differ.values()) < LIMIT, differ


@pytest.mark.parametrize("lowered", [False, True])
def test_they_compile_in_one_graph(lowered: bool) -> None:
    program = load_program("slow.nl", "Slow", text=SLOW, d=4)
    half = torch.float32 if lowered else torch.bfloat16
    module, inputs = made(program).to(half), inputs_of(program, half, 9)
    compiled = torch.compile(lambda **given: module(**given), backend="eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lowered):
        torch.testing.assert_close(compiled(**inputs), module(**inputs))
