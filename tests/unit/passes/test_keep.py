"""What the way back reads instead of computing it again: the cheapest cut, and values that are there when it reads."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from nldsl.api import load_program
from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.program import Program
from nldsl.passes import keep
from nldsl.passes.cost_schedule import Sizes
from nldsl.passes.cost_segment import segment_work
from nldsl.passes.keep import keeping
from nldsl.passes.min_cut import MinCut
from nldsl.passes.plan import plan

TEXT = """
memory Wide(d: dim) {
  state W: [d, d] = 0
  step(q: [d], k: [d], v: [d], rate: []) -> [d] every token {
    W <- W - rate * grad(0.5 * sum((W @ k - v)^2), W)
    return W @ q
  }
}
memory Slow(d: dim, period: int) {
  state W: [d, d] = 0
  step(q: [d], k: [d], v: [d]) -> [d] every token {
    g = outer(v, k)
    every period token {
      s = sum of g
      W <- W + tanh(s @ s) @ s
    }
    return W @ q
  }
}
"""


@pytest.mark.parametrize("seed", range(20))
def test_the_cheapest_of_all_cuts(seed: int) -> None:
    rng = random.Random(seed)
    count = 6
    cut = MinCut()
    for _ in range(count - 2):
        cut.node()
    edges = [(*rng.sample(range(count), 2), rng.randint(0, 9)) for _ in range(14)]
    for start, end, capacity in edges:
        cut.edge(start, end, capacity)
    side = cut.source_side()
    assert side[MinCut.SOURCE] and not side[MinCut.SINK]

    def cost(inside: tuple[bool, ...]) -> int:
        return sum(c for a, b, c in edges if inside[a] and not inside[b])

    choices = itertools.product([False, True], repeat=count - 2)
    assert cost(tuple(side)) == min(cost((True, False, *rest)) for rest in choices)


def derived(text: str, entry: str, **dims: int) -> tuple[Program, BackwardLoop]:
    program = load_program("keep.nl", entry, text=text, **dims)
    planned = plan(program, serial=True)
    (loop,) = [p for p in planned.all_phases() if isinstance(p, ChunkLoop)]
    back = planned.backward_of(loop)
    assert back is not None
    return program, back


def work(program: Program, loop: BackwardLoop) -> float:
    sizes = Sizes(program, {a.name: a.size for a in loop.loop.lanes}, loop.loop.size)
    found = segment_work(loop.body, [v for _, v in (*loop.carry, *loop.outputs, *loop.sums)], sizes)
    assert found is not None
    return found


def test_what_is_kept_is_dear_and_what_is_cheap_is_not() -> None:
    program, back = derived(TEXT, "Wide", d=256)
    found = keeping(back, program)
    assert found is not None
    entries = 0
    for kept in found.loop.kept:
        assert found.loop.body[kept.inside].type == kept.type
        size = Sizes(program, {}, found.loop.size).entries(kept.type)
        assert isinstance(size, int)
        entries += size
    assert work(program, back) - work(program, found) >= keep.KEPT * entries
    small, thin = derived(TEXT, "Wide", d=8)
    assert keeping(thin, small) is None


def test_only_what_is_read_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "KEPT", 0.01)
    program, back = derived(TEXT, "Wide", d=8)
    found = keeping(back, program)
    assert found is not None
    roots = [v for _, v in (*found.carry, *found.outputs, *found.sums)]
    live = [found.body[v] for v in reachable(found.body, roots)]
    assert {i.attr("value") for i in live if i.op == "kept"} == {k.value for k in found.loop.kept}
    again = {found.body[v].op for v, _ in found.forward if found.body[v].args}
    assert "solve_triangular" not in again


def test_of_a_slow_clock_what_all_readers_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is computed only when the clock fires is kept only if everything that reads it waits for that."""
    monkeypatch.setattr(keep, "KEPT", 0.01)
    program, back = derived(TEXT, "Slow", d=8, period=4)
    found = keeping(back, program)
    assert found is not None
    guards = {k.value: found.loop.body[k.inside].guard for k in found.loop.kept}
    assert any(guards.values())
    for value, guard in guards.items():
        leaf = next(v for v, i in enumerate(found.body) if i.op == "kept" and i.attr("value") == value)
        for user in (i for i in found.body if leaf in i.args):
            assert guard is None or user.guard == guard or user.op == "when"
    bare = replace(back, body=tuple(replace(i, guard=None) for i in back.body))
    others = keeping(bare, program)
    assert others is None or all(others.loop.body[k.inside].guard is None for k in others.loop.kept)
