"""Native lanes of several sequences: states that a batch shares, weights read once; against PyTorch's loops."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import compile as compile_program
from nldsl.backends.mlir.contraction import _groups
from nldsl.backends.mlir.custom_ops import LOOPS
from nldsl.backends.mlir.native_step import NativeStep
from nldsl.backends.mlir.tick_loop import MOST_ROWS, TickLoop, rows_of
from nldsl.backends.mlir.views import FallbackWarning
from nldsl.runtime.module import Module

PROGRAMS = Path(__file__).parent / "shared_loops.nl"
TICKS = 37


def pair(name: str) -> tuple[Module, Module]:
    """The native module and that of the torch backend, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        native = compile_program(PROGRAMS, name, backend="mlir", require_backend=True).double()
    written = compile_program(PROGRAMS, name, backend="torch").double()
    written.load_state_dict(native.state_dict())
    assert "native.run(" in native.emitted.source
    return native, written


def inputs_of(module: Module, batch: int) -> dict[str, Tensor]:
    gen = torch.Generator().manual_seed(0)
    found = {}
    for item in module.streams.now:
        shape = (batch, TICKS, *(int(str(s)) for s in item.type.shape))
        x = torch.randn(shape, generator=gen, dtype=torch.float64)
        found[item.name] = 0.4 * x if item.type.shape else x.sigmoid()
    return found


def check(name: str, batch: int) -> None:
    """Outputs, the state after a sequence in two calls, gradients, and ticks one by one."""
    modules = pair(name)
    given = {k: x.requires_grad_() for k, x in inputs_of(modules[0], batch).items()}
    results = []
    for module in modules:
        first, state = module(**{k: x[:, :20] for k, x in given.items()}, state=module.init_state(batch))
        rest, state = module(**{k: x[:, 20:] for k, x in given.items()}, state=state)
        y = torch.cat([first, rest], 1)
        ends = [state.states[s] for s in sorted(state.states)]
        gen = torch.Generator().manual_seed(1)
        total = sum((x * torch.randn(x.shape, generator=gen, dtype=x.dtype)).sum() for x in [y, *ends])
        leaves = [*given.values(), *module.parameters()]
        results.append([y, *ends, *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)])
    for got, want in zip(*results, strict=True):
        assert (got - want).abs().max() <= 1e-12 + 1e-11 * want.abs().max()
    with torch.no_grad():
        states = [m.init_state(batch) for m in modules]
        for tick in range(4):  # before the first reset, which is the torch backend's
            given_now = {k: x[:, tick].detach() for k, x in given.items()}
            assert isinstance(getattr(modules[0].emitted, "tick", None), NativeStep)
            assert modules[0]._quick is not None
            assert modules[0]._quick(modules[0]._places, (), {**given_now, "state": states[0]}) is not None
            outputs = []
            for n, module in enumerate(modules):
                y, states[n] = module.step(**given_now, state=states[n])
                outputs.append(y)
            assert (outputs[0] - outputs[1]).abs().max() <= 1e-12
            for key, value in states[1].states.items():
                assert (states[0].states[key] - value).abs().max() <= 1e-12


@pytest.mark.parametrize("name", ["Delta", "Squashed"])
def test_shared_states(name: str) -> None:
    check(name, 3)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 5])
def test_other_batches(batch: int) -> None:
    for name in ("Additive", "Delta", "Squashed"):
        check(name, batch)


@pytest.mark.parametrize("batch", [12])
def test_several_sequences_of_a_lane(batch: int) -> None:
    """Three lanes of four sequences, with a state that is reset and weights that are used twice."""
    check("Recurrent", batch)
    loops = [loop for loop in LOOPS.values() if isinstance(loop, TickLoop) and ("c", 0) in [a.key for a in loop.states]]
    assert any(rows == 4 for loop in loops for *_, rows in loop.kernels)


def test_how_many_sequences() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert [rows_of(n, 1) for n in (1, 2, 6, 7, 12, 64)] == [0, 2, 2, 0, 4, MOST_ROWS]
        torch.set_num_threads(4)
        assert [rows_of(n, 1) for n in (2, 8, 64)] == [0, 2, MOST_ROWS]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("rows", range(1, 14))
def test_blocks_of_sums(rows: int) -> None:
    """Each row once, in numbers that are powers of two."""
    found = _groups(rows)
    assert [first for first, _ in found] == [sum(n for _, n in found[:i]) for i in range(len(found))]
    assert sum(n for _, n in found) == rows
    assert all(n in (1, 4, 8) for _, n in found)
