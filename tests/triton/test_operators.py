"""Kernels as operators of PyTorch: checked, compiled without a break, differentiated once."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from nldsl.backends.triton.provider import BackendRemark
from nldsl.runtime.build import build_module
from tests.triton.compare import inputs_of, kernels_of, program, run, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def operators(module: object) -> list[object]:
    """The operators of an emitted module that have a derivative."""
    space = vars(module.emitted.module)  # type: ignore[attr-defined]
    return [x for name, x in space.items() if name.endswith("_forward") and hasattr(x, "register_fake")]


@pytest.mark.slow
@pytest.mark.parametrize(("ticks", "choices"), [(5, {}), (6, {"size": 4, "keep_states": False})], ids=["kept", "again"])
def test_opcheck(ticks: int, choices: dict[str, Any]) -> None:
    """Also where the way back runs kernels of the forward run again."""
    source = program("memories/linear_attention.nl", "LinearAttention", dk=4, dv=3)
    module = kernels_of(source, **choices)
    (operator,) = operators(module)
    x = {n: v.requires_grad_() for n, v in inputs_of(source, 2, ticks, torch.float32).items()}
    state = module.init_state(2)
    names = [a.name for a in operator._opoverload._schema.arguments[3:]]  # type: ignore[attr-defined]
    tensors = [x.get(n, next(iter(state.states.values()))) for n in names]
    torch.library.opcheck(cast(Any, operator), (0, ticks, [], *tensors))


def test_torch_compile_without_a_break() -> None:
    source = program("memories/delta.nl", "GatedDelta", dk=4, dv=3)
    module = kernels_of(source)
    inputs = inputs_of(source, 1, 9, torch.float32)
    expected = module(**inputs)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs), expected)


def test_a_second_derivative_is_refused() -> None:
    source = program("memories/linear_attention.nl", "LinearAttention", dk=4, dv=3)
    module = kernels_of(source)
    x = {n: v.requires_grad_() for n, v in inputs_of(source, 1, 4, torch.float32).items()}
    y = module(**x)
    (first,) = torch.autograd.grad(y.square().sum(), x["k"], create_graph=True)
    with pytest.raises(NotImplementedError, match="the loop of `M` has no second derivative here"):
        torch.autograd.grad(first.square().sum(), x["q"])


def test_decoding_continues_the_sequence() -> None:
    source = program("memories/delta.nl", "GatedDelta", dk=4, dv=3)
    module = kernels_of(source).double()
    inputs = inputs_of(source, 2, 6, torch.float64)
    whole = run(module, inputs).values["y" if "y" in run(module, inputs).values else "out"]
    state = module.init_state(2)
    _, state = module(**{n: v[:, :4] for n, v in inputs.items()}, state=state)
    for t in (4, 5):
        y, state = module.step(*(v[:, t] for v in inputs.values()), state)
        torch.testing.assert_close(y, whole[:, t])


def test_what_has_no_kernels_is_reported() -> None:
    source = program("memories/attention.nl", "SoftmaxAttention", dk=4, dv=3, reach=4096)
    with pytest.warns(BackendRemark, match="has no kernels"):
        module = build_module(source, "triton")
    inputs = inputs_of(source, 1, 7, torch.float32)
    torch.testing.assert_close(module(**inputs), ticks_of(source)(**inputs), atol=1e-4, rtol=1e-4)
