"""Guards, held values, anchors, resets and clocks: against loops written by hand, and derivatives under them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nldsl.backends.reference import Reference, gradients
from nldsl.ir.program import Program, Reset
from nldsl.ir.types import Clock
from nldsl.ir.verify import verify
from nldsl.passes.derive import Derive
from nldsl.passes.simplify import Simplify
from tests.numeric.maker import Array, Maker, random_arrays, run

B, T, D = 2, 11, 3


def stages(program: Program) -> list[Program]:
    """The program and what the passes make of it, each well-formed."""
    derived = verify(Derive().apply(program))
    return [program, derived, verify(Simplify().apply(derived))]


def same(found: Array, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def delta_rule(guard: Clock | None = None, anchor: int = 0, reset: Reset | None = None) -> Program:
    """S <- S - 0.3 * grad(l2(S @ k, v), S); the read comes after it."""
    made = Maker()
    k, v = made.input("k", D), made.input("v", 2)
    S = made.state("S", 2, D, reset=reset)
    at = made.anchor("S", anchor) if anchor else S
    (g,) = made.grad(made.l2(made.einsum("ij,j->i", at, k, guard=guard), v, guard=guard), at, guard=guard)
    new = made.op("sub", S, made.op("mul", 0.3, g, guard=guard), guard=guard)
    new = new if guard is None else made.op("when", new, S, clock=guard)
    made.updates["S"] = new
    made.outputs = [("y", made.einsum("ij,j->i", new, k))]
    return made.program()


def by_hand(k: Array, v: Array, guard: Clock | None, anchor: int, reset: int) -> Array:
    S = np.zeros((B, 2, D))
    frozen, ys = S, []
    for t in range(1, T + 1):
        if anchor and (t - 1) % anchor == 0:
            frozen = S
        at = frozen if anchor else S
        if guard is None or guard.fires(t):
            error = np.einsum("bij,bj->bi", at, k[:, t - 1]) - v[:, t - 1]
            S = S - 0.3 * np.einsum("bi,bj->bij", error, k[:, t - 1])
        ys.append(np.einsum("bij,bj->bi", S, k[:, t - 1]))
        if reset and t % reset == 0:
            S = np.zeros_like(S)
            frozen = S
    return np.stack(ys, 1)


@pytest.mark.parametrize("reset", [0, 4])
@pytest.mark.parametrize("anchor", [0, 1, 3])
@pytest.mark.parametrize("guard", [None, Clock(1), Clock(3), Clock(3, start=True)])
def test_a_rule_on_a_clock(guard: Clock | None, anchor: int, reset: int) -> None:
    program = delta_rule(guard, anchor, Reset("clock", Clock(reset)) if reset else None)
    data = random_arrays(0, k=(B, T, D), v=(B, T, 2))
    expected = by_hand(data["k"], data["v"], guard, anchor, reset)
    for stage in stages(program):
        same(run(stage, data)["y"], expected)


def test_a_period_of_one_is_the_online_rule() -> None:
    data = random_arrays(0, k=(B, T, D), v=(B, T, 2))
    same(run(delta_rule(anchor=1), data)["y"], run(delta_rule(), data)["y"])


def test_simplified_delta_rule_is_the_formula() -> None:
    ops = [i.op for i in stages(delta_rule())[-1].body if i.op not in ("input", "state", "const")]
    # S @ k, minus v, outer k, times 0.3, S minus that, read
    assert ops == ["einsum", "sub", "einsum", "mul", "sub", "einsum"]


def test_a_sum_over_ticks_reaches_the_slow_rule() -> None:
    """A fast stream summed for a rule that runs every 4 ticks, and starts anew after it."""
    guard = Clock(4)
    made = Maker()
    x = made.input("x", D)
    total, w = made.state("total", D), made.state("w", D)
    now = made.op("add", total, x)
    (g,) = made.grad(made.l2(w, now, guard=guard), w, guard=guard)
    made.updates["w"] = made.op("when", made.op("sub", w, g, guard=guard), w, clock=guard)
    made.updates["total"] = made.op("when", made.op("broadcast", 0.0, shape=(D,)), now, clock=guard)
    made.outputs = [("w", made.updates["w"])]
    data = random_arrays(0, x=(B, T, D))
    expected = [
        data["x"][:, 4 * (t // 4) - 4 : 4 * (t // 4)].sum(1) if t >= 4 else np.zeros((B, D)) for t in range(1, 12)
    ]
    for stage in stages(made.program()):
        same(run(stage, data)["w"], np.stack(expected, 1))


@pytest.mark.parametrize("outer", [None, Clock(2), Clock(3), Clock(6), Clock(2, start=True), Clock(3, start=True)])
@pytest.mark.parametrize("inner", [Clock(3), Clock(2, start=True), Clock(1)])
def test_derivative_through_when(inner: Clock, outer: Clock | None) -> None:
    """The loss of every tick, or of some, goes through a value that changes on another clock."""
    made = Maker()
    x, y = made.input("x", D), made.input("y", D)
    S = made.state("S", D)
    fast = made.op("sin", x)
    slow = made.op("exp", made.op("mul", fast, y, guard=inner), guard=inner)
    held = made.op("when", slow, made.op("mul", S, fast), clock=inner)
    bent = made.op("mul", held, made.op("add", held, x, guard=outer), guard=outer)
    loss = made.op("sum", bent, guard=outer, dims=(0,))
    for n, g in enumerate(made.grad(loss, x, fast, S, y, held, guard=outer)):
        zero = made.op("broadcast", 0.0, shape=(D,))
        made.outputs.append((f"g{n}", g if outer is None else made.op("when", g, zero, clock=outer)))
    made.updates["S"] = made.op("add", S, x)
    program = made.program()
    data = random_arrays(0, x=(B, T, D), y=(B, T, D))
    first, *others = stages(program)
    expected = run(first, data)
    for stage in others:
        for name, value in run(stage, data).items():
            same(value, expected[name])


def test_derivative_with_respect_to_a_guarded_value() -> None:
    guard = Clock(3)
    made = Maker()
    x, S = made.input("x", D), made.state("S", D)
    slow = made.op("sin", x, guard=guard)
    held = made.op("when", slow, S, clock=guard)
    loss = made.op("sum", made.op("mul", held, held), dims=(0,))
    made.outputs = [("g", made.op("when", made.grad(loss, slow, guard=guard)[0], x, clock=guard))]
    made.updates["S"] = x
    data = random_arrays(0, x=(B, T, D))
    first, *others = stages(made.program())
    for stage in others:
        same(run(stage, data)["g"], run(first, data)["g"])


def test_a_held_value_is_not_the_value_it_was_chosen_from() -> None:
    """The loss depends on x, and the value asked for happens to be x at some ticks: the loss does not depend on it."""
    made = Maker()
    x, y = made.input("x"), made.input("y")
    held = made.op("when", x, y, clock=Clock(2))
    made.outputs = [("g", made.grad(made.op("sin", x), held, x)[0])]
    data = random_arrays(0, x=(B, T), y=(B, T))
    for stage in stages(made.program()):
        same(run(stage, data)["g"], np.zeros((B, T)))


def test_what_is_fixed_is_a_constant_for_derivatives_and_nothing_else() -> None:
    made = Maker()
    x = made.input("x")
    inner = made.grad(made.op("mul", x, made.op("fixed", made.op("sin", x))), x)[0]
    made.outputs = [("g", inner)]
    first, derived, simple = stages(made.program())
    data = random_arrays(0, x=(B, T))
    for stage in (first, derived, simple):
        same(run(stage, data)["g"], np.sin(data["x"]))
    found = gradients(simple, {}, data, {"g": np.ones((B, T))})
    same(found.inputs["x"], np.cos(data["x"]))


def test_backward_of_a_guarded_rule_is_guarded() -> None:
    guard = Clock(4)
    derived = Derive().apply(delta_rule(guard))
    first = next(n for n, i in enumerate(derived.body) if i.op == "when")
    made = [i for i in derived.body[:first] if i.op in ("einsum", "mul", "sub", "sum")]
    assert made
    assert all(i.guard == guard for i in made)


def test_clock_and_learned_start_and_reset_order() -> None:
    made = Maker()
    x = made.input("x")
    w = made.param("w")
    made.state("a", start="w", reset=Reset("clock", Clock(3)))
    a = made.body.leaf("state", made.states[0].type, "a", state="a")
    b = made.state("b", start="a", reset=Reset("clock", Clock(2)))
    n, phase, slow = (made.op("clock", scale=s, period=p) for s, p in ((1, 0), (1, 3), (2, 4)))
    made.updates["a"] = made.op("add", a, x)
    made.updates["b"] = made.op("mul", b, w)
    made.outputs = [("a", a), ("b", b), *((f"c{i}", made.op("to_real", c)) for i, c in enumerate((n, phase, slow)))]
    data = random_arrays(0, x=(B, T))
    found = run(made.program(), data, {"w": np.array(1.5)})
    now_a, now_b = np.full(B, 1.5), np.full(B, 1.5)
    for t in range(1, T + 1):
        same(found["a"][:, t - 1], now_a)
        same(found["b"][:, t - 1], now_b)
        now_a, now_b = now_a + data["x"][:, t - 1], now_b * 1.5
        if t % 3 == 0:
            now_a = np.full(B, 1.5)
        if t % 2 == 0:
            now_b = now_a
    same(found["c0"][0], np.arange(1, T + 1))
    same(found["c1"][0], (np.arange(T)) % 3 + 1)
    same(found["c2"][0], [(t // 2 - 1) % 4 + 1 for t in range(1, T + 1)])


def test_sequences_in_pieces() -> None:
    """Ticks one by one, or the rest of a sequence from a kept state, give the same."""
    program = delta_rule(Clock(3), anchor=4, reset=Reset("clock", Clock(5)))
    data = random_arrays(0, k=(B, T, D), v=(B, T, 2))
    reference = Reference(program, {})
    whole, _, last = reference.run(data)
    for cut in range(1, T):
        _, _, state = reference.run({n: x[:, :cut] for n, x in data.items()})
        rest, _, end = reference.run({n: x[:, cut:] for n, x in data.items()}, state)
        same(rest["y"], whole["y"][:, cut:])
        same(end["S"], last["S"])
    state = reference.init_state(B)
    for t in range(T):
        outputs, state = reference.tick(state, {n: x[:, t] for n, x in data.items()})
        same(outputs["y"], whole["y"][:, t])


def test_never_reset() -> None:
    made = Maker()
    x = made.input("x")
    kept, lost = made.state("kept", reset=Reset("never")), made.state("lost")
    made.updates = {"kept": made.op("add", kept, x), "lost": made.op("add", lost, x)}
    reference = Reference(made.program(), {})
    _, _, state = reference.run({"x": np.ones((1, 4))})
    state = reference.next_sequence(state)
    assert state.tick == 0
    assert (float(state["kept"][0]), float(state["lost"][0])) == (4.0, 0.0)


def test_shared_state() -> None:
    made = Maker()
    x = made.input("x", D)
    S = made.state("S", D, shared=True)
    made.updates["S"] = made.op("add", S, made.op("batch_mean", made.op("sub", x, S)))
    found = run(made.program(), random_arrays(0, x=(B, T, D)))
    same(found["state S"], random_arrays(0, x=(B, T, D))["x"][:, -1].mean(0))


def test_outer_gradients_are_torchs() -> None:
    """A learned start, a write that is itself a gradient, decay, a reset: everything is differentiated."""
    made = Maker()
    k, v = made.input("k", D), made.input("v", 2)
    made.param("w", 2, D)
    rate = made.param("rate")
    S = made.state("S", 2, D, start="w", reset=Reset("clock", Clock(4)))
    decayed = made.op("mul", made.op("sigmoid", rate), S)
    (g,) = made.grad(made.l2(made.op("tanh", made.einsum("ij,j->i", decayed, k)), v), decayed)
    new = made.op("sub", decayed, made.op("mul", rate, g))
    made.updates["S"] = new
    made.outputs = [("y", made.einsum("ij,j->i", new, k))]
    made.losses = [("step", made.l2(made.outputs[0][1], v))]
    program = stages(made.program())[-1]
    data = random_arrays(0, k=(B, T, D), v=(B, T, 2))
    params = {"w": random_arrays(1, w=(2, D))["w"], "rate": np.array(0.3)}
    weights = random_arrays(2, y=(B, T, 2), step=(B, T), S=(B, 2, D))
    found = gradients(program, params, data, {"y": weights["y"]}, {"step": weights["step"]}, {"S": weights["S"]})

    tk, tv, tw, tr = (torch.tensor(x, requires_grad=True) for x in (data["k"], data["v"], params["w"], params["rate"]))
    now, total = tw.expand(B, 2, D), torch.zeros((), dtype=torch.float64)
    for t in range(T):
        kt, vt = tk[:, t], tv[:, t]
        now = torch.sigmoid(tr) * now
        p = torch.tanh(torch.einsum("bij,bj->bi", now, kt))
        now = now - tr * torch.einsum("bi,bj->bij", (p - vt) * (1 - p * p), kt)
        y = torch.einsum("bij,bj->bi", now, kt)
        total = total + (y * torch.tensor(weights["y"][:, t])).sum()
        total = total + (0.5 * ((y - vt) ** 2).sum(1) * torch.tensor(weights["step"][:, t])).sum()
        if (t + 1) % 4 == 0:
            now = tw.expand(B, 2, D)
    total = total + (now * torch.tensor(weights["S"])).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert found.value == pytest.approx(total.item())
    for name, tensor in (("w", tw), ("rate", tr)):
        assert tensor.grad is not None
        same(found.params[name], tensor.grad.numpy())
    for name, tensor in (("k", tk), ("v", tv)):
        assert tensor.grad is not None
        same(found.inputs[name], tensor.grad.numpy())


def test_gradient_of_the_initial_state() -> None:
    program = stages(delta_rule(anchor=3))[-1]
    data = random_arrays(0, k=(B, T, D), v=(B, T, 2))
    weights = {"y": random_arrays(1, y=(B, T, 2))["y"]}
    found = gradients(program, {}, data, weights)
    reference = Reference(program, {})
    start = reference.init_state(B)
    direction, step = random_arrays(2, S=(B, 2, D))["S"], 1e-6

    def total(S: Array) -> float:
        from dataclasses import replace

        value = replace(start.values["S"], array=S)
        outputs, _, _ = reference.run(data, replace(start, values={"S": value}, anchors={("S", 3): value}))
        return float((outputs["y"] * weights["y"]).sum())

    slope = (total(step * direction) - total(-step * direction)) / (2 * step)
    np.testing.assert_allclose((found.states["S"] * direction).sum(), slope, rtol=1e-7)
