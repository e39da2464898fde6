"""The derived backward pass of a segment equals autograd through the segment, leaf by leaf."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import BATCH, TIME, Type
from nldsl.passes.backward import backward
from nldsl.passes.choose_chunk import ChunkOptions, chunk
from nldsl.passes.schedule import schedule
from tests.numeric.chunk_programs import PROGRAMS
from tests.numeric.chunk_run import BATCH_SIZE
from tests.numeric.ir_torch import Evaluator, size
from tests.numeric.matrix_programs import MATRICES
from tests.numeric.window_programs import WINDOWS

TICKS = 6
Leaf = tuple[str, object, int]  # op, name or value, period
Result = tuple[object, ...]


def loops(program: Program, pack: bool = True, serial: bool = False) -> list[ChunkLoop]:
    found, _ = chunk(schedule(program), ChunkOptions(size=TICKS, pack=pack, serial=serial))
    return [p for p in found.all_phases() if isinstance(p, ChunkLoop)]


class Segment:
    """One segment with random leaves."""

    def __init__(self, program: Program, loop: ChunkLoop, fires: bool, ticks: int = TICKS) -> None:
        self.gen = torch.Generator().manual_seed(1)
        self.program, self.loop, self.ticks = program, loop, ticks
        self.fires = fires
        self.lengths = {BATCH: BATCH_SIZE, TIME: ticks}
        self.lengths |= {a.name: size(a.size, ticks) for a in (*program.axes, *loop.lanes) if a.size is not None}
        self.leaves: dict[Leaf, Tensor] = {}

    def random(self, type: Type) -> Tensor:
        shape = [self.lengths[a] for a in type.axes] + [size(s, self.ticks) for s in type.shape]
        return torch.randn(shape, generator=self.gen, dtype=torch.float64) * 0.5

    def leaf(self, instr: Instr) -> Tensor:
        attrs = dict(instr.attrs)
        if instr.op == "clock":
            return torch.arange(1.0, self.ticks + 1, dtype=torch.float64)
        if instr.op == "boundary":
            op = "anchor" if attrs["period"] else "state"
            key: Leaf = (op, attrs["state"], attrs["period"])
        else:
            key = (instr.op, attrs.get("state", attrs.get("value", attrs.get("param"))), attrs.get("period", 0))
        if key not in self.leaves:
            self.leaves[key] = self.random(instr.type).requires_grad_()
        return self.leaves[key]

    def evaluator(self, body: tuple[Instr, ...]) -> Evaluator:
        found = Evaluator(body, self.leaf, lambda _: self.fires, self.ticks)
        found.lengths = self.lengths
        return found

    def full(self, value: Tensor, type: Type, wanted: Type) -> Tensor:
        """A value with the axes and dims that it has outside."""
        shape = [1] * len(wanted.axes)
        for n, axis in enumerate(type.axes):
            shape[wanted.axes.index(axis)] = value.shape[n]
        missing = len(wanted.shape) - len(type.shape)
        value = value.reshape([*shape, *([1] * missing), *value.shape[len(type.axes) :]])
        return value.expand([self.lengths[a] for a in wanted.axes] + [size(s, self.ticks) for s in wanted.shape])


def assert_derived(program: Program, loop: ChunkLoop, derived: BackwardLoop, fires: bool, ticks: int) -> None:
    segment = Segment(program, loop, fires, ticks)
    forward, back = segment.evaluator(loop.body), segment.evaluator(derived.body)
    results = _results(derived)
    found = {key: back(v).detach() for key, v in results.items()}

    total = torch.zeros((), dtype=torch.float64)
    for leaf in [i for i in derived.body if i.op in ("cotangent", "cotangent_of")]:
        cotangent = segment.leaf(leaf).detach()
        if leaf.op == "cotangent_of":
            inside = dict(loop.outputs)[leaf.attr("value")]
        elif leaf.attr("period"):
            key = ("anchor", leaf.attr("state"), leaf.attr("period"))
            anchor = segment.leaves.setdefault(key, torch.zeros_like(cotangent).requires_grad_())
            total = total + (cotangent * anchor).sum()
            continue
        elif leaf.attr("state") not in dict(loop.carry):
            total = total + (cotangent * segment.leaves[("state", leaf.attr("state"), 0)]).sum()
            continue
        else:
            inside = dict(loop.carry)[leaf.attr("state")]
        total = total + (cotangent * segment.full(forward(inside), loop.body[inside].type, leaf.type)).sum()

    kinds = ("state", "anchor", "given", "param")
    checked = 0
    for (op, name, period), tensor in segment.leaves.items():
        if op not in kinds:
            continue
        (want,) = torch.autograd.grad(total, [tensor], retain_graph=True, allow_unused=True, materialize_grads=True)
        candidates: list[Result] = [("carry", name, period), ("stream", name), ("sum", op, name)]
        known = next((c for c in candidates if c in found), None)
        got = torch.zeros_like(tensor)
        if known is not None:
            type = next(i.type for i in (*derived.body, *loop.body) if i.op in (op, "boundary") and _name(i) == name)
            got = segment.full(found[known], derived.body[results[known]].type, type)
        assert (got - want).abs().max() <= 1e-10 + 1e-9 * want.abs().max(), (op, name, period)
        checked += 1
    assert checked


def _name(instr: Instr) -> object:
    attrs = dict(instr.attrs)
    return attrs.get("state", attrs.get("value", attrs.get("param")))


def _results(derived: BackwardLoop) -> dict[Result, int]:
    found: dict[Result, int] = {("carry", *key): v for key, v in derived.carry}
    found |= {("stream", key): v for key, v in derived.outputs}
    return found | {("sum", *leaf): v for leaf, v in derived.sums}


ALL = {**PROGRAMS, **WINDOWS, **MATRICES}


@pytest.mark.parametrize("name", ALL)
def test_every_leaf(name: str) -> None:
    program = ALL[name]()
    for pack, fires, ticks in ((True, True, TICKS), (False, False, 2)):
        for loop in loops(program, pack, serial=not pack):
            derived = backward(loop, program)
            assert derived is not None
            assert_derived(program, loop, derived, fires, ticks)
