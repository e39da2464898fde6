"""Native loops that keep values for the way back, as many as they can: outputs and gradients stay what they are."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.backends.mlir.custom_ops import LOOPS, run
from nldsl.backends.mlir.function import FallbackWarning
from nldsl.backends.mlir.native_loop import NativeLoop
from nldsl.backends.mlir.pool import Pool
from nldsl.backends.registry import backend_named
from nldsl.passes import keep
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.plan import plan
from nldsl.verify.subject import ModuleSubject
from tests.numeric import test_endings
from tests.numeric.chunk_programs import PROGRAMS
from tests.numeric.chunk_run import BATCH_SIZE
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.test_endings import asked, watched  # noqa: F401
from tests.numeric.test_mlir_loops import check_module
from tests.numeric.window_programs import WINDOWS
from tests.stdlib.cases import EVERY as STDLIB
from tests.stdlib.cases import TICKS, case, worst

EVERY = {**PROGRAMS, **WINDOWS, **MATRICES}
FAST = ("gated delta", "slow")


@pytest.fixture(autouse=True)
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping costs nothing: whatever takes an operation is kept. What nothing has written is not a number."""
    monkeypatch.setattr(keep, "KEPT", 0.1)
    monkeypatch.setattr(keep, "START", 0.001)
    filled_with(monkeypatch, float("nan"))


def filled_with(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """What is kept lies in memory that is full of a number."""
    monkeypatch.setattr(Pool, "empty", lambda _, shape, dtype: torch.full([*shape], value, dtype=dtype))


def loops_of(source: str) -> list[NativeLoop]:
    return [LOOPS[part.partition('"')[0]] for part in source.split('native.run("')[1:]]


def module_of(name: str, options: ChunkOptions, above: int = 1 << 28) -> tuple[Any, list[NativeLoop]]:
    planned = plan(EVERY[name](), options=options, ticks=True, recompute_above=above)
    backend = backend_named("mlir")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        source = backend.emit(planned)
    return backend.load(source, planned), loops_of(source)


@pytest.mark.parametrize("name", FAST)
def test_common_loops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = watched(monkeypatch)
    module, loops = module_of(name, ChunkOptions(size=4, serial=True))
    assert any(loop.kept for loop in loops)
    check_module(EVERY[name](), module, (4, 7))
    assert {"forward keeping", "backward keeping"} <= {*used}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EVERY if n not in FAST])
def test_loops(name: str) -> None:
    check_module(EVERY[name](), module_of(name, ChunkOptions(size=4, serial=True))[0], (3, 4))


@pytest.mark.parametrize("name", ["resets", *(pytest.param(n, marks=pytest.mark.slow) for n in ("momentum", "slow"))])
def test_loops_over_ticks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used = watched(monkeypatch)
    module, loops = module_of(name, ChunkOptions(enabled=False))
    assert any(loop.kept and loop.facts.by_ticks for loop in loops)
    check_module(EVERY[name](), module, (4, 9))
    assert {"replay keeping", "backward keeping"} <= {*used}
    assert "forward keeping" not in used


@pytest.mark.parametrize(
    "name", ["linear attention", *(pytest.param(n, marks=pytest.mark.slow) for n in ("slow", "Titans", "resets"))]
)
def test_the_end_of_a_call(name: str, asked: list[str]) -> None:  # noqa: F811
    test_endings.check(name, 10, asked)
    assert any(which.startswith("backward keeping ending") for which in asked)


def test_a_call_that_would_keep_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps states alone; so does one without gradients, and one that is told to compute all again."""
    used = watched(monkeypatch)
    options = ChunkOptions(size=4, serial=True)
    found = []
    for above in (-1, 500, 1 << 28):
        _, (loop,) = module_of("gated delta", options, above)
        gen = torch.Generator().manual_seed(0)
        shapes = [loop.shape(a.type, BATCH_SIZE, 11) for a in loop.inputs]
        tensors = [torch.rand(s, generator=gen, dtype=torch.float64, requires_grad=True) for s in shapes]
        used.clear()
        keeps = loop.keeps(BATCH_SIZE, 11, 8)
        results = loop.forward([t.detach() for t in tensors], 0, 11, save=True, keep=keeps)
        extra = results[len(loop.states) + len(loop.streams) + len(loop.boundaries) :]
        assert bool(extra) == any("keeping" in which for which in used) == keeps == (above > 500)
        assert sum(x.numel() for x in extra) <= 2 * loop.kept_rate * BATCH_SIZE * 11
        used.clear()
        with torch.no_grad():
            run(next(n for n, known in LOOPS.items() if known is loop), tensors, 0, 11)
        assert not any("keeping" in which for which in used)
        name = next(n for n, known in LOOPS.items() if known is loop)
        total = torch.stack([y.sin().sum() for y in run(name, tensors, 0, 11)]).sum()
        found.append(torch.autograd.grad(total, tensors, allow_unused=True, materialize_grads=True))
    for grads in found[1:]:
        for want, got in zip(found[0], grads, strict=True):
            assert (got - want).abs().max() <= 1e-12 * (1 + want.abs().max())


def test_as_an_operation_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    filled_with(monkeypatch, 0.0)  # what nobody reads nobody writes: the same number, for results are compared
    _, (loop,) = module_of("gated delta", ChunkOptions(size=4, serial=True))
    name = next(n for n, known in LOOPS.items() if known is loop)
    gen = torch.Generator().manual_seed(0)
    shapes = [loop.shape(a.type, BATCH_SIZE, 7) for a in loop.inputs]
    tensors = [torch.rand(s, generator=gen, dtype=torch.float64, requires_grad=True) for s in shapes]
    torch.library.opcheck(torch.ops.nldsl_mlir.loop.default, (tensors, name, 0, 7, True, True, True))

    assert loop.keeps(BATCH_SIZE, 7, 8)

    def total(*given: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.sin().sum() for x in run(name, list(given), 0, 7)]).sum()

    expected = torch.autograd.grad(total(*tensors), tensors)
    for dynamic in (False, True):
        torch._dynamo.reset()
        traced = torch.compile(total, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        for want, got in zip(expected, torch.autograd.grad(traced(*tensors), tensors), strict=True):
            assert (got - want).abs().max() <= 1e-13 * (1 + want.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in STDLIB if STDLIB[n].name != "Proximal"])
def test_the_library(name: str) -> None:
    known = case(name)
    subject = ModuleSubject("mlir", known.program, known.drawn.params, single=False)
    found = subject.gradients(known.drawn.inputs, TICKS, known.weights)
    for kind in ("params", "inputs", "starts"):
        assert worst(getattr(known.gradients, kind), getattr(found, kind)) < 1e-8
