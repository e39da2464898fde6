"""Loops over ticks as native functions: against the loop in PyTorch in float64, and what they keep for the way back."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import compile as compile_program
from nldsl.backends.mlir.custom_ops import LOOPS
from nldsl.backends.mlir.tick_loop import TickLoop, block_ticks
from nldsl.backends.mlir.views import FallbackWarning
from nldsl.backends.registry import backend_named
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.plan import plan
from tests.numeric.chunk_programs import PROGRAMS
from tests.numeric.chunk_run import BATCH_SIZE
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.test_mlir_loops import check_module
from tests.numeric.window_programs import WINDOWS

NOVEL = Path(__file__).parent / "novel_loops.nl"
EVERY = {**PROGRAMS, **WINDOWS, **MATRICES}
FAST = ("gated delta", "slow", "resets")
SEQUENTIAL = ("Normalized", "Gated", "TwoSidedLarge", "Squared", "Clipped", "BothSides", "Second")


def check(name: str, calls: tuple[int, ...]) -> None:
    """Every loop of a program as a loop over ticks."""
    program = EVERY[name]()
    backend = backend_named("mlir")
    planned = plan(program, options=ChunkOptions(enabled=False), ticks=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        source = backend.emit(planned)
    assert "native.run(" in source
    check_module(program, backend.load(source, planned), calls)


@pytest.mark.parametrize("name", FAST)
def test_common_loops(name: str) -> None:
    check(name, (4, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EVERY if n not in FAST])
def test_loops(name: str) -> None:
    check(name, (3, 4))


def novel(name: str, ticks: int) -> None:
    native, written = (compile_program(NOVEL, name, backend=b).double() for b in ("mlir", "torch"))
    assert "native.run(" in native.emitted.source
    written.load_state_dict(native.state_dict())
    gen = torch.Generator().manual_seed(0)
    inputs: dict[str, Tensor] = {}
    for item in native.program.inputs:
        x = 0.3 * torch.randn((2, ticks, *(int(str(s)) for s in item.type.shape)), generator=gen, dtype=torch.float64)
        if len(item.type.shape) == 2:  # a matrix to solve for: its first pivots are not on the diagonal
            x = x * 0.3 + torch.eye(x.shape[-1], dtype=x.dtype).roll(1, 0)
        inputs[item.name] = (x if item.type.shape else x.sigmoid()).requires_grad_()
    found = []
    for module in (native, written):
        y = module(**inputs)
        weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        leaves = [*inputs.values(), *module.parameters()]
        found.append((y, torch.autograd.grad((y * weight).sum(), leaves, allow_unused=True, materialize_grads=True)))
    (got, got_grads), (want, want_grads) = found
    assert (got - want).abs().max() <= 1e-12 * want.abs().max()
    for a, b in zip(got_grads, want_grads, strict=True):
        assert (a - b).abs().max() <= 1e-12 + 1e-10 * b.abs().max()


def test_a_nonlinear_memory() -> None:
    novel("Tanh", 70)  # several blocks, the last one short


def test_linear_systems() -> None:
    novel("Solves", 9)


@pytest.mark.slow
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_nonlinear_memories(name: str) -> None:
    novel(name, 21)


def test_what_is_kept() -> None:
    """The states once in a block of ticks, of about the root of all of them."""
    module = compile_program(NOVEL, "Tanh", backend="mlir")
    name = module.emitted.source.partition('native.run("')[2].partition('"')[0]
    loop = LOOPS[name]
    assert isinstance(loop, TickLoop)
    ticks = 400
    tensors = [torch.zeros(loop.shape(a.type, BATCH_SIZE, ticks)) for a in loop.inputs]
    kept = loop.forward(tensors, 0, ticks, True)[len(loop.states) + len(loop.streams) :]
    assert [k.shape[0] for k in kept] == [math.ceil(ticks / block_ticks(ticks))] * len(loop.states)
    assert sum(k.numel() for k in kept) < ticks / 10 * tensors[0].numel()
