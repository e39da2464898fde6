"""What nothing can read is not computed; what is only logged is not differentiated."""

from __future__ import annotations

import torch

import nldsl
from nldsl.api import load_program
from nldsl.ir.chunk import ChunkLoop
from nldsl.passes.plan import plan

MEMORY = """
memory Delta(d: dim) {
  state M: [d, d] = 0
  read(q: [d]) -> [d] = M @ q
  learn(k: [d], v: [d], rate: []) every token {
    M <- M - rate * grad(0.5 * sum((read(k) - v)^2), M)
  }
  step(q: [d], k: [d], v: [d], rate: []) -> [d] {
    learn(k, v, rate)
    return read(q)
  }
}
"""
TRAINED = (
    MEMORY
    + """
model Reader {
  input x: [4]
  level step
  param w: [4, 4] = normal(0.3)
  memory m: Delta(4)
  y = m.step(w @ x, w @ x, x, 0.5)
  minimize sum((y - next(x))^2) at step
}
"""
)


def loops(text: str, entry: str, **dims: int) -> tuple[object, list[ChunkLoop]]:
    planned = plan(load_program("m.nl", entry, text=text, **dims))
    return planned, [p for p in planned.all_phases() if isinstance(p, ChunkLoop)]


def test_a_memory_without_minimize_does_not_compute_its_inner_loss() -> None:
    assert dict(load_program("m.nl", "Delta", text=MEMORY, d=4).probes)  # the program has one
    planned, (loop,) = loops(MEMORY, "Delta", d=4)
    assert len(loop.outputs) == 1
    assert not planned.program.probes  # type: ignore[attr-defined]


def test_where_probes_can_be_read_they_are_computed_but_not_differentiated() -> None:
    planned, (loop,) = loops(TRAINED, "Reader")
    assert len(loop.outputs) == 2
    (derived,) = planned.backwards  # type: ignore[attr-defined]
    read = {i.attr("value") for i in derived.body if i.op == "cotangent_of"}
    assert len(read) == 1 and read < {v for v, _ in loop.outputs}


def test_gradients_are_those_of_the_loop_over_ticks() -> None:
    found = []
    x = torch.randn(2, 70, 4, dtype=torch.float64)
    for disabled in (frozenset[str](), frozenset({"chunk"})):
        module = nldsl.compile("m.nl", "Reader", text=TRAINED, backend="torch", disabled=disabled).double()
        loss, info = module.loss(x)
        assert not info["probes"]["m.loss"].requires_grad
        found.append((loss, info["probes"]["m.loss"], *torch.autograd.grad(loss, list(module.parameters()))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
