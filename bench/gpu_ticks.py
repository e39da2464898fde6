"""Rows of ``bench.gpu`` for single ticks (``module.step``) and for a loop over ticks.

Decoding: milliseconds a token of a step by kernels, captured in a CUDA graph too, of the step in eager PyTorch, and of
fla's recurrent kernels where fla is installed. Loops: one that no algebra makes parallel, forward and forward+backward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
STEPS = ((1, 1, 16, 128), (64, 1, 16, 128))
LOOP = (8, 512, 16, 64)
SQUASHED = """
memory Squashed(d: dim) {
  state S: [d, d] = 0
  step(q: [d], k: [d], v: [d], keep: []) -> [d] {
    S <- keep * S - outer(tanh(S @ k) - v, k)
    return S @ q
  }
}
block Mixer_Squashed(q: [heads, d], k: [heads, d], v: [heads, d], keep: [heads], heads: dim, d: dim) {
  memory m: heads of Squashed(d)
  return m.step(q, k, v, keep)
}
"""


def at_tick(x: Tensors, tick: int = 0) -> Tensors:
    """One tick of streams [batch, time, ..]."""
    return {name: value[:, tick].detach().contiguous() for name, value in x.items()}


@torch.no_grad()
def step_error(module: Any, written: Any, x: Tensors, ticks: int) -> float:
    """The largest relative difference between steps by kernels and one sequence of the torch backend."""
    want = written(**x)
    state, parts = module.init_state(want.shape[0]), []
    for tick in range(ticks):
        y, state = module.step(**at_tick(x, tick), state=state)
        parts.append(y)
    return float((torch.stack(parts, 1) - want[:, :ticks]).abs().max() / want.abs().max())


def steps(module: Any, written: Any, x: Tensors, device: str) -> dict[str, Callable[[], Any]]:
    """A step of a token, in each form."""
    now, batch = at_tick(x), next(iter(x.values())).shape[0]
    state, other = module.init_state(batch), written.init_state(batch)

    def ours() -> None:
        with torch.no_grad():
            module.step(**now, state=state)

    def eager() -> None:
        with torch.no_grad():
            written.step(**now, state=other)

    found: dict[str, Callable[[], Any]] = {"step, kernels": ours, "step, torch": eager}
    if device == "cuda":
        found["step, CUDA graph"] = captured(ours)
    return found


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """A replay of ``run`` from a CUDA graph."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def peer_step(entry: str, x: Tensors) -> Callable[[], Any] | None:
    """fla's recurrent kernel for one token, or None."""
    try:
        from fla.ops.delta_rule import fused_recurrent_delta_rule
        from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule
        from fla.ops.gla import fused_recurrent_gla
        from fla.ops.kda import fused_recurrent_kda
    except Exception:  # noqa: BLE001  fla fails to import in many ways where it does not fit
        return None
    given = {name: value.detach() for name, value in x.items()}
    q, k, v = given["q"], given["k"], given["v"]
    batch, _, heads, d = q.shape
    known: dict[str, Any] = {"scale": 1.0, "output_final_state": True}
    known["initial_state"] = torch.zeros(batch, heads, d, d, device=q.device)

    def gate() -> torch.Tensor:
        return given["keep"].float().log()

    table: Mapping[str, Callable[[], Any]] = {
        "Mixer_Delta": lambda: fused_recurrent_delta_rule(q, k, v, given["rate"], **known),
        "Mixer_GatedDelta": lambda: fused_recurrent_gated_delta_rule(q, k, v, g=gate(), beta=given["rate"], **known),
        "Mixer_Gla": lambda: fused_recurrent_gla(q, k, v, gk=gate(), **known),
        "Mixer_Kimi": lambda: fused_recurrent_kda(q, k, v, g=gate(), beta=given["rate"], **known),
    }
    return table.get(entry)
