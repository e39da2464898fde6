"""Packed sequences go into kernels as they are: as a loop over the sequences, without gathering rows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.api import load_program
from nldsl.ir.program import Program
from nldsl.runtime.module import Module
from nldsl.runtime.ragged import Ragged
from nldsl.standalone import Request
from nldsl.verify.sizes import load_small
from tests.triton.compare import inputs_of, kernels_of, program, ticks_of

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy, about padding that nothing uses
STDLIB = Path(__file__).parents[2] / "stdlib"
CUTS = [0, 5, 5, 8, 19]  # one of them is empty


@pytest.fixture(autouse=True)
def _nothing_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(self: Ragged, stream: Tensor) -> Tensor:
        raise AssertionError("rows are gathered")

    monkeypatch.setattr(Ragged, "gather", gather)


def gradients(values: dict[str, Tensor], wanted: list[Tensor]) -> list[Tensor | None]:
    """Of a fixed random projection."""
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for value in values.values():
        total = total + (value.double() * torch.randn(value.shape, generator=generator, dtype=torch.float64)).sum()
    return list(torch.autograd.grad(total, wanted, allow_unused=True))


def named(outputs: Any) -> dict[str, Tensor]:
    return outputs if isinstance(outputs, dict) else {"y": outputs}


def one_by_one(module: Module, inputs: dict[str, Tensor], states: Any, cuts: list[int]) -> dict[str, Tensor]:
    """A loop over the sequences: outputs, and the states after each."""
    parts: dict[str, list[Tensor]] = {}
    after: dict[str, Tensor] = {}
    for n, (begin, end) in enumerate(pairwise(cuts)):
        state = states[n]
        if begin < end:
            y, state = module(**{k: x[:, begin:end] for k, x in inputs.items()}, state=state)
            for name, value in named(y).items():
                parts.setdefault(name, []).append(value)
        after |= {f"{n} {k}": x for k, x in state.states.items() if x.is_floating_point()}
        after[f"{n} tick"] = torch.tensor(float(state.tick))
    return {name: torch.cat(values, 1) for name, values in parts.items()} | after


def packed(module: Module, inputs: dict[str, Tensor], states: Any, cuts: Any) -> dict[str, Tensor]:
    y, after = module(**inputs, state=states, cu_seqlens=cuts)
    found = dict(named(y))
    for n, state in enumerate(after):
        found |= {f"{n} {k}": x for k, x in state.states.items() if x.is_floating_point()}
        found[f"{n} tick"] = torch.tensor(float(state.tick))
    return found


def check(source: Program, cuts: Any = tuple(CUTS), dtype: torch.dtype = torch.float64, bound: float = 1e-10) -> None:
    """Outputs, states after each sequence, gradients of inputs, parameters and initial states."""
    ends = [int(n) for n in cuts]
    inputs = inputs_of(source, 1, ends[-1], dtype)
    results = []
    for module, run in ((ticks_of(source).double(), one_by_one), (kernels_of(source).to(dtype), packed)):
        wide = torch.float64 if run is one_by_one else dtype
        given = {n: x.to(wide).requires_grad_() for n, x in inputs.items()}
        generator = torch.Generator().manual_seed(2)
        states = [module.init_state(1) for _ in ends[1:]]
        starts = []
        for state in states:
            for name, x in state.states.items():
                more = 0.1 * torch.randn(x.shape, generator=generator, dtype=torch.float64)
                state.states[name] = (x.detach() + more.to(dtype).to(wide)).requires_grad_()
                starts.append(state.states[name])
        values = run(module, given, states, ends if run is one_by_one else cuts)
        results.append((values, gradients(values, [*given.values(), *module.parameters(), *starts])))
    (expected, gradient), (found, other) = results
    assert expected.keys() == found.keys()
    pairs = [(expected[n], found[n]) for n in expected]
    for a, b in zip(gradient, other, strict=True):
        assert a is None or b is not None or not a.any()
        if b is not None:
            pairs.append((torch.zeros_like(b) if a is None else a, b))
    for want, got in pairs:
        error = (got.detach().double() - want.detach().double()).abs()
        assert float(error.max() / want.detach().abs().max().clamp_min(1.0)) < bound


def test_a_memory() -> None:
    check(program("memories/delta.nl", "GatedDelta", dk=4, dv=3))


def test_clocks_begin_with_each_sequence() -> None:
    """Segments of the memory, and numbers of ticks outside of it, count from the beginning of a sequence."""
    check(program("memories/ttt.nl", "TTTLinear", d=4, chunk=4), torch.tensor(CUTS))


def test_a_loss_looks_ahead_within_a_sequence() -> None:
    """The last tick of a sequence, whose next value is not there, does not count."""
    source = load_program(Path(__file__).parents[1] / "integration" / "small.nl", "Small", vocab=7, d=4)
    module, ticks = kernels_of(source).double(), ticks_of(source).double()
    tokens = torch.randint(0, 7, (1, CUTS[-1]), generator=torch.Generator().manual_seed(1))
    pairs = [(b, e) for b, e in pairwise(CUTS) if e - b > 1]
    parts = [ticks.loss(tokens[:, b:e])[0] * (e - b - 1) for b, e in pairs]
    wanted = torch.stack(parts).sum() / sum(e - b - 1 for b, e in pairs)
    found, _ = module.loss(tokens, cu_seqlens=CUTS)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    expected = torch.autograd.grad(wanted, list(ticks.parameters()))
    for got, want in zip(torch.autograd.grad(found, list(module.parameters())), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_tables_follow_the_numbers() -> None:
    """The same tensor with other numbers in it is another packing."""
    module = kernels_of(program("memories/linear_attention.nl", "LinearAttention", dk=4, dv=3))
    inputs = inputs_of(module.program, 1, 6, torch.float32)
    cuts = torch.tensor([0, 2, 6])
    first = module(**inputs, cu_seqlens=cuts)
    cuts[1] = 5
    second = module(**inputs, cu_seqlens=cuts)
    torch.testing.assert_close(second, module(**inputs, cu_seqlens=[0, 5, 6]), rtol=0, atol=0)
    assert not torch.equal(first, second)


def test_without_a_break() -> None:
    module = kernels_of(program("memories/linear_attention.nl", "LinearAttention", dk=4, dv=3))
    inputs = inputs_of(module.program, 1, 6, torch.float32)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**inputs, cu_seqlens=[0, 2, 6]), module(**inputs, cu_seqlens=[0, 2, 6]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("blocks/mamba2", "Mamba2Layer"),  # values of the ticks before
        ("memories/delta", "KimiDelta"),
        ("memories/titans", "TitansLinear"),
        ("memories/rwkv4", "RWKV4"),  # two loops
        ("memories/lact", "LaCT"),
        ("memories/tnt", "TNT"),  # states that are reset within the sequence
        ("memories/mesa", "Mesa"),
    ],
)
def test_other_programs(file: str, entry: str) -> None:
    check(load_small(Request(STDLIB / f"{file}.nl", entry)).program, tuple(3 * n for n in CUTS))


@pytest.mark.slow
def test_single_precision() -> None:
    source = program("memories/delta.nl", "GatedDelta", dk=8, dv=8)
    check(source, (0, 40, 140), torch.float32, 1e-5)
