"""Sequences of different lengths in one call equal a loop over the sequences: outputs, states, losses, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.api import compile as compile_program
from nldsl.runtime.inputs import InputError
from nldsl.runtime.module import Module

DELTA = """
memory Delta(d: dim = 3) {
  state S: [d, d] = learned normal(0.3)
  param wk: [d, d] = normal(0.5)
  step(x: [d]) -> [d] {
    k = unit(wk @ x)
    S <- 0.9 * S - 0.5 * grad(0.5 * sum((S @ k - x)^2), S)
    return S @ x
  }
}
"""
CLOCKS = """
memory Deep(d: dim = 3, chunk: int = 4) {
  state W: [d, d] = learned normal(0.3)
  state slow: [d] = 0
  step(x: [d]) -> [d] {
    W <- 0.9 * W - 0.3 * grad(0.5 * sum((tanh(W @ x) - x)^2), W) at start of chunk
    every 3 ticks { slow <- slow + sum of x }
    return W @ x + slow
  }
}
"""
LOOP = """
memory Rnn(d: dim = 3) {
  state h: [d] = 0
  param w: [d, d] = normal(0.5)
  step(x: [d]) -> [d] {
    h <- tanh(w @ h + x)
    return h
  }
}
"""
WINDOW = """
memory Attention(d: dim = 3) {
  step(x: [d]) -> [d] {
    weights = softmax(where(window_mask(9), window(x, 9) @ x, -1e30))
    return weights @ window(x, 9)
  }
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
SHARED = """
memory Shared(d: dim = 3) {
  shared state m: [d] = 0
  step(x: [d]) -> [d] {
    m <- m + x
    return m
  }
}
"""
SINGLE = {"affine": DELTA, "clocks": CLOCKS, "sequential": LOOP, "window": WINDOW}
LENGTHS = (5, 11, 0, 1, 11, 8)
WITHOUT_CHUNKS: dict[str, Any] = {"disabled": frozenset(("chunk",))}


def module(source: str, **options: Any) -> Module:
    made = compile_program("test.nl", text=source, **options)
    assert isinstance(made, Module)
    return made.double()


def rows(lengths: tuple[int, ...], d: int = 3) -> list[Tensor]:
    gen = torch.Generator().manual_seed(1)
    return [torch.randn(n, d, generator=gen, dtype=torch.float64, requires_grad=True) for n in lengths]


def padded(sequences: list[Tensor], fill: float) -> Tensor:
    longest = max(len(s) for s in sequences)
    return torch.stack([torch.cat([s, s.new_full((longest - len(s), *s.shape[1:]), fill)]) for s in sequences])


def one_by_one(m: Module, sequences: list[Tensor]) -> tuple[list[Tensor], list[Any]]:
    outputs, states = [], []
    for s in sequences:
        if len(s):
            y, state = m(s[None], state=m.init_state(1))
            outputs.append(y[0])
        else:
            state = m.init_state(1)
            outputs.append(s)
        states.append(state)
    return outputs, states


def gradients(m: Module, sequences: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
    loss = torch.stack([(y * torch.cos(torch.arange(y.numel()).reshape(y.shape))).sum() for y in outputs]).sum()
    wanted = [*sequences, *m.parameters()]
    return list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))


def assert_same_states(found: tuple[Any, ...], wanted: list[Any]) -> None:
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        assert got.tick == want.tick
        for name, tensor in want.states.items():
            torch.testing.assert_close(got.states[name], tensor, rtol=0, atol=1e-10)


def with_lengths(m: Module, sequences: list[Tensor], **more: Any) -> Any:
    return m(padded(sequences, 1e3), lengths=[len(s) for s in sequences], **more)


def with_holes(m: Module, sequences: list[Tensor], **more: Any) -> Any:
    """Every sequence with padding on both sides and in between."""
    longest = max(len(s) for s in sequences)
    mask = torch.zeros(len(sequences), 2 * longest + 3, dtype=torch.bool)
    gen = torch.Generator().manual_seed(2)
    x = torch.full((*mask.shape, 3), 1e3, dtype=torch.float64)
    for row, s in enumerate(sequences):
        places = torch.randperm(mask.shape[1], generator=gen)[: len(s)].sort().values
        mask[row, places] = True
        x = x.index_put((torch.tensor(row), places), s)
    found = m(x, mask=mask, **more)
    y, states = found if more else (found, None)
    assert (y[~mask] == 0).all()
    whole = torch.stack([torch.cat([y[r][mask[r]], y.new_zeros(longest - len(s), 3)]) for r, s in enumerate(sequences)])
    return (whole, states) if more else whole


def packed(m: Module, sequences: list[Tensor], **more: Any) -> Any:
    cuts = torch.tensor([0, *torch.tensor([len(s) for s in sequences]).cumsum(0).tolist()])
    found = m(torch.cat(sequences)[None], cu_seqlens=cuts, **more)
    y, states = found if more else (found, None)
    whole = padded(list(y[0].split([len(s) for s in sequences])), 0.0)
    return (whole, states) if more else whole


FORMS: dict[str, Callable[..., Any]] = {"lengths": with_lengths, "mask": with_holes, "packed": packed}


CASES: list[tuple[str, dict[str, Any]]] = [(source, {}) for source in SINGLE] + [
    (source, WITHOUT_CHUNKS) for source in ("affine", "clocks")
]
IDS = [f"{source}-{'ticks' if options else 'chunks'}" for source, options in CASES]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("source", "options"), CASES, ids=IDS)
def test_like_one_by_one(source: str, options: dict[str, Any], form: str) -> None:
    m, sequences = module(SINGLE[source], **options), rows(LENGTHS)
    outputs, states = one_by_one(m, sequences)
    wanted = gradients(m, sequences, outputs)
    y, after = FORMS[form](m, sequences, state=m.init_state(len(sequences)))
    for whole in (FORMS[form](m, sequences), y):
        torch.testing.assert_close(whole, padded(outputs, 0.0), rtol=0, atol=1e-10)
        found = gradients(m, sequences, [whole[n, : len(s)] for n, s in enumerate(sequences)])
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
    assert_same_states(after, states)


def test_sequences_go_on_from_their_own_states() -> None:
    m, sequences = module(DELTA), rows((4, 7, 2))
    _, after = with_lengths(m, sequences, state=m.init_state(3))
    more = rows((3, 3, 3))
    y, end = with_lengths(m, more, state=after)
    for n, (s, t) in enumerate(zip(sequences, more, strict=True)):
        whole, state = m(torch.cat([s, t])[None], state=m.init_state(1))
        torch.testing.assert_close(y[n], whole[0, len(s) :], rtol=0, atol=1e-10)
        torch.testing.assert_close(end[n].states["S"], state.states["S"], rtol=0, atol=1e-10)


def test_clocks_need_one_tick() -> None:
    m, sequences = module(CLOCKS), rows((4, 7))
    _, after = with_lengths(m, sequences, state=m.init_state(2))
    with pytest.raises(InputError, match="counts its ticks"):
        m.stack_states(after)


@pytest.mark.parametrize("options", [{}, WITHOUT_CHUNKS], ids=["chunks", "ticks"])
def test_loss_is_the_mean_over_ticks_that_count(options: dict[str, Any]) -> None:
    m, lengths = module(LM, **options), [5, 9, 1, 2]
    tokens = [torch.randint(0, 7, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]
    parts = [(m.loss(t[None])[0], len(t) - 1) for t in tokens if len(t) > 1]
    wanted = torch.stack([part * n for part, n in parts]).sum() / sum(n for _, n in parts)
    grads = torch.autograd.grad(wanted, list(m.parameters()))
    x = torch.stack([torch.cat([t, t.new_full((9 - len(t),), 6)]) for t in tokens])
    cuts = torch.tensor([0, 5, 14, 15, 17])
    for found, _ in (m.loss(x, lengths=lengths), m.loss(torch.cat(tokens)[None], cu_seqlens=cuts)):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        for got, want in zip(torch.autograd.grad(found, list(m.parameters())), grads, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    targets = torch.cat([x[:, 1:], x[:, :1]], 1)
    shifted, _ = m.loss(x, targets=targets, mask=torch.arange(9) < torch.tensor(lengths)[:, None] - 1)
    torch.testing.assert_close(shifted, wanted, rtol=0, atol=1e-12)


def test_a_shared_state_is_written_by_the_rows_that_are_left() -> None:
    m = module(SHARED)
    x = torch.arange(36, dtype=torch.float64).reshape(3, 4, 3)
    y, after = m(x, lengths=[1, 4, 2], state=m.init_state(3))
    first, state = m(x[:, :1], state=m.init_state(3))
    second, state = m(x[1:, 1:2], state=state)
    rest, state = m(x[1:2, 2:], state=state)
    assert (y[:, :1] == first).all()
    assert (y[1:, 1:2] == second).all()
    assert (y[1, 2:] == rest[0]).all()
    assert (y[0, 1:] == 0).all()
    assert (after[1].states["m"] == state.states["m"]).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": [1, 2]}, "3 numbers from 0 to 4"),
        ({"lengths": [1, 2, 5]}, "3 numbers from 0 to 4"),
        ({"mask": torch.ones(3, 3)}, r"\[3, 4\]"),
        ({"cu_seqlens": [0, 4]}, "batch is 1"),
        ({"lengths": [1, 2, 3], "mask": torch.ones(3, 4)}, "one of"),
    ],
)
def test_what_does_not_fit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        module(LOOP)(torch.ones(3, 4, 3, dtype=torch.float64), **given)


def test_packed_from_zero_to_the_end() -> None:
    for cuts in ([0, 3], [1, 4], [0, 3, 2, 4], [0]):
        with pytest.raises(InputError, match="from 0 to 4"):
            module(LOOP)(torch.ones(1, 4, 3, dtype=torch.float64), cu_seqlens=cuts)
