"""A program with kernels against the same program in its sequential form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nldsl.api import load_program
from nldsl.backends.torch.backend import TorchBackend
from nldsl.backends.triton.generate import Choices
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.ir.program import Program
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.plan import plan
from nldsl.runtime.initialize import initialize
from nldsl.runtime.module import Module

KEYS = frozenset({"k", "erase_key"})
GATES = frozenset("keep rate erase write beta low max_rate".split())


@dataclass
class Run:
    values: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


def program(path: str, entry: str, **dims: Any) -> Program:
    return load_program(f"stdlib/{path}", entry, **dims)


def kernels_of(
    source: Program,
    choices: Choices | None = None,
    size: int | None = None,
    capability: int | None = None,
    keep_states: bool | None = None,
) -> Module:
    """The module whose loops are kernels, all of them, made for GPUs of ``sm_<capability>``."""
    options = ChunkOptions(size=size) if size else None
    writer = LoopKernelWriter(required=True, choices=choices, capability=capability, keep_states=keep_states)
    backend = TorchBackend("triton", kernels=writer)
    planned = plan(source, options=options)
    return Module(source, backend.load(backend.emit(planned), planned), initialize(source, 0))


def ticks_of(source: Program) -> Module:
    """The module that runs tick by tick."""
    backend = TorchBackend()
    planned = plan(source, {"chunk"})
    return Module(source, backend.load(backend.emit(planned), planned), initialize(source, 0))


def inputs_of(source: Program, batch: int, ticks: int, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Random streams: gates between 0 and 1, keys of length at most 1."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for declared in source.inputs:
        shape = [int(str(s)) for s in declared.type.shape]
        x = 0.5 * torch.randn(batch, ticks, *shape, generator=generator, dtype=torch.float64)
        if declared.name in GATES:
            x = torch.sigmoid(x)
        elif declared.name in KEYS:
            x = torch.nn.functional.normalize(x, dim=-1)
        found[declared.name] = x.to(dtype)
    return found


def run(
    module: Module, inputs: dict[str, Tensor], calls: tuple[int, ...] = (), cotangents: torch.dtype = torch.float64
) -> Run:
    """Outputs and final states, and the gradients of a fixed random projection of them: by numbers that the type
    ``cotangents`` has, for a module gets its cotangents in its own type."""
    given = {name: x.clone().requires_grad_() for name, x in inputs.items()}
    batch, ticks = next(iter(inputs.values())).shape[:2]
    state, parts, at = module.init_state(batch), [], 0
    for count in calls or (ticks,):
        y, state = module(**{n: x[:, at : at + count] for n, x in given.items()}, state=state)
        parts.append(y if isinstance(y, dict) else {"y": y})
        at += count
    values = {name: torch.cat([p[name] for p in parts], 1) for name in parts[0]}
    values |= {f"state {n}": s for n, s in state.states.items() if s.is_floating_point()}
    generator = torch.Generator().manual_seed(1)
    weights = {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in values.items()}
    weights = {n: w.to(cotangents).double() for n, w in weights.items()}
    loss = torch.stack([(v.double() * weights[n]).sum() for n, v in values.items()]).sum()
    wanted = {**given, **dict(module.named_parameters())}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    return Run(values, dict(zip(wanted, found, strict=True)))


def largest_error(expected: Run, found: Run) -> float:
    """The largest difference, relative to the largest entry (or 1)."""
    worst = 0.0
    pairs = [(v, found.values[n]) for n, v in expected.values.items()]
    for name, gradient in expected.gradients.items():
        other = found.gradients[name]
        if gradient is None or other is None:
            assert gradient is None or not gradient.any(), name
            assert other is None or not other.any(), name
            continue
        pairs.append((gradient, other))
    for want, got in pairs:
        assert torch.isfinite(got).all()
        scale = want.abs().max().clamp_min(1.0)
        worst = max(worst, float(((got.double() - want.double()).abs() / scale).max().detach()))
    return worst


def relative_rms(expected: Tensor, found: Tensor) -> float:
    wide = expected.detach().double()
    return float((wide - found.detach().double()).square().mean().sqrt() / wide.square().mean().sqrt())


def low_errors(
    source: Program,
    ticks: int,
    dtype: torch.dtype = torch.bfloat16,
    keep_states: bool | None = None,
    draws: int = 1,
    same_cotangents: bool = False,
) -> dict[str, float]:
    """Relative root mean square errors of a module in a type: outputs, states, gradients. Of the same numbers:
    parameters are rounded on both sides, as inputs are, and with ``same_cotangents`` these too, which the reference
    else gets as they are drawn. Over several ``draws`` of the inputs together: the gradient of a parameter that is one
    number is a sum that may cancel in any one of them."""
    given = dtype if same_cotangents else torch.float64
    reference, module = ticks_of(source).to(dtype).double(), kernels_of(source, keep_states=keep_states).to(dtype)
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for seed in range(draws):
        inputs = inputs_of(source, 1, ticks, dtype, seed)
        expected = run(reference, {n: x.double() for n, x in inputs.items()}, cotangents=given)
        found = run(module, inputs, cotangents=given)
        for name, value in expected.values.items():
            pairs.setdefault(name, []).append((value, found.values[name]))
        for name, gradient in expected.gradients.items():
            got = found.gradients[name]
            if gradient is None:  # of a parameter that only another method reads
                assert got is None or not got.any(), name
                continue
            assert got is not None, name
            pairs.setdefault(f"gradient of {name}", []).append((gradient, got))
    return {n: relative_rms(torch.stack([x for x, _ in p]), torch.stack([y for _, y in p])) for n, p in pairs.items()}
