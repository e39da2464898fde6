"""States that the way back makes again, by the kernels that made them: the same numbers, and less that is kept."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import nldsl
from nldsl.api import load_program
from nldsl.ir.program import Program
from nldsl.runtime.module import Module
from tests.triton.compare import inputs_of, kernels_of, low_errors, program, run
from tests.triton.test_operators import operators
from tests.triton.test_second import STARTS, alike, second
from tests.triton.test_second import inputs as given_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses

MEMORIES = [
    ("memories/gated_linear.nl", "GatedLinearAttention", {"dk": 4, "dv": 3}),
    ("memories/gated_linear.nl", "Mamba2", {"dk": 4, "dv": 3}),
    ("memories/delta.nl", "DeltaNet", {"dk": 4, "dv": 3}),
    ("memories/delta.nl", "GatedDelta", {"dk": 4, "dv": 3}),
    ("memories/delta.nl", "KimiDelta", {"dk": 4, "dv": 3}),
    ("memories/low_rank.nl", "RWKV7", {"dk": 4, "dv": 3}),
    ("memories/ttt.nl", "TTTMlp", {"d": 4, "hidden": 6}),
    ("memories/titans.nl", "Titans", {"dk": 4, "dv": 3}),
]
SLOW = {"DeltaNet", "KimiDelta", "RWKV7", "TTTMlp", "Titans"}


def pair(source: Program, size: int | None = 8) -> tuple[Module, Module]:
    """The module that keeps states, and the one that makes them again."""
    kept, again = (kernels_of(source, size=size, keep_states=keep) for keep in (True, False))
    again.load_state_dict(kept.state_dict())
    return kept, again


def alike_bit_by_bit(source: Program, ticks: int, calls: tuple[int, ...]) -> None:
    """In float32, where nothing that kernels leave for later ones is rounded."""
    kept, again = pair(source)
    assert "_states(" in again.emitted.source
    assert "_states(" not in kept.emitted.source
    inputs = inputs_of(source, 2, ticks, torch.float32)
    expected, found = run(kept, inputs, calls), run(again, inputs, calls)
    for name, value in expected.values.items():
        assert torch.equal(value, found.values[name]), name
    assert any(g is not None and g.any() for g in expected.gradients.values())
    for name, gradient in expected.gradients.items():
        other = found.gradients[name]
        assert (gradient is None) == (other is None), name
        assert gradient is None or other is None or torch.equal(gradient, other), name


@pytest.mark.parametrize(
    ("path", "entry", "dims"),
    [pytest.param(*m, marks=[pytest.mark.slow] if m[1] in SLOW else []) for m in MEMORIES],
    ids=[entry for _, entry, _ in MEMORIES],
)
def test_the_same_gradients(path: str, entry: str, dims: dict[str, int]) -> None:
    """Several segments, the last in part, and a second call that begins with what the first ended with."""
    alike_bit_by_bit(program(path, entry, **dims), 13, (10, 3))


def test_the_same_states_in_half_precision() -> None:
    """Bit by bit what the forward run would have kept."""
    source = program("memories/delta.nl", "GatedDelta", dk=16, dv=16)
    kept, again = (module.bfloat16() for module in pair(source))
    inputs = inputs_of(source, 1, 20, torch.bfloat16)
    (operator,), (states,) = operators(kept), functions(again, "_states")
    names = [a.name for a in operator._opoverload._schema.arguments[3:]]  # type: ignore[attr-defined]
    start = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(3)).bfloat16()
    given = [inputs.get(n, start) for n in names]
    *_, expected = cast(Any, operator)(0, 20, [], *given)
    found = cast(Any, states)(0, 20, (), *given)[0]
    assert expected.shape == (3, 1, 16, 16)
    assert torch.equal(found, expected)


def functions(module: Module, end: str) -> list[object]:
    """The functions of an emitted module whose names end so."""
    return [x for name, x in vars(cast(Any, module.emitted).module).items() if name.endswith(end) and callable(x)]


@pytest.mark.slow
def test_gradients_in_half_precision() -> None:
    """What the loop leaves for the outputs is rounded, and the way back reads it so where it is made again."""
    errors = low_errors(program("memories/delta.nl", "GatedDelta", dk=32, dv=32), 128, keep_states=False)
    assert max(errors.values()) < 6e-3, errors


def test_states_that_are_reset_within_the_sequence() -> None:
    alike_bit_by_bit(load_program("starts.nl", "Starts", text=STARTS), 11, (3, 8))


def test_only_what_makes_states_runs_again() -> None:
    """PREPARE and STEP; what STEP leaves besides the way back reads, and has a kernel less for it."""
    texts = []
    for keep in (True, False):
        given: dict[str, Any] = {"keep_states": keep, "dk": 64, "dv": 64}
        texts.append(nldsl.compile("stdlib/memories/delta.nl", "DeltaNet", backend="triton", **given).emitted.source)
    kept, again = texts
    launches = [
        len(re.findall(rf"^ +\w+_fwd_{stage}\[", again, re.MULTILINE)) for stage in ("prepare", "step", "finish")
    ]
    assert launches == [2, 2, 1]
    ways = [len(re.findall(r"^def \w+_bwd_\w+\(", text, re.MULTILINE)) for text in (kept, again)]
    assert ways[1] == ways[0] - 1


def kept_of(module: Module, inputs: dict[str, Tensor], **more: Any) -> list[Tensor]:
    """What a call keeps for the way back and was not given."""
    found: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        found.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        module(**inputs, **more)
    own = {x.untyped_storage().data_ptr() for x in (*inputs.values(), *module.parameters())}
    return [x for x in found if x.untyped_storage().data_ptr() not in own]


def test_nothing_is_kept_but_what_was_given() -> None:
    source = program("memories/delta.nl", "GatedDelta", dk=4, dv=3)
    inputs = {n: x.requires_grad_() for n, x in inputs_of(source, 1, 20, torch.float32).items()}
    kept, again = pair(source)
    (initial,) = kept_of(again, inputs)  # zeros that the call begins with
    assert initial.shape == (1, 3, 4)
    assert not initial.any()
    assert [x.shape for x in kept_of(kept, inputs)] == [(1, 3, 4), (3, 1, 4, 4)]


def test_of_sequences_in_one_row() -> None:
    source = program("memories/delta.nl", "GatedDelta", dk=4, dv=3)
    results = []
    for module in pair(source):
        inputs = {n: x.requires_grad_() for n, x in inputs_of(source, 1, 19, torch.float32).items()}
        y = module(**inputs, cu_seqlens=[0, 5, 5, 16, 19])
        results.append([y, *torch.autograd.grad(y.square().sum(), list(inputs.values()))])
    for want, got in zip(*results, strict=True):
        assert torch.equal(want, got)


def test_torch_compile_without_a_break() -> None:
    source = program("memories/delta.nl", "GatedDelta", dk=4, dv=3)
    _, module = pair(source)
    torch._dynamo.reset()  # other tests compile the same function, with lengths that PyTorch then takes for symbols
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for ticks in (11, 7, 9):  # from the second length on a symbol
        results = []
        for call in (module, compiled):
            inputs = {n: x.requires_grad_() for n, x in inputs_of(source, 1, ticks, torch.float32).items()}
            y = call(**inputs)
            results.append([y, *torch.autograd.grad(y.square().sum(), list(inputs.values()))])
        torch.testing.assert_close(results[1], results[0])


@pytest.mark.filterwarnings("ignore::nldsl.backends.interface.FallbackWarning")
def test_second_derivatives() -> None:
    choices: list[dict[str, Any]] = [{"backend": "triton", "keep_states": False}, {"backend": "torch"}]
    modules = [nldsl.compile("starts.nl", "Starts", text=STARTS, **c).double() for c in choices]
    modules[1].load_state_dict(modules[0].state_dict())
    assert "_states(" in modules[0].emitted.source
    found, expected = (second(m, given_of(m, 9)) for m in modules)
    alike(found, expected)


@pytest.mark.parametrize(("width", "keeps"), [(32, True), (64, False)])
def test_what_is_small_is_kept(width: int, keeps: bool) -> None:
    """At heads of 32 states take 32 bytes for a tick of a head in bfloat16, at 64 they take 128."""
    module = nldsl.compile("stdlib/memories/delta.nl", "DeltaNet", backend="triton", dk=width, dv=width)
    assert ("_states(" in module.emitted.source) is not keeps


def test_other_backends_have_no_such_choice() -> None:
    with pytest.raises(ValueError, match="`keep_states` is a choice of the backend `triton`, not of `torch`"):
        nldsl.compile("stdlib/memories/delta.nl", "DeltaNet", keep_states=False, dk=4, dv=4)
