"""Memories that no paper has: the class that their algebra gives, what prevents a better one, the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nldsl.api import compile as compile_program
from nldsl.driver import Options, front, middle
from nldsl.explain.loops import Recurrence, loops_of, plan_of
from nldsl.ir.chunk import ChunkLoop
from nldsl.passes.choose_chunk import largest
from nldsl.passes.plan import plan

FILE = Path(__file__).parent / "novel_loops.nl"
PARALLEL = {
    "ValueGate": "diagonal decay (value side) + rank 1",
    "TwoSided": "general affine",
    "LeftMap": "general affine",
    "Coupled": "scalar decay + rank 2",
    "Chain": "4 stacked states, scalar decay + rank 1",
    "Product": "general affine",
    "Omega2": "window of 10 ticks, general affine",
    "SecondAnchored": "anchored nonlinear: scalar decay",
    "Attends": "window of 12 ticks",
    "Adapted": "scalar decay",
    "LookAhead": "2 stacked states, scalar decay + rank 1",
    "Rotor": "2 stacked states, diagonal decay",
    "Channels": "diagonal decay",
    "Mean": "scalar decay",
    "Pairs": "no decay + rank 1",
    "TakeOver": "anchored linear: no decay + rank 1",
    "Batch": "no decay + rank 3",
    "Recent": "no decay + rank 3",
    "Between": "scalar decay + rank 1",
    "BetweenChannels": "diagonal decay (key side) + rank 1",
    "TwoErrors": "scalar decay + rank 2",
}
DECAYED = ("Between", "BetweenChannels", "TwoErrors")  # what is read behind a decay: more than one segment
SEQUENTIAL = {  # the text that the span covers, the class, what is said
    "TwoSidedLarge": ("A @ S @ B + outer(v, k)", "general affine", "full linear map"),
    "Normalized": ("S^2", "nonlinear", "a product of two values that depend on the state"),
    "Tanh": ("tanh(S @ k)", "nonlinear", "tanh is not linear"),
    "Gated": ("sigmoid(sum(S @ k * v))", "nonlinear", "sigmoid is not linear"),
    "Squared": ("S @ k * (S @ q)", "nonlinear", "a product of two values that depend on the state"),
    "Clipped": ("g^2", "nonlinear", "a product of two values that depend on the state"),
    "BothSides": ("S @ k - v", "affine", "both sides"),
    "Second": ("g^2", "nonlinear", "a product of two values that depend on the state"),
}


def recurrences(name: str) -> list[Recurrence]:
    planned = plan_of(middle(front(FILE, Options(name)), Options()))
    assert planned is not None
    return [loop.recurrence for loop in loops_of(planned) if loop.recurrence is not None]


@pytest.mark.parametrize("name", PARALLEL)
def test_the_class(name: str) -> None:
    found = recurrences(name)
    assert PARALLEL[name] in [r.kind for r in found]
    assert all(not r.hint for r in found)


@pytest.mark.parametrize("name", ["Mean", "Channels"])
def test_no_tensor_of_a_segment_is_larger_than_it_must_be(name: str) -> None:
    """A divided outer product stays two factors; states that are read as they are come from a scan, not a table."""
    planned = plan(middle(front(FILE, Options(name, (("d", 32),))), Options()))
    (loop,) = (p for p in planned.phases if isinstance(p, ChunkLoop))
    assert largest(loop, 64) <= 64 * 64


@pytest.mark.parametrize("name", DECAYED)
def test_a_read_behind_the_decay_needs_no_table_of_its_own(name: str) -> None:
    """The products of decays to the end of the tick serve both reads: no table and no scan is moved by a tick."""
    planned = plan(middle(front(FILE, Options(name)), Options()))
    (loop,) = (p for p in planned.phases if isinstance(p, ChunkLoop))
    moved = [
        i for i in loop.body if i.op == "pad" or (i.op == "cumprod" and i.attr("exclusive") and not i.attr("reverse"))
    ]
    assert not moved
    assert sum(i.op == "segprod" for i in loop.body) <= 1


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_what_prevents_it(name: str) -> None:
    text, kind, why = SEQUENTIAL[name]
    (found,) = recurrences(name)
    assert found.kind == kind
    assert why in found.why
    lines = FILE.read_text().splitlines()
    line, column = found.span.line, found.span.column
    assert lines[line - 1][column - 1 :].startswith(text)
    assert found.hint


@pytest.mark.parametrize("name", PARALLEL)
def test_the_same_numbers_without_segments(name: str) -> None:
    modules = [compile_program(FILE, name, disabled=d).double() for d in (frozenset(), frozenset(("chunk",)))]
    gen = torch.Generator().manual_seed(0)
    inputs = {}
    for declared in modules[0].program.inputs:
        shape = (2, 70 if name in DECAYED else 21, *(int(str(s)) for s in declared.type.shape))
        x = torch.randn(shape, generator=gen, dtype=torch.float64) * 0.3
        inputs[declared.name] = (x if declared.type.shape else torch.sigmoid(x)).requires_grad_()
    ys = [m(**inputs) for m in modules]
    torch.testing.assert_close(ys[0], ys[1], rtol=1e-9, atol=1e-9)
    weights = torch.randn(ys[0].shape, generator=gen, dtype=torch.float64)
    grads = [
        torch.autograd.grad((y * weights).sum(), list(inputs.values()), allow_unused=True, materialize_grads=True)
        for y in ys
    ]
    for got, want in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)
