"""The torch backend against the reference interpreter: values, gradients, cuts of a sequence, single ticks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nldsl.backends.reference.gradients import Gradients, gradients
from nldsl.ir.program import Program
from nldsl.runtime.build import build_module
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module
from nldsl.runtime.state import State

Array = NDArray[Any]


@dataclass
class Pair:
    """A program's module in float64, and random data: inputs [batch, ticks, ..] and weights of what comes out."""

    program: Program
    module: Module
    params: dict[str, Array]
    inputs: dict[str, Array]
    ticks: int

    @property
    def time(self) -> int:
        return 1 if self.module.streams.batched else 0

    def tensors(self, names: tuple[str, ...] | None = None) -> dict[str, torch.Tensor]:
        return {n: torch.tensor(x) for n, x in self.inputs.items() if names is None or n in names}


def pair(program: Program, ticks: int = 7, batch: int = 2, seed: int = 1, module: Module | None = None) -> Pair:
    random = np.random.default_rng(seed)
    module = (module or build_module(program, "torch", seed)).double()
    params = initialize(program, seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(params[name]))
    time = 1 if module.streams.batched else 0
    long: dict[str, Array] = {}
    for declared in program.inputs:
        shape = (batch,) * time + (ticks + 1, *(int(str(n)) for n in declared.type.shape))
        if declared.type.kind == "int":
            long[declared.name] = random.integers(0, module.streams.limits.get(declared.name, 4), shape)
        else:
            long[declared.name] = 0.7 * random.standard_normal(shape)
    inputs = {n: np.take(x, range(ticks), time) for n, x in long.items()}
    for declared in program.inputs:
        if declared.ahead:
            inputs[declared.name] = np.take(long[declared.source], range(1, ticks + 1), time)
    return Pair(program, module, params, inputs, ticks)


def difference(ours: torch.Tensor | None, theirs: Array) -> float:
    found = np.zeros_like(theirs) if ours is None else ours.detach().numpy()
    assert found.shape == theirs.shape, f"{found.shape} is not {theirs.shape}"
    return float(np.max(np.abs(found - theirs), initial=0.0)) / max(1.0, float(np.max(np.abs(theirs), initial=0.0)))


def against_reference(it: Pair) -> tuple[float, float]:
    """The largest difference of a value and of a gradient, each relative to the largest entry (at least 1)."""
    random = np.random.default_rng(2)
    module = it.module
    inputs = {n: x.requires_grad_(x.is_floating_point()) for n, x in it.tensors().items()}
    start = module._begin(inputs, None)
    outputs, losses, _, last = module._run(inputs, start)
    weights = [{n: random.standard_normal(y.shape) for n, y in found.items()} for found in (outputs, losses)]
    states = {n: random.standard_normal(last.states[n].shape) for n in (s.name for s in it.program.states)}
    expected: Gradients = gradients(it.program, it.params, it.inputs, weights[0], weights[1], states)

    value = max(
        [difference(outputs[n], y) for n, y in expected.outputs.items()]
        + [difference(losses[n], y) for n, y in expected.losses.items()]
        + [difference(last.states[n], expected.state[n]) for n in states]
    )
    total = torch.zeros((), dtype=torch.float64)
    for found, chosen in ((outputs, weights[0]), (losses, weights[1]), (last.states, states)):
        for name, weight in chosen.items():
            total = total + (torch.tensor(weight) * found[name]).sum()
    leaves = {n: x for n, x in {**inputs, **dict(module.named_parameters())}.items() if x.requires_grad}
    slopes: tuple[torch.Tensor | None, ...] = ()
    if total.requires_grad:
        slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    theirs = {**expected.inputs, **expected.params}
    slope = max((difference(s, theirs[n]) for n, s in zip(leaves, slopes, strict=False)), default=0.0)
    return value, slope


def cuts_agree(it: Pair, cuts: tuple[int, ...] = (1, 2)) -> float:
    """One call against several calls and against single ticks: the largest difference of an output or a state."""
    module, time = it.module, it.time
    given = it.tensors(tuple(d.name for d in module.streams.now))
    worst = 0.0
    with torch.no_grad():
        whole, end = module(**given, state=module.init_state(batch_of(it)))
        state, parts, at = module.init_state(batch_of(it)), [], 0
        for length in (*cuts, it.ticks - sum(cuts)):
            y, state = module(**{n: x.narrow(time, at, length) for n, x in given.items()}, state=state)
            parts.append(y)
            at += length
        worst = max(worst, _far(whole, _joined(parts, time, torch.cat)), _far_states(end, state))
        state, parts = module.init_state(batch_of(it)), []
        for t in range(it.ticks):
            y, state = module.step(**{n: x.select(time, t) for n, x in given.items()}, state=state)
            parts.append(y)
        return max(worst, _far(whole, _joined(parts, time, torch.stack)), _far_states(end, state))


def batch_of(it: Pair) -> int:
    return next(iter(it.inputs.values())).shape[0] if it.time and it.inputs else 1


def _joined(parts: list[Any], time: int, how: Any) -> Any:
    if isinstance(parts[0], dict):
        return {name: how([p[name] for p in parts], time) for name in parts[0]}
    return how(parts, time)


def _far(a: Any, b: Any) -> float:
    if isinstance(a, dict):
        return max((_far(a[name], b[name]) for name in a), default=0.0)
    assert a.shape == b.shape
    return float((a - b).abs().max() / a.abs().max().clamp(min=1.0))


def _far_states(a: State, b: State) -> float:
    assert a.tick == b.tick
    assert a.pending.keys() == b.pending.keys()
    return max((_far(a.states[name], b.states[name]) for name in a.states), default=0.0)
