"""Single ticks (``module.step``) and a loop over ticks.

Decoding: milliseconds a token of a step by kernels, captured in a CUDA graph too, of the step in eager PyTorch, and of
fla's recurrent kernels where fla is installed. Loops: one that no algebra makes parallel, forward and forward+backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch

import nldsl
from bench.gpu.measure import Machine, Row, Shape, Tensors, called, inputs_of, largest_error, measure, said, timed
from bench.gpu.sequence import compiled

STEPS: tuple[Shape, ...] = ((1, 1, 16, 128), (64, 1, 16, 128))
TINY_STEPS: tuple[Shape, ...] = ((1, 3, 1, 16),)
LOOP: Shape = (8, 512, 16, 64)
TINY_LOOP: Shape = (1, 9, 1, 16)
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


def step_modules(entry: str, shape: Shape, machine: Machine) -> tuple[Any, Any]:
    """The module with kernels, and that of the torch backend."""
    ours = compiled(entry, shape, backend="triton").to(machine.device)
    return ours, compiled(entry, shape).to(machine.device)


def check_steps(entry: str, machine: Machine) -> float:
    """``step_error`` of a program at the width that is timed, in float32."""
    shape = STEPS[0] if machine.real else TINY_STEPS[0]
    ours, plain = step_modules(entry, shape, machine)
    x = inputs_of(ours, (2, 3, *shape[2:]), torch.float32, machine.device, torch.float32)
    return step_error(ours, plain, x, 3)


def step_rows(entry: str, shape: Shape, machine: Machine) -> Iterator[Row]:
    """Milliseconds a token of ``module.step``."""
    if machine.real and machine.budget.left < 20:
        yield Row(entry, shape, "step", note="left out: no time")
        return
    ours, plain = step_modules(entry, shape, machine)
    x = inputs_of(ours, shape, machine.low, machine.device, machine.low)
    runs = steps(ours.to(machine.low), plain.to(machine.low), x, machine.device)
    theirs = peer_step(entry, x) if machine.real else None
    for what, run in (runs | ({"step, fla": theirs} if theirs else {})).items():
        row = Row(entry, shape, what)
        try:
            row.forward = timed(run, machine.device, 0.5)
        except Exception as problem:  # noqa: BLE001  a table is worth more than its weakest row
            row.note = said(problem)
        yield row


def loops(shape: Shape) -> dict[str, Any]:
    """A loop that no algebra makes parallel, by kernels and tick by tick in PyTorch."""
    dims: dict[str, Any] = {"text": SQUASHED, "heads": shape[2], "d": shape[3]}
    return {
        "ticks, kernels": nldsl.compile("ticks.nl", "Mixer_Squashed", backend="triton", require_backend=True, **dims),
        "ticks, torch": nldsl.compile("ticks.nl", "Mixer_Squashed", **dims),
    }


def check_loop(machine: Machine) -> float:
    """The largest relative difference of values and gradients, in float32."""
    shape = LOOP if machine.real else TINY_LOOP
    found = []
    for module in loops(shape).values():
        x = inputs_of(module.to(machine.device), (2, 20, *shape[2:]), torch.float32, machine.device, torch.float32)
        y = module(**x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(x.values()))])
    return largest_error(*found)


def loop_rows(machine: Machine) -> Iterator[tuple[Row, Row]]:
    """Each row with the one that ratios refer to."""
    shape = LOOP if machine.real else TINY_LOOP
    base: Row | None = None
    for what, module in loops(shape).items():
        row = Row("Mixer_Squashed", shape, what)
        base = base or row
        if machine.real and machine.budget.left < 20:
            row.note = "left out: no time"
        else:
            x = inputs_of(module.to(machine.device, machine.low), shape, machine.low, machine.device, machine.low)
            measure(row, partial(called, module), x, machine.device, 1.0)
        yield row, base
