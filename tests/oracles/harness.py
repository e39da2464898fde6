"""Compares a program, run by the reference interpreter, with an independent implementation in float64.

A ``Case`` names a program and its oracle: a function from torch tensors (inputs ``[batch, time, ...]`` and parameters)
to the outputs. Values are compared to 1e-10, gradients of a random weighting of the outputs to 1e-8.
"""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from nldsl.api import load_program
from nldsl.backends.reference import gradients
from nldsl.ir.program import Program
from nldsl.runtime.initialize import initialize

Array = NDArray[Any]
Tensors = dict[str, torch.Tensor]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

STDLIB = Path(__file__).parents[2] / "stdlib"
VALUES, GRADIENTS = 1e-10, 1e-8


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.standard_normal(shape)


def unit(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    x = random.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def between(low: float, high: float) -> Draw:
    return lambda random, shape: random.uniform(low, high, shape)


# What an input is drawn from, by its name in the program; anything else is normal.
DRAWS: dict[str, Draw] = {
    "k": unit,
    "rate": between(0.1, 0.9),
    "keep": between(0.3, 0.99),
    "beta": between(0.3, 0.9),
}


@dataclass(frozen=True)
class Case:
    """A program and what it is compared with."""

    file: str
    entry: str
    dims: Mapping[str, Any]
    oracle: Callable[[Tensors, Tensors], torch.Tensor | Tensors]
    against: str
    draws: Mapping[str, Draw] = field(default_factory=dict)
    batch: int = 2
    ticks: int = 7
    label: str = ""
    text: str = ""
    values: float = VALUES
    gradients: float | None = GRADIENTS  # None: the oracle cannot be differentiated

    @property
    def name(self) -> str:
        return f"{self.entry}{' ' + self.label if self.label else ''}"


@dataclass(frozen=True)
class Errors:
    values: float
    gradients: float | None


def program_of(case: Case) -> Program:
    path = STDLIB / f"{case.file}.nl"
    if case.text:
        return load_program(case.file, case.entry, text=case.text, **case.dims)
    return load_program(path, case.entry, **case.dims)


def measure(case: Case) -> Errors:
    """The largest differences, each relative to the largest entry of what it is compared with (at least 1)."""
    program = program_of(case)
    random = np.random.default_rng(zlib.crc32(case.name.encode()))
    inputs: dict[str, Array] = {}
    for declared in program.inputs:
        shape = (case.batch, case.ticks, *(int(n) for n in declared.type.shape))  # type: ignore[arg-type]
        draw = case.draws.get(declared.name) or DRAWS.get(declared.name, normal)
        inputs[declared.name] = draw(random, shape)
    params = initialize(program, 3)
    params = {n: p + 0.1 * random.standard_normal(p.shape) for n, p in params.items()}

    torch_inputs = {n: torch.tensor(x, requires_grad=x.dtype.kind == "f") for n, x in inputs.items()}
    torch_params = {n: torch.tensor(x, requires_grad=True) for n, x in params.items()}
    expected = case.oracle(torch_inputs, torch_params)
    if isinstance(expected, torch.Tensor):
        expected = {"y": expected}
    weights = {n: random.standard_normal(y.shape) for n, y in expected.items()}
    found = gradients(program, params, inputs, output_weights=weights)

    value_error = max(difference(found.outputs[n], y) for n, y in expected.items())
    if case.gradients is None:
        return Errors(value_error, None)
    loss = sum((torch.tensor(weights[n]) * y).sum() for n, y in expected.items())
    leaves = {n: x for n, x in {**torch_inputs, **torch_params}.items() if x.requires_grad}
    slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)  # type: ignore[arg-type]
    worst = 0.0
    for (name, leaf), slope in zip(leaves.items(), slopes, strict=True):
        ours = found.inputs[name] if name in torch_inputs else found.params[name]
        worst = max(worst, difference(ours, torch.zeros_like(leaf) if slope is None else slope))
    return Errors(value_error, worst)


def difference(ours: Array, theirs: torch.Tensor) -> float:
    other = theirs.detach().numpy()
    assert ours.shape == other.shape, f"shape {ours.shape}, the oracle has {other.shape}"
    error = float(np.max(np.abs(ours - other), initial=0.0))
    return error / max(1.0, float(np.max(np.abs(other), initial=0.0)))


def agree(case: Case) -> None:
    errors = measure(case)
    assert errors.values <= case.values, f"{case.name}: values differ by {errors.values:.1e} from {case.against}"
    if case.gradients is not None and errors.gradients is not None:
        message = f"{case.name}: gradients differ by {errors.gradients:.1e} from {case.against}"
        assert errors.gradients <= case.gradients, message


# ---------------------------------------------------------------- fla's references


def fla(path: str) -> ModuleType:
    """One of fla's plain PyTorch references, loaded by its path: importing the package would need Triton."""
    found = importlib.util.find_spec("fla")
    assert found is not None and found.submodule_search_locations
    file = Path(next(iter(found.submodule_search_locations))) / "ops" / f"{path}.py"
    spec = importlib.util.spec_from_file_location(f"fla_reference_{path.replace('/', '_')}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class doubles(ExitStack):  # noqa: N801
    """While it is open, what asks for float32 gets float64: the references convert to float32 inside."""

    def __enter__(self) -> doubles:
        super().__enter__()
        self.enter_context(patch.object(torch, "float32", torch.float64))
        self.enter_context(patch.object(torch, "float", torch.float64))
        self.enter_context(patch.object(torch.Tensor, "float", torch.Tensor.double))
        self.enter_context(patch.object(torch.Tensor, "bfloat16", lambda x: x.double().clone()))
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        self.callback(torch.set_default_dtype, default)
        return self


def heads(x: torch.Tensor) -> torch.Tensor:
    """[B, T, ...] as fla's [B, T, 1 head, ...]."""
    return x.unsqueeze(2)


def heads_first(x: torch.Tensor) -> torch.Tensor:
    """[B, T, ...] as [B, 1 head, T, ...]."""
    return x.unsqueeze(1)
