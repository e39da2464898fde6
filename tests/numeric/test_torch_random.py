"""Random programs through the torch backend: sequences and single ticks mean what the reference says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from nldsl.backends.reference import Reference
from nldsl.passes.derive import Derive
from nldsl.passes.simplify import Simplify
from nldsl.runtime.build import build_module
from nldsl.runtime.module import Module
from tests.numeric.maker import Array
from tests.numeric.random_programs import Made, programs

relaxed = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SEQUENTIAL = frozenset({"chunk"})
thorough = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))


def module_of(made: Made, simplify: bool, disabled: frozenset[str]) -> Module:
    program = Derive().apply(made.program)
    module = build_module(Simplify().apply(program) if simplify else program, "torch", 0, disabled).double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(made.params[name]))
    return module


def agree(expected: dict[str, Array], found: dict[str, torch.Tensor]) -> None:
    assert set(expected) == set(found)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].detach().numpy(), value, rtol=1e-7, atol=1e-9, err_msg=name)


def check(made: Made, simplify: bool, disabled: frozenset[str] = SEQUENTIAL) -> None:
    reference = Reference(Derive().apply(made.program), made.params)
    outputs, losses, last = reference.run(made.inputs)
    module = module_of(made, simplify, disabled)
    inputs = {name: torch.tensor(x) for name, x in made.inputs.items()}
    ours, our_losses, _, state = module._run(inputs, module._begin(inputs, None))
    agree(outputs, ours)
    agree(losses, our_losses)
    for declared in made.program.states:
        agree({declared.name: last[declared.name]}, {declared.name: state.states[declared.name]})

    time = 1 if module.streams.batched else 0
    stepped = module._begin(inputs, None)
    ticks: list[dict[str, torch.Tensor]] = []
    for t in range(next(iter(inputs.values())).shape[time]):
        one, stepped = module.step(**{n: x.select(time, t) for n, x in inputs.items()}, state=stepped)
        ticks.append(one if isinstance(one, dict) else {next(iter(ours)): one})
    for name, whole in ours.items():
        torch.testing.assert_close(torch.stack([tick[name] for tick in ticks], time), whole, rtol=1e-7, atol=1e-9)
    for name, tensor in state.states.items():
        torch.testing.assert_close(stepped.states[name], tensor, rtol=1e-7, atol=1e-9)


@relaxed
@given(programs())
def test_simplified(made: Made) -> None:
    check(made, simplify=True)


@relaxed
@given(programs())
def test_as_derived(made: Made) -> None:
    check(made, simplify=False)


@relaxed
@given(programs())
def test_in_chunks(made: Made) -> None:
    check(made, simplify=True, disabled=frozenset())


@pytest.mark.slow
@thorough
@given(programs(size=30))
def test_more_and_larger(made: Made) -> None:
    check(made, simplify=True)
