"""Every program, compiled by the torch backend, means what the reference interpreter says."""

from __future__ import annotations

import pytest
import torch

from nldsl.api import load_program
from tests.numeric.torch_compare import against_reference, batch_of, cuts_agree, pair
from tests.numeric.torch_programs import PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("ticks", [1, 7, 13])
def test_values_and_gradients(name: str, ticks: int) -> None:
    value, gradient = against_reference(pair(load_program(name, text=PROGRAMS[name]), ticks))
    assert value <= 1e-10
    assert gradient <= 1e-8


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_cut_of_a_sequence_is_the_same(name: str) -> None:
    assert cuts_agree(pair(load_program(name, text=PROGRAMS[name]))) <= 1e-12


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n != "shared state"])
def test_a_batch_is_a_loop(name: str) -> None:
    it = pair(load_program(name, text=PROGRAMS[name]), batch=3)
    given = it.tensors(tuple(d.name for d in it.module.streams.now))
    if not it.time:
        pytest.skip("no batch")
    with torch.no_grad():
        whole = it.module(**given)
        for row in range(batch_of(it)):
            alone = it.module(**{n: x[row : row + 1] for n, x in given.items()})
            for a, b in zip(*(list(y.values()) if isinstance(y, dict) else [y] for y in (whole, alone)), strict=True):
                torch.testing.assert_close(a[row : row + 1], b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", PROGRAMS)
def test_float32_is_close(name: str) -> None:
    it = pair(load_program(name, text=PROGRAMS[name]), ticks=4)
    given = it.tensors(tuple(d.name for d in it.module.streams.now))
    with torch.no_grad():
        exact = it.module(**given)
        single = it.module.float()(**given)
    for a, b in zip(*(list(y.values()) if isinstance(y, dict) else [y] for y in (exact, single)), strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b.double(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", PROGRAMS)
def test_everything_is_on_the_device_of_the_inputs(name: str) -> None:
    """On the device ``meta`` a tensor made elsewhere would be an error."""
    it = pair(load_program(name, text=PROGRAMS[name]), ticks=5)
    it.module.to("meta")
    given = {n: x.to("meta") for n, x in it.tensors(tuple(d.name for d in it.module.streams.now)).items()}
    state = it.module.init_state(batch_of(it))
    y, state = it.module(**given, state=state)
    z, state = it.module.step(**{n: x.select(it.time, 0) for n, x in given.items()}, state=state)
    for found in (y, z):
        for tensor in found.values() if isinstance(found, dict) else [found]:
            assert tensor.device.type == "meta"
    assert all(tensor.device.type == "meta" for tensor in state.states.values())
