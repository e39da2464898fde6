"""``module.step`` in native code against the step of the torch backend: outputs, states, what it refuses."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.api import compile as compile_program
from nldsl.backends.mlir import native_step
from nldsl.backends.registry import backend_named
from nldsl.passes.plan import plan
from nldsl.runtime import build
from nldsl.runtime.inputs import InputError
from nldsl.runtime.module import Module
from tests.numeric.chunk_programs import PROGRAMS
from tests.numeric.chunk_run import BATCH_SIZE, random_data
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.window_programs import WINDOWS

STDLIB = Path(__file__).parents[2] / "stdlib"
EVERY = {**PROGRAMS, **WINDOWS, **MATRICES}
FAST = ("gated delta", "slow", "resets")
TICKS = 9
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "HopeLM": ("models/hope.nl", {"vocab": 32, "d": 16, "heads": 2, "layers": 1, "hidden": 8, "cms_hidden": 16}),
    "TTTMlp": ("memories/ttt.nl", {"d": 8}),
    "Titans": ("memories/titans.nl", {"dk": 8, "dv": 8}),
}


def check(name: str) -> None:
    """The functions of a module that are called at each tick, in float64: inputs may have the axes of lanes."""
    program = EVERY[name]()
    data = random_data(program, TICKS, scale=0.5)
    modules = []
    for backend in (backend_named("mlir"), backend_named("torch")):
        planned = plan(program, ticks=backend.name == "mlir")
        modules.append(backend.load(backend.emit(planned), planned))
    native, written = modules
    owner = SimpleNamespace(_parameters=data.params)
    places = {n: (owner, n) for n in data.params}
    states = written.init_state(data.params, BATCH_SIZE, torch.float64, torch.device("cpu"))
    resets = [s.reset.clock for s in program.states if s.reset.clock is not None]
    for tick in range(TICKS):
        inputs = {n: x[tick].contiguous() for n, x in data.inputs.items()}
        order = [inputs[d.name] for d in program.inputs if not d.ahead]
        before = {n: x.clone() for n, x in states.items() if n != "@tick"}
        found = native.tick(places, order, {n: x.contiguous() for n, x in states.items() if n != "@tick"}, tick, {})
        outputs, _, _, after = written.step(data.params, inputs, states)
        assert (found is None) == any(clock.fires(tick + 1) for clock in resets)
        assert all(torch.equal(x, states[n]) for n, x in before.items()), "the state before was changed"
        if found is not None:
            same(found[0], outputs, 1e-12)
            same(found[1], {n: x for n, x in after.items() if n != "@tick"}, 1e-12)
        states = after


def same(got: dict[str, Tensor], want: dict[str, Tensor], bound: float) -> None:
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].shape == value.shape, name
        assert (got[name] - value).abs().max() <= bound * (1 + value.abs().max()), name


def compare(native: Module, written: Module, inputs: list[dict[str, Tensor]], bound: float) -> None:
    """The ticks of a sequence one by one; the native module must not take the other way."""
    states = [m.init_state(BATCH_SIZE) for m in (native, written)]
    with torch.no_grad():
        for given in inputs:
            assert native._quick is not None
            assert native._quick(native._places, (), {**given, "state": states[0]}) is not None
            (got, states[0]), (want, states[1]) = (
                m.step(**given, state=s) for m, s in zip((native, written), states, strict=True)
            )
            same({"y": got}, {"y": want}, bound)
            same(states[0].states, states[1].states, bound)


@pytest.mark.parametrize("name", FAST)
def test_common_programs(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EVERY if n not in FAST])
def test_programs(name: str) -> None:
    check(name)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "Titans" else ()) for n in MODELS])
def test_the_standard_library(name: str) -> None:
    file, sizes = MODELS[name]
    native, written = (compile_program(STDLIB / file, name, backend=b, **sizes) for b in ("mlir", "torch"))
    written.load_state_dict(native.state_dict())
    gen = torch.Generator().manual_seed(0)
    inputs = []
    for _ in range(2 * 16 + 3):
        tick: dict[str, Tensor] = {}
        for item in native.streams.now:
            shape = (BATCH_SIZE, *(int(str(n)) for n in item.type.shape))
            if item.type.kind == "int":
                tick[item.name] = torch.randint(0, 32, shape, generator=gen)
            else:
                x = torch.randn(shape, generator=gen)
                tick[item.name] = x / x.norm(dim=-1, keepdim=True) if item.type.shape else 0.2 * x.sigmoid()
        inputs.append(tick)
    compare(native, written, inputs, 1e-5)


def test_ticks_that_wait_for_the_next_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two native calls, one for the states of the tick that waits and one for the outputs; also from the cache, and of
    a copy of the module."""
    monkeypatch.setenv("NLDSL_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "WORTH_STORING", 0.0)
    sizes: dict[str, Any] = {
        "vocab": 11,
        "d": 8,
        "heads": 2,
        "hidden": 8,
        "reach": 3,
        "slow_period": 8,
        "mid_period": 4,
    }
    file = STDLIB / "models/level_stacking.nl"
    first, second, written = (compile_program(file, "Stacked", backend=b, **sizes) for b in ("mlir", "mlir", "torch"))
    assert len(list(tmp_path.glob("*.json"))) == 2
    gen = torch.Generator().manual_seed(0)
    inputs = [{"tokens": torch.randint(0, 11, (BATCH_SIZE,), generator=gen)} for _ in range(19)]
    for native in (first, second, copy.deepcopy(second)):
        written.load_state_dict(native.state_dict())
        compare(native, written, inputs, 1e-5)


def gated() -> Module:
    return compile_program(STDLIB / "memories/delta.nl", "GatedDelta", backend="mlir", dk=4, dv=4)


def given(batch: int = 2) -> dict[str, Tensor]:
    gen = torch.Generator().manual_seed(0)
    vectors = {n: 0.5 * torch.randn(batch, 4, generator=gen) for n in ("q", "k", "v")}
    return vectors | {n: torch.rand(batch, generator=gen) for n in ("rate", "keep")}


def test_with_gradients_the_usual_way_is_taken() -> None:
    module, state = gated(), None
    inputs = given()
    inputs["v"].requires_grad_()
    _, state = module.step(**inputs, state=module.init_state(2))
    y, _ = module.step(**inputs, state=state)
    (grad,) = torch.autograd.grad(y.sum(), inputs["v"])
    assert grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_kinds_of_numbers(dtype: torch.dtype) -> None:
    """Inputs of another dtype are turned into that of the module, as in every call."""
    module, inputs = gated(), given()
    with torch.no_grad():
        want, _ = module.step(**inputs, state=module.init_state(2))
        got, _ = module.step(**{n: x.to(dtype) for n, x in inputs.items()}, state=module.init_state(2))
    assert got.dtype == torch.float32
    assert (got - want).abs().max() < 1e-2


def test_views_and_stored_states() -> None:
    module, inputs = gated(), given()
    with torch.no_grad():
        want, after = module.step(**inputs, state=module.init_state(2))
        views = {n: torch.stack([x, x], -1)[..., 0] for n, x in inputs.items()}
        got, other = module.step(**views, state=dict(module.init_state(2)))
    assert torch.allclose(got, want, atol=1e-6)
    assert torch.allclose(other.states["M"], after.states["M"], atol=1e-6)


def test_wrong_inputs_are_told() -> None:
    module, inputs = gated(), given()
    with torch.no_grad(), pytest.raises(InputError, match="the input `k`"):
        module.step(**(inputs | {"k": torch.zeros(2, 5)}), state=module.init_state(2))
    with torch.no_grad(), pytest.raises(InputError, match="a batch of 3"):
        module.step(**inputs, state=module.init_state(3))
    file, sizes = MODELS["HopeLM"]
    model = compile_program(STDLIB / file, "HopeLM", backend="mlir", **sizes)
    with torch.no_grad(), pytest.raises(InputError, match="picks one of 32"):
        model.step(torch.tensor([40]), model.init_state(1))


def test_lanes_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = gated(), given(8)
    threads = torch.get_num_threads()
    with torch.no_grad():
        want, after = module.step(**inputs, state=module.init_state(8))
        monkeypatch.setattr(native_step, "WORTH_THREADS", 0)
        module = gated()
        torch.set_num_threads(3)
        try:
            got, other = module.step(**inputs, state=module.init_state(8))
        finally:
            torch.set_num_threads(threads)
    assert torch.equal(got, want)
    assert torch.equal(other.states["M"], after.states["M"])


def test_a_module_stays_on_its_device() -> None:
    module = gated()
    module.double()
    module.emitted = replace(module.emitted, devices=("cpu",))  # type: ignore[type-var]
    with pytest.raises(RuntimeError, match=r"compiled for the CPU: it cannot be moved to meta; .* backend=\"torch\""):
        module.to("meta")
    assert module.init_state(1).states["M"].device.type == "cpu"
    assert module.init_state(1).states["M"].dtype == torch.float64
