"""Native loops against the loop over ticks: outputs, states and gradients in float64; and as operations of PyTorch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import load_program
from nldsl.backends.mlir import custom_ops
from nldsl.backends.mlir.tick_loop import TickLoop
from nldsl.backends.mlir.views import FallbackWarning
from nldsl.backends.registry import backend_named
from nldsl.diagnostics.diagnostic import DiagnosticError
from nldsl.ir.program import Program
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.plan import plan
from tests.numeric.chunk_programs import PROGRAMS
from tests.numeric.chunk_run import BATCH_SIZE, Data, random_data, run_ticks
from tests.numeric.emitted_run import calls_of
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.window_programs import WINDOWS

Make = Callable[[], Program]
EVERY: dict[str, Make] = {**PROGRAMS, **WINDOWS, **MATRICES}
FAST = ("linear attention", "gated delta", "momentum", "slow", "resets")
TICKS = 7


class Native:
    """The module of a program."""

    def __init__(self, program: Program, size: int) -> None:
        self.program = program
        backend = backend_named("mlir")
        planned = plan(program, options=ChunkOptions(size=size, serial=True), ticks=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FallbackWarning)
            self.source = backend.emit(planned)
        assert "native.run(" in self.source
        self.module = backend.load(self.source, planned)

    def __call__(self, data: Data, calls: tuple[int, ...]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return calls_of(self.module, self.program, data, calls)


def gradients(found: tuple[dict[str, Tensor], dict[str, Tensor]], data: Data) -> list[Tensor]:
    gen = torch.Generator().manual_seed(3)
    total = torch.zeros((), dtype=torch.float64)
    for values in found:
        for name in sorted(values):
            weight = torch.randn(values[name].shape, generator=gen, dtype=torch.float64)
            total = total + (values[name] * weight).sum()
    return list(torch.autograd.grad(total, data.tensors(), allow_unused=True, materialize_grads=True))


def check(make: Make, size: int, calls: tuple[int, ...]) -> None:
    program = make()
    check_module(program, Native(program, size).module, calls)


def check_module(program: Program, module: Any, calls: tuple[int, ...]) -> None:
    """Outputs, states and gradients in float64 against the loop over ticks."""
    data = random_data(program, sum(calls), scale=0.5)
    for tensor in data.tensors():
        tensor.requires_grad_()
    ticks = run_ticks(program, data, sum(calls))
    expected = ticks.outputs, ticks.states
    found = calls_of(module, program, data, calls)
    for want, got in zip(expected, found, strict=True):
        for name, value in want.items():
            assert ((got[name] - value).abs() / (1 + value.abs())).max() < 1e-12, name
    for want_grad, got_grad in zip(gradients(expected, data), gradients(found, data), strict=True):
        assert (got_grad - want_grad).abs().max() <= 1e-12 + 1e-10 * want_grad.abs().max()


@pytest.mark.parametrize("name", FAST)
def test_common_loops(name: str) -> None:
    check(EVERY[name], 4, (4, 3) if name == "slow" else (7,))


BY_TICKS = ("two-sided", "transposed", "reads of both sides")  # no two_sided_scan: native loops over ticks instead


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EVERY if n not in FAST])
def test_loops(name: str) -> None:
    check(EVERY[name], 4, (3, 4))


@pytest.mark.parametrize("name", BY_TICKS)
def test_what_has_a_form_by_ticks_alone(name: str) -> None:
    source = Native(EVERY[name](), 4).source
    loops = re.findall(r'native\.run\("(\w+)"', source)
    assert any(isinstance(custom_ops.LOOPS[loop], TickLoop) for loop in loops)


@pytest.mark.slow
@pytest.mark.parametrize("size", [17, 64])
def test_lengths_around_a_vector(size: int) -> None:
    check(PROGRAMS["KDA"], size, (7,))


@pytest.mark.parametrize(
    "name", ["gated delta", *(pytest.param(n, marks=pytest.mark.slow) for n in ("KDA", "momentum"))]
)
def test_halves_of_tables_that_are_skipped(name: str) -> None:
    check(PROGRAMS[name], 21, (42,))


@pytest.mark.parametrize("size", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_decays_between_halves(size: int) -> None:
    check(PROGRAMS["KDA"], size, (size,))


def test_single_precision() -> None:
    program = PROGRAMS["gated delta"]()
    data = random_data(program, 40, scale=0.5)
    ticks = run_ticks(program, data, 40)
    single = Data({k: v.float() for k, v in data.inputs.items()}, {k: v.float() for k, v in data.params.items()})
    outputs, states = Native(program, 32)(single, (40,))
    for want, got in ((ticks.outputs, outputs), (ticks.states, states)):
        for name, value in want.items():
            assert got[name].dtype == torch.float32
            assert (got[name] - value).abs().max() < 1e-5 * value.abs().max()


def test_operations_of_pytorch() -> None:
    """The operation keeps the rules of PyTorch, and stands in a graph without breaks."""
    program = PROGRAMS["linear attention"]()
    native = Native(program, 4)
    name = native.source.partition('native.run("')[2].partition('"')[0]
    loop = custom_ops.LOOPS[name]
    gen = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(loop.shape(a.type, BATCH_SIZE, TICKS), generator=gen, dtype=torch.float64, requires_grad=True)
        for a in loop.inputs
    ]
    torch.library.opcheck(torch.ops.nldsl_mlir.loop.default, (tensors, name, 0, TICKS, True, True, False))

    def run(*given: Tensor) -> Tensor:
        return torch.stack([x.sin().sum() for x in custom_ops.run(name, list(given), 0, TICKS)]).sum()

    expected = torch.autograd.grad(run(*tensors), tensors)
    traced = torch.compile(run, fullgraph=True, backend="aot_eager")
    for want, got in zip(expected, torch.autograd.grad(traced(*tensors), tensors), strict=True):
        assert torch.equal(want, got)
    alone = [tensor if n == 0 else tensor.detach() for n, tensor in enumerate(tensors)]
    assert torch.equal(torch.autograd.grad(run(*alone), tensors[0])[0], expected[0])


def test_what_has_no_native_form_is_said() -> None:
    program = PROGRAMS["linear attention"]()
    planned = plan(program, frozenset({"backward"}), ChunkOptions(size=4))
    with pytest.warns(FallbackWarning, match="keeps the form of the torch backend"):
        source = backend_named("mlir").emit(planned)
    assert "native.run(" not in source
    from nldsl.backends.registry import native_backend

    with pytest.raises(DiagnosticError, match="NL0795"):
        native_backend(required=True).emit(planned)


def test_what_is_shown_parses() -> None:
    from torch_mlir import ir

    from nldsl.backends.registry import native_backend

    backend = native_backend()
    text = backend.text(plan(PROGRAMS["chain"](), options=ChunkOptions(size=4)))  # type: ignore[attr-defined]
    with ir.Context():
        assert ir.Module.parse(text).operation.verify()
    assert text.count("module @backward") == text.count("module @loop_") > 0


SLOW = """
memory Slow(d: dim) {
  state W, D: [d, d] = 0
  step(q: [d], k: [d], v: [d], beta: []) -> [d] every token {
    y = (W + D) @ q
    g = grad(0.5 * sum((tanh(W @ k) - v)^2), W)
    every 8 token {
      step = mean of beta * D - sum of g
      D <- step
      W <- W + tanh(step) * step
    }
    return y
  }
}
"""


@pytest.mark.parametrize(("size", "calls"), [(3, (9, 8)), (8, (5, 12))])
def test_what_only_a_slow_clock_needs(size: int, calls: tuple[int, ...], tmp_path: Path) -> None:
    """Of a way back through several segments for each update."""
    (tmp_path / "slow.nl").write_text(SLOW, encoding="utf-8")
    program = load_program(tmp_path / "slow.nl", d=4)
    (loop,) = plan(program, options=ChunkOptions(size=size, serial=True)).backwards
    assert any(i.op == "einsum" and i.guard is not None for i in loop.body)
    check(lambda: program, size, calls)
