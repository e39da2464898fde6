"""A compiled module is an ordinary nn.Module, and says what is wrong with its arguments."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nldsl.api import compile as compile_program
from nldsl.runtime.inputs import InputError
from nldsl.runtime.module import Module
from nldsl.runtime.state import State

DELTA = """
memory Delta(d: dim) {
  state S: [d, d] = learned normal(0.3)
  param wk: [d, d] = normal(0.5)
  step(x: [d], rate: []) -> [d] {
    k = unit(wk @ x)
    S <- S - rate * grad(0.5 * sum((S @ k - x)^2), S)
    return S @ x
  }
}
block Two(x: [d], d: dim = 4, layers: dim = 2) {
  repeat layers {
    memory m: Delta(d)
    x = x + m.step(x, 0.5)
  }
  return x
}
"""
LM = """
model Lm(vocab: int = 7, d: dim = 4) {
  level outer_level = every 1 step
  input tokens: int[]
  param table: [vocab, d] = normal(1.0)
  state h: [d] = 0
  h <- tanh(0.9 * h + table[tokens])
  y = table @ h
  minimize cross_entropy(y, next(tokens)) at outer_level
  return y
}
"""
NEVER = """
memory Count(d: dim = 2) {
  state total: [d] = 0 reset never
  shared state all: [d] = 0 reset never
  state here: [d] = 0
  step(x: [d]) -> [d] {
    total <- total + x
    all <- all + x
    here <- here + x
    return total + 100 * here + 10000 * all
  }
}
"""


def two() -> Module:
    return compile_program("two", text=DELTA)


def lm() -> Module:
    return compile_program("lm", text=LM)


def test_parameters_have_their_names_of_the_program() -> None:
    module = two()
    assert set(module.state_dict()) == {p.name for p in module.program.params}
    assert dict(module.named_parameters()).keys() == module.state_dict().keys()
    assert all("." in name for name in module.state_dict())
    again = compile_program("two", text=DELTA, seed=5)
    again.load_state_dict(module.state_dict())
    x = torch.randn(2, 5, 4)
    assert torch.equal(module(x), again(x))


def test_the_seed_chooses_the_parameters() -> None:
    one, same, other = (compile_program("two", text=DELTA, seed=n) for n in (1, 1, 2))
    for a, b, c in zip(one.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_copies_are_independent() -> None:
    module = two()
    other = copy.deepcopy(module)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    assert not torch.equal(next(module.parameters()), next(other.parameters()))
    assert other(torch.randn(1, 3, 4)).shape == (1, 3, 4)
    assert other.program is module.program


def test_moved_to_another_dtype() -> None:
    module = two().double()
    assert module(torch.randn(2, 3, 4)).dtype == torch.float64
    assert all(x.dtype == torch.float64 for x in module.init_state(2)["states"].values())
    assert module.init_state(2).to(torch.float32)["states"]["layers.0.m.S"].dtype == torch.float32


def test_one_output_is_a_tensor_and_several_are_a_dictionary() -> None:
    module = compile_program("p", text="block P(x: [2]) { return {x, 2 * x} }")
    y = module(torch.ones(1, 3, 2))
    assert isinstance(y, dict)
    assert [v.sum().item() for v in y.values()] == [6.0, 12.0]


def test_a_sequence_goes_on_where_it_was_left() -> None:
    module, x = two(), torch.randn(3, 9, 4)
    whole, end = module(x, state=module.init_state(3))
    first, state = module(x[:, :5], state=module.init_state(3))
    stored = State.from_tensors({name: t.clone() for name, t in state.tensors().items()})
    second, last = module(x[:, 5:], state=dict(stored))  # a plain dictionary will do
    torch.testing.assert_close(whole, torch.cat([first, second], 1))
    assert last.tick == end.tick == 9
    torch.testing.assert_close(dict(last.states), dict(end.states))


def test_a_state_is_plain() -> None:
    state = two().init_state(2)
    assert set(state) == {"tick", "states", "pending"}
    assert state.detach().clone().tick == 0
    with pytest.raises(ValueError, match="no entry 'states'"):
        State.of({"tick": 3})


def test_the_loss_looks_one_token_ahead() -> None:
    module = lm().double()
    tokens = torch.randint(0, 7, (3, 9))
    loss, info = module.loss(tokens)
    logits = module(tokens[:, :-1])
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(info["losses"]["outer_level"], expected)
    assert info["state"].tick == 8
    same, _ = module.loss(tokens[:, :-1], targets=tokens[:, 1:])
    torch.testing.assert_close(loss, same)
    head, info = module.loss(tokens[:, :5])
    tail, _ = module.loss(tokens[:, 4:], state=info["state"])
    torch.testing.assert_close(loss, (4 * head + 4 * tail) / 8)


def test_without_the_next_token_there_are_outputs() -> None:
    module = lm()
    assert module(torch.randint(0, 7, (2, 5))).shape == (2, 5, 7)


def test_states_that_are_never_reset() -> None:
    module = compile_program("count", text=NEVER)
    x = torch.ones(2, 3, 2)
    x[1] = 3.0
    first = module(x)
    assert first[0, -1, 0] == 3 + 300 + 60000
    second = module(x)
    assert second[1, -1, 0] == 18 + 900 + 120000
    assert set(module.carried_state()) == {"total", "all"}
    assert module.carried_state()["all"].shape == (2,)
    assert not module.state_dict()
    with pytest.raises(InputError, match="never reset"):
        module(torch.ones(3, 3, 2))
    module.set_carried_state({})
    torch.testing.assert_close(module(x), first)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(2, 3, 5)), r"`x` is \[batch, time, 4\], got \[2, 3, 5\] \(declared at two:11:"),
        (lambda m: m(torch.zeros(2, 4)), r"`x` is \[batch, time, 4\], got \[2, 4\]"),
        (lambda m: m(torch.zeros(2, 0, 4)), "`x` is empty: its time is 0"),
        (lambda m: m(), "`x` is missing"),
        (lambda m: m(torch.zeros(2, 3, 4), y=torch.zeros(1)), "no input `y`; it has `x`"),
        (lambda m: m(torch.zeros(2, 3, 4), x=torch.zeros(2, 3, 4)), "given twice"),
        (lambda m: m(torch.zeros(2, 3, 4), torch.zeros(1)), "2 inputs given"),
        (lambda m: m([[1.0]]), "not a tensor but list"),
        (lambda m: m.loss(torch.zeros(2, 3, 4)), "nothing to minimize"),
        (lambda m: m(torch.zeros(2, 3, 4), state=m.init_state(3)), "batch of 3, the inputs are a batch of 2"),
        (lambda m: m.step(torch.zeros(2, 4), m.init_state(1)), "batch of 1"),
        (lambda m: m(torch.zeros(2, 3, 4), state=State(0, {})), "has no `layers.0.m.S`"),
        (lambda m: m.set_carried_state({"S": torch.zeros(1)}), "no state `S` is carried"),
    ],
)
def test_what_is_wrong_with_the_arguments(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(two())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.full((1, 2), 7)), "value 7; it picks one of 7"),
        (lambda m: m(torch.full((1, 2), -1)), "value -1"),
        (lambda m: m(torch.zeros(1, 2)), "takes integers, got torch.float32"),
        (lambda m: m.loss(torch.zeros(1, 1, dtype=torch.long)), "at least two values"),
        (lambda m: m.loss(), "`tokens` is missing"),
        (lambda m: m.loss(torch.zeros(1, 3, dtype=torch.long), targets=torch.full((1, 3), 9)), "value 9"),
        (lambda m: m.loss(torch.zeros(1, 3).long(), targets=torch.zeros(1, 2).long()), "has time 3, but `next_tokens`"),
    ],
)
def test_what_is_wrong_with_tokens(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(lm())  # type: ignore[operator]


def test_not_finite_is_not_hidden() -> None:
    module = two()
    x = torch.randn(1, 2, 4)
    x[0, 1, 0] = float("nan")
    assert module(x).isnan().any()
    module.check_finite = True
    with pytest.raises(FloatingPointError, match="output `y` of `Two`"):
        module(x)


def test_members_with_the_names_of_methods() -> None:
    text = "block P(x: [2]) { param step: [2] = ones; param loss: [2] = ones; return step * x + loss }"
    module = compile_program("p", text=text)
    assert set(module.state_dict()) == {"step", "loss"}
    y, _ = module.step(torch.ones(1, 2), module.init_state(1))
    assert y.tolist() == [[2.0, 2.0]]


def test_checkpoint_by_safetensors(tmp_path: Path) -> None:
    module = two()
    save_file(module.state_dict(), tmp_path / "m.safetensors")
    other = compile_program("two", text=DELTA, seed=9)
    other.load_state_dict(load_file(tmp_path / "m.safetensors"))
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_autocast_keeps_states_in_single_precision() -> None:
    module, x = two(), torch.randn(2, 6, 4)
    exact = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = module(x, state=module.init_state(2))
        z, stepped = module.step(x[:, 0], module.init_state(2))
    assert all(s.dtype == torch.float32 for s in (*state.states.values(), *stepped.states.values()))
    torch.testing.assert_close(y.float(), exact, rtol=0.1, atol=0.1)
    torch.testing.assert_close(z.float(), exact[:, 0], rtol=0.1, atol=0.1)


def test_functional_call_and_vmap_over_parameters() -> None:
    module, x = two(), torch.randn(2, 3, 4)
    params = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in module.named_parameters()}
    run = torch.func.vmap(lambda p: torch.func.functional_call(module, p, (x,)))
    torch.testing.assert_close(run(params)[0], module(x))


@pytest.mark.slow
def test_torch_compile() -> None:
    module, x = two(), torch.randn(2, 5, 4)
    compiled = torch.compile(module, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))
    a, b = compiled(x).sum(), module(x).sum()
    ga, gb = torch.autograd.grad(a, list(module.parameters())), torch.autograd.grad(b, list(module.parameters()))
    for p, q in zip(ga, gb, strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.slow
def test_torch_export() -> None:
    module, x = two().eval(), torch.randn(2, 5, 4)
    exported = torch.export.export(module, (x,))
    torch.testing.assert_close(exported.module()(x), module(x))
    stored = io.BytesIO()
    torch.export.save(exported, stored)
    assert stored.getvalue()


HALF = """
memory Linear(d: dim = 8) {
  state S: [d, d] = 0
  step(k: [d], v: [d]) -> [d] {
    S <- S - 0.1 * grad(0.5 * sum((S @ k - v)^2), S)
    return S @ k
  }
}
memory Nonlinear(d: dim = 8) {
  state S: [d, d] = 0
  step(k: [d], v: [d]) -> [d] {
    S <- 0.99 * S + 0.1 * outer(tanh(v - S @ k), k)
    return S @ k
  }
}
"""


@pytest.mark.parametrize("entry", ["Linear", "Nonlinear"])
def test_half_precision_loses_no_more_than_its_inputs(entry: str) -> None:
    """Sums over many ticks are in float32: the error is that of rounding what goes in and what comes out."""
    module = compile_program("half.nl", entry, text=HALF)
    gen = torch.Generator().manual_seed(0)
    k, v = (torch.randn(2, 300, 8, generator=gen).bfloat16() for _ in "kv")
    want = module(k.float(), v.float())
    half = compile_program("half.nl", entry, text=HALF).to(torch.bfloat16)
    k.requires_grad_()
    got = half(k, v)
    assert got.dtype == torch.bfloat16
    assert ((got.float() - want).norm() / want.norm()).item() < 4e-3
    got.float().sum().backward()
    assert k.grad is not None and k.grad.dtype == torch.bfloat16 and bool(k.grad.isfinite().all())


def test_a_module_is_copied_but_not_pickled() -> None:
    module = compile_program("half.nl", "Linear", text=HALF)
    assert copy.copy(module).program is module.program
    with pytest.raises(TypeError, match="keep the `state_dict\\(\\)` of `Linear` and compile the program again"):
        torch.save(module, io.BytesIO())
