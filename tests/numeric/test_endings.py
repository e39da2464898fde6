"""Calls whose final states nobody reads, through native loops: outputs and gradients as if they were."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import compile as compile_program
from nldsl.backends.mlir import native_loop
from nldsl.backends.mlir.function import FallbackWarning
from nldsl.backends.registry import backend_named
from nldsl.ir.chunk import ChunkLoop
from nldsl.passes import ending
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.ending import endings
from nldsl.passes.plan import plan
from tests.numeric.chunk_programs import PROGRAMS
from tests.numeric.chunk_run import BATCH_SIZE, random_data, run_ticks
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.window_programs import WINDOWS

EVERY = {**PROGRAMS, **WINDOWS, **MATRICES}
STDLIB = Path(__file__).parents[2] / "stdlib"
FAST = ("linear attention", "slow")
LACT = STDLIB / "memories/lact.nl"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every end of a call has functions of its own; which functions were used."""
    monkeypatch.setattr(ending, "WORTH", 10.0)
    monkeypatch.setattr(native_loop, "WORTH_ENDING", -10.0)
    return watched(monkeypatch)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that are used from now on."""
    used: list[str] = []
    plain = native_loop.NativeLoop.kernel

    def kernel(self: native_loop.NativeLoop, which: str, *rest: Any) -> Any:
        used.append(which)
        return plain(self, which, *rest)

    monkeypatch.setattr(native_loop.NativeLoop, "kernel", kernel)
    return used


def check(name: str, ticks: int, used: list[str]) -> None:
    program = EVERY[name]()
    data = random_data(program, ticks, scale=0.5)
    for tensor in data.tensors():
        tensor.requires_grad_()
    planned = plan(program, options=ChunkOptions(size=4, serial=True), ticks=True)
    backend = backend_named("mlir")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        module = backend.load(backend.emit(planned), planned)
    state = module.init_state(data.params, BATCH_SIZE, torch.float64, torch.device("cpu"))
    given = {k: v.movedim(0, 1) for k, v in data.inputs.items()}
    outputs = module.forward(data.params, given, {**state, "@ends": False})[0]
    found = {k: v.movedim(1, 0) for k, v in outputs.items()}
    expected = run_ticks(program, data, ticks).outputs
    sums = []
    for result in (expected, found):
        gen = torch.Generator().manual_seed(3)
        weights = {k: torch.randn(result[k].shape, generator=gen, dtype=torch.float64) for k in sorted(expected)}
        total = torch.stack([(result[k] * w).sum() for k, w in weights.items()]).sum()
        sums.append(torch.autograd.grad(total, data.tensors(), allow_unused=True, materialize_grads=True))
    for key, value in expected.items():
        assert ((found[key] - value).abs() / (1 + value.abs())).max() < 1e-12, key
    for want, got in zip(*sums, strict=True):
        assert (got - want).abs().max() <= 1e-12 + 1e-10 * want.abs().max()
    assert any("ending" in which for which in used)


@pytest.mark.parametrize("name", FAST)
def test_common_loops(name: str, asked: list[str]) -> None:
    check(name, 10, asked)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    "gated delta|resets|momentum|Titans|self-modifying|anchored linear|coupled|three states|KDA|chain".split("|"),
)
@pytest.mark.parametrize("ticks", [3, 10])
def test_loops(name: str, ticks: int, asked: list[str]) -> None:
    check(name, ticks, asked)


def run(module: Any, given: list[torch.Tensor], state: Any = None) -> list[torch.Tensor]:
    """Outputs, and the gradients of inputs and parameters."""
    y = module(*given) if state is None else module(*given, state=state)[0]
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    leaves = [*given, *module.parameters()]
    return [y, *torch.autograd.grad((y * weights).sum(), leaves, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize(("ticks", "muon"), [(5, True), (16, False), pytest.param(16, True, marks=pytest.mark.slow)])
def test_an_update_that_comes_too_late_is_left_out(ticks: int, muon: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow clock does at the end of the call, or after it, leads to states alone."""
    used = watched(monkeypatch)
    module = compile_program(LACT, "LaCT", backend="mlir", dk=4, dv=3, hidden=5, chunk=8, muon=muon).double()
    gen = torch.Generator().manual_seed(0)
    shapes = [(2, ticks, *(int(str(n)) for n in d.type.shape)) for d in module.streams.now]
    given = [(0.2 + 0.4 * torch.rand(s, generator=gen, dtype=torch.float64)).requires_grad_() for s in shapes]
    without = run(module, given)
    assert any("ending" in which for which in used)
    used.clear()
    asked_for = run(module, given, module.init_state(2))
    assert not any("ending" in which for which in used)
    for want, got in zip(asked_for, without, strict=True):
        assert (got - want).abs().max() <= 1e-12 * (1 + want.abs().max())
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for want, got in zip(without, run(compiled, given), strict=True):
        assert (got - want).abs().max() <= 1e-12 * (1 + want.abs().max())


def test_what_is_left_of_a_segment() -> None:
    """No form for an end has a product of the update, or a cotangent of what the update makes."""
    from nldsl.api import load_program

    program = load_program(str(LACT), "LaCT", dk=4, dv=3, hidden=5, chunk=8, muon=True)
    planned = plan(program, serial=True, ticks=True)
    (loop,) = [p for p in planned.all_phases() if isinstance(p, ChunkLoop)]
    found = endings(loop, planned.backward_of(loop), planned.program)
    assert [e.steady for e in found] == [False, True]
    for short in found:
        assert short.share < 0.5
        assert sum(i.op == "einsum" for i in short.loop.body) == 3
        assert not short.loop.carry
        assert short.backward is not None
        assert not any(i.op == "when" for i in short.backward.body)
    assert {key for key, _ in found[1].read} == {"w0", "w1", "w2"}
