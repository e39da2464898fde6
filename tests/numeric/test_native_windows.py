"""Large windows in native ticks: views of buffers that grow, whatever callers do with their states."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import load_program
from nldsl.backends.mlir import sliding
from nldsl.runtime.build import build_module
from nldsl.runtime.module import Module
from nldsl.runtime.state import State

STDLIB = Path(__file__).parents[2] / "stdlib"
KEPT = ["window_k", "window_v"]
NOVEL = """
memory Slow(d: dim = 6) {
  state w: [d, d] = 0
  state s: [d] = 0.1
  step(x: [d], rate: []) -> [d] every token {
    n = sqrt(sum(window(tanh(s + x), 40) ^ 2))
    w <- 0.9 * w + rate * outer(s, x)
    s <- tanh(w @ x + s)
    return s + w @ x / (1 + n)
  }
}
"""  # the rows of a window depend on a state


@pytest.fixture(autouse=True)
def _every_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliding, "LARGE", 1)


def pair(reach: int = 40) -> tuple[Module, Module]:
    """``build_module`` keeps nothing of the functions of small windows in a cache."""
    program = load_program(STDLIB / "memories/attention.nl", "SoftmaxAttention", dk=4, dv=3, reach=reach)
    native, written = (build_module(program, b).double() for b in ("mlir", "torch"))
    assert [n for n in native.init_state(2).states if n in KEPT] == KEPT
    return native, written


def inputs(module: Module, count: int, batch: int = 2) -> Iterator[list[Tensor]]:
    gen = torch.Generator().manual_seed(1)
    for _ in range(count):
        shapes = [(batch, *(int(str(n)) for n in d.type.shape)) for d in module.streams.now]
        yield [0.5 * torch.randn(s, generator=gen, dtype=torch.float64) for s in shapes]


def step(module: Module, given: list[Tensor], state: Any) -> tuple[Tensor, State]:
    with torch.no_grad():
        y, after = module.step(*given, state)
    return y, after


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-12)


@pytest.mark.parametrize("batch", [1, 3])
def test_many_ticks(batch: int) -> None:
    """More than a buffer has room for; each state stays what it was."""
    native, written = pair()
    states, seen = [m.init_state(batch) for m in (native, written)], []
    for given in inputs(native, 60, batch):
        with torch.no_grad():
            (y, states[0]), (want, states[1]) = (
                m.step(*given, s) for m, s in zip((native, written), states, strict=True)
            )
        assert close(y, want)
        for name, value in states[1].states.items():
            assert close(states[0].states[name], value)
        seen.append((states[0].states["window_k"], states[1].states["window_k"]))
    assert all(close(a, b) for a, b in seen)
    bases = {id(a._base) for a, _ in seen}
    assert 1 < len(bases) < 10 and None not in {a._base for a, _ in seen}


def test_states_of_ticks_that_follow_share_their_rows() -> None:
    native, _ = pair()
    first, *rest = inputs(native, 3)
    _, before = step(native, first, native.init_state(2))
    _, after = step(native, rest[0], before)
    kept = [s.states["window_k"].untyped_storage().data_ptr() for s in (before, after)]
    assert kept[0] == kept[1]
    _, other = step(native, rest[1], before)  # its rows are taken
    assert other.states["window_k"].untyped_storage().data_ptr() != kept[0]


def test_branches() -> None:
    """Several continuations of one state do not see one another."""
    native, written = pair()
    given = list(inputs(native, 8))
    start, expected = native.init_state(2), written.init_state(2)
    for x in given[:3]:
        (_, start), (_, expected) = step(native, x, start), step(written, x, expected)
    ways = [given[3:6], given[5:8], given[3:6]]
    ends = []
    for way in ways:
        state, other = start, expected
        for x in way:
            (y, state), (want, other) = step(native, x, state), step(written, x, other)
            assert close(y, want)
        ends.append((state, other))
    for state, other in ends:
        assert all(close(state.states[n], other.states[n]) for n in KEPT)


def halves(state: State) -> State:
    return state.map(lambda t: t[1:])


def stored(state: State) -> State:
    """A checkpoint has the windows alone, in one piece."""
    tensors = state.tensors()
    assert all(t.is_contiguous() and t.untyped_storage().nbytes() == t.nbytes for t in tensors.values())
    return State.from_tensors(safetensors.torch.load(safetensors.torch.save(tensors)))


def inplace(state: State) -> State:
    for tensor in state.states.values():
        tensor.mul_(0.5)
    return state


CHANGES = {
    "some of the sequences": halves,
    "stored and read": stored,
    "copied": copy.deepcopy,
    "cloned": State.clone,
    "detached": State.detach,
    "changed in place": inplace,
    "transposed": lambda s: s.map(lambda t: t.mT.contiguous().mT if t.dim() == 3 else t),
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_what_callers_do_with_states(name: str) -> None:
    native, written = pair()
    change: Any = CHANGES[name]
    given = list(inputs(native, 12))
    state, other = native.init_state(2), written.init_state(2)
    for n, x in enumerate(given):
        if n in (4, 7) and len(state.states["window_k"]) == 2:
            state, other = change(state), change(other)
        x = x if len(state.states["window_k"]) == 2 else [v[1:] for v in x]
        (y, state), (want, other) = step(native, x, state), step(written, x, other)
        assert close(y, want)
    assert all(close(state.states[n], other.states[n]) for n in KEPT)


def test_inference_mode() -> None:
    native, written = pair()
    state, other = native.init_state(2), written.init_state(2)
    with torch.inference_mode():
        for x in inputs(native, 9):
            (y, state), (want, other) = native.step(*x, state), written.step(*x, other)
            assert close(y, want)


def test_rows_that_depend_on_states() -> None:
    program = load_program("slow", "Slow", text=NOVEL)
    native, written = (build_module(program, b).double() for b in ("mlir", "torch"))
    state, other = native.init_state(2), written.init_state(2)
    for x in inputs(native, 40):
        (y, state), (want, other) = step(native, x, state), step(written, x, other)
        assert close(y, want)
    assert any(t._base is not None for t in state.states.values())


def test_windows_of_heads() -> None:
    sizes: dict[str, Any] = {"vocab": 11, "d": 8, "heads": 2, "layers": 1, "cms_hidden": 8}
    program = load_program(STDLIB / "models/hope_attention.nl", "HopeAttentionLM", **sizes)
    native, written = (build_module(program, b) for b in ("mlir", "torch"))
    state, other = native.init_state(3), written.init_state(3)
    gen = torch.Generator().manual_seed(1)
    for _ in range(40):
        tokens = torch.randint(0, 11, (3,), generator=gen)
        (y, state), (want, other) = step(native, [tokens], state), step(written, [tokens], other)
        assert (y - want).abs().max() <= 1e-4 * want.abs().max()
    windows = [s.name for s in program.states if "window" in s.name]
    assert windows and all(state.states[n]._base is not None for n in windows)
    assert all((state.states[n] - other.states[n]).abs().max() < 1e-4 for n in windows)
