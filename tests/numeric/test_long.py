"""Up to 65,536 ticks in single precision with decays that are tiny or zero; second derivatives of each kind of loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nldsl.ir.program import Program
from nldsl.passes.choose_chunk import ChunkOptions
from tests.numeric.chunk_programs import delta, gated_linear, momentum
from tests.numeric.chunk_run import BATCH_SIZE, Data, random_data
from tests.numeric.emitted_run import assert_close, run
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.window_programs import WINDOWS, attention, omega

LONG: dict[str, Callable[[], Program]] = {
    "scalar decay": delta,
    "key side": lambda: delta(4),
    "value side": lambda: gated_linear(3, 1),
    "momentum": momentum,
    "full maps": MATRICES["left"],
    "window": attention,
    "Omega": omega,
}


SHORTER = ("momentum", "full maps", "Omega")  # a minute each otherwise


def forgetful(program: Program, ticks: int) -> Data:
    """Gates down to 1e-30, now and then exactly zero; matrices now and then zero."""
    data = random_data(program, ticks, scale=0.5)
    for name in ("a", "mu"):
        if name in data.inputs:
            data.inputs[name] = 30.0 * data.inputs[name]
            data.inputs[name][::97] = -1e4
    if "A" in data.inputs:
        data.inputs["A"][::97] = 0.0
    return data


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_strong_forgetting(name: str) -> None:
    program, ticks = LONG[name](), 16_384 if name in SHORTER else 65_536
    data = forgetful(program, ticks)
    with torch.no_grad():
        expected = run(program, data, ChunkOptions(), (ticks,))
    single = Data({k: v.float() for k, v in data.inputs.items()}, {k: v.float() for k, v in data.params.items()})
    for tensor in single.tensors():
        tensor.requires_grad_()
    outputs, states = run(program, single, ChunkOptions(), (ticks,))
    found = {k: v.double() for k, v in outputs.items()}, {k: v.double() for k, v in states.items()}
    assert_close(expected, found, 1e-4)
    loss = torch.stack([v.square().mean() for v in outputs.values()]).sum()
    for gradient in torch.autograd.grad(loss, single.tensors(), allow_unused=True, materialize_grads=True):
        assert torch.isfinite(gradient).all()


TWICE: dict[str, Callable[[], Program]] = {
    "decay": lambda: gated_linear(4),
    "delta": delta,
    "full maps": MATRICES["coupled vectors"],
    "window": WINDOWS["biased attention"],
    "Omega": lambda: omega(2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TWICE)
def test_second_derivatives(name: str) -> None:
    program = TWICE[name]()
    data = random_data(program, 4, scale=0.3)
    names, params = list(data.inputs), list(data.params)
    given = [x[:, :1].clone().requires_grad_() for x in data.inputs.values()]
    given += [x.clone().requires_grad_() for x in data.params.values()]

    def values(*tensors: Tensor) -> Tensor:
        inputs = {k: x.expand(-1, BATCH_SIZE, *x.shape[2:]) for k, x in zip(names, tensors, strict=False)}
        held = Data(inputs, dict(zip(params, tensors[len(names) :], strict=True)))
        outputs, states = run(program, held, ChunkOptions(size=3), (4,))
        return torch.stack([v.square().sum() for v in (*outputs.values(), *states.values())]).sum()

    assert torch.autograd.gradcheck(values, given)
    assert torch.autograd.gradgradcheck(values, given, atol=1e-4)
