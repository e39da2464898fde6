"""``module.step`` by kernels, tick by tick: the same outputs and states as the sequence form and the torch backend."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nldsl.api import load_program
from nldsl.backends.triton import decode
from nldsl.ir.program import Program
from nldsl.runtime.build import build_module
from nldsl.runtime.module import Module
from tests.triton.compare import inputs_of, program

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore::nldsl.backends.triton.provider.BackendRemark"
)
FILE = Path(__file__).parent / "ticks.nl"


def named(outputs: Any) -> dict[str, Tensor]:
    return outputs if isinstance(outputs, dict) else {"y": outputs}


def step_of(module: Module) -> Any:
    emitted: Any = module.emitted
    return emitted.tick


def random_inputs(source: Program, batch: int, ticks: int) -> dict[str, Tensor]:
    if all(d.type.kind == "real" for d in source.inputs):
        return inputs_of(source, batch, ticks, torch.float64)
    generator = torch.Generator().manual_seed(0)
    return {d.name: torch.randint(0, 7, (batch, ticks), generator=generator) for d in source.inputs if not d.ahead}


def check(source: Program, ticks: int = 9, begin: int = 2, batch: int = 2, kernels: int = 1) -> Module:
    """A sequence of ``begin`` ticks, then steps; each against the torch backend, and all against one sequence."""
    module, written = build_module(source, "triton").double(), build_module(source, "torch").double()
    inputs = random_inputs(source, batch, ticks)
    step = step_of(module)
    assert isinstance(step, decode.DecodeStep)
    with torch.no_grad():
        whole, end = written(**inputs, state=written.init_state(batch))
        first, state = written(**{n: x[:, :begin] for n, x in inputs.items()}, state=written.init_state(batch))
        parts = {n: [y] for n, y in named(first).items()}
        for t in range(begin, ticks):
            y, state = module.step(**{n: x[:, t] for n, x in inputs.items()}, state=state)
            for name, value in named(y).items():
                parts[name].append(value.unsqueeze(1))
    assert len(step.loaded) == 1, "the step was not the one of the kernels"
    assert len(re.findall(r"^def \w+_tick\(", step.loaded[0].source, re.MULTILINE)) == kernels
    for name, value in named(whole).items():
        torch.testing.assert_close(torch.cat(parts[name], 1), value, rtol=0, atol=1e-10)
    assert state.tick == end.tick
    for name, value in end.states.items():
        torch.testing.assert_close(state.states[name], value, rtol=0, atol=1e-10)
    return module


@pytest.mark.parametrize(
    ("path", "entry", "dims"),
    [
        ("memories/linear_attention.nl", "LinearAttention", {"dk": 4, "dv": 3}),
        ("memories/delta.nl", "GatedDelta", {"dk": 4, "dv": 3}),
        ("memories/low_rank.nl", "RWKV7", {"dk": 4, "dv": 3}),
        ("memories/ttt.nl", "TTTLinear", {"d": 4}),
    ],
)
def test_memories(path: str, entry: str, dims: dict[str, int]) -> None:
    check(program(path, entry, **dims))


@pytest.mark.parametrize("entry", ["Lstm", "Clocks", "Anchored"])
def test_nonlinear_states_clocks_anchors_resets(entry: str) -> None:
    check(load_program(FILE, entry, d=3), ticks=14, begin=0 + 1)


def test_a_hope_like_block() -> None:
    dims: dict[str, Any] = {"vocab": 8, "d": 8, "heads": 2, "layers": 1, "hidden": 4, "cms_hidden": 6}
    check(load_program("stdlib/models/hope.nl", "HopeLM", **dims), ticks=6, kernels=2)


BLOCK = """
memory Normed(d: dim) {
  state S: [d, d] = 0
  step(q: [d], k: [d], v: [d], rate: []) -> [d] {
    x = unit(k)
    S <- S - sigmoid(rate) * outer(S @ x - v, x)
    y = S @ q
    return y * rsqrt(mean(y^2) + 0.001)
  }
}

block Mixer(x: [n], n: dim, heads: dim, d: dim) {
  param Wq, Wk, Wv, Wo: [heads * d, n] = normal(0.3)
  param Wr: [heads, n] = normal(0.3)
  memory m: heads of Normed(d)
  y = m.step(reshape(Wq @ x, [heads, d]), reshape(Wk @ x, [heads, d]), reshape(Wv @ x, [heads, d]), Wr @ x)
  return reshape(y, [heads * d]) @ Wo
}
"""


def test_what_each_head_does_for_itself_is_in_the_kernel() -> None:
    """Norms and gates around the memory; the dense products between are those of PyTorch."""
    module = check(load_program("mixer.nl", "Mixer", text=BLOCK, n=6, heads=2, d=3))
    source = step_of(module).loaded[0].source
    lines = source[source.index("def forward(") : source.index("def step(")].splitlines()
    forward = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    assert forward.count(" @ ") == 5
    assert not any(word in forward for word in ("sigmoid", "rsqrt", "sqrt", "sum(", "mean("))


def test_other_calls_take_the_usual_way() -> None:
    source = program("memories/linear_attention.nl", "LinearAttention", dk=4, dv=3)
    module = build_module(source, "triton")
    x = {n: v[:, 0] for n, v in inputs_of(source, 2, 1, torch.float32).items()}
    y, _ = module.step(**x, state=module.init_state(2))  # gradients may be wanted
    assert not step_of(module).loaded
    with torch.no_grad():
        other, after = module.step(**x, state=module.init_state(2))
        assert step_of(module).loaded
        torch.testing.assert_close(other, y)
        with pytest.raises(Exception, match="is \\[batch"):
            module.step(**{n: v[:, :1] for n, v in x.items()}, state=after)


def test_a_loop_that_reads_what_follows_another_one() -> None:
    """The second loop needs a value after the first one, which that one has taken over."""
    text = """
    memory Two(d: dim) {
      state n, z: [d] = 0
      step(x: [d]) -> [d] {
        new = sqrt(n^2 + x^2 + 0.1)
        z <- z + x - (new - n) * x
        n <- new
        return z / (new + 1)
      }
    }
    """
    check(load_program("two.nl", "Two", text=text, d=3), kernels=2)
