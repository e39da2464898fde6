"""Compares a program, interpreted or compiled to torch, with an independent implementation in float64.

A ``Case`` names a program and its oracle: a function from torch tensors (inputs ``[batch, time, ...]`` and parameters)
to the outputs. Values are compared to 1e-10, gradients of a random weighting of the outputs to 1e-8.
"""

from __future__ import annotations

import importlib.util
import re
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nldsl.api import compile, load_program
from nldsl.backends.reference import gradients
from nldsl.ir.program import Program
from nldsl.runtime.initialize import initialize

Array = NDArray[Any]
Tensors = dict[str, torch.Tensor]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]

STDLIB = Path(__file__).parents[2] / "stdlib"
VALUES, GRADIENTS = 1e-10, 1e-8
BACKENDS = ("reference", "torch")


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.standard_normal(shape)


def unit(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    x = random.standard_normal(shape)
    unit_length: Array = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit_length


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
    backends: tuple[str, ...] = BACKENDS

    @property
    def name(self) -> str:
        return f"{self.entry}{' ' + self.label if self.label else ''}"

    @property
    def shown(self) -> str:
        """The name in the table: programs written for a test carry theirs in the label."""
        if not self.text:
            return self.name
        return self.label.partition(" vs ")[0].removeprefix("(").removesuffix(")" if self.label.startswith("(") else "")

    @property
    def program(self) -> str:
        """The file of the standard library."""
        return re.findall(r'from "(.+?)"', self.text)[0] if self.text else self.file


@dataclass(frozen=True)
class Errors:
    values: float
    gradients: float | None


def program_of(case: Case) -> Program:
    if case.text:
        return load_program(case.file, case.entry, text=case.text, **case.dims)
    return load_program(STDLIB / f"{case.file}.nl", case.entry, **case.dims)


def module_of(case: Case) -> torch.nn.Module:
    if case.text:
        return compile(case.file, case.entry, text=case.text, backend="torch", **case.dims)
    return compile(STDLIB / f"{case.file}.nl", case.entry, backend="torch", **case.dims)


@dataclass(frozen=True)
class Data:
    """What both sides get: inputs, parameters, and the weights of the outputs in what is differentiated."""

    inputs: dict[str, Array]
    params: dict[str, Array]
    random: np.random.Generator

    def leaves(self) -> tuple[Tensors, Tensors]:
        inputs = {n: torch.tensor(x, requires_grad=x.dtype.kind == "f") for n, x in self.inputs.items()}
        return inputs, {n: torch.tensor(x, requires_grad=True) for n, x in self.params.items()}


def data_for(case: Case, program: Program) -> Data:
    random = np.random.default_rng(zlib.crc32(case.name.encode()))
    inputs: dict[str, Array] = {}
    for declared in program.inputs:
        shape = (case.batch, case.ticks, *(int(n) for n in declared.type.shape))  # type: ignore[arg-type]
        draw = case.draws.get(declared.name) or DRAWS.get(declared.name, normal)
        inputs[declared.name] = draw(random, shape)
    params = initialize(program, 3)
    return Data(inputs, {n: p + 0.1 * random.standard_normal(p.shape) for n, p in params.items()}, random)


def slopes(outputs: Tensors, weights: dict[str, Array], leaves: Tensors) -> Tensors:
    """The gradients of the weighted sum of the outputs; zero for what has no influence."""
    loss = torch.stack([(torch.tensor(weights[n]) * y).sum() for n, y in outputs.items()]).sum()
    wanted = {n: x for n, x in leaves.items() if x.requires_grad}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(wanted, found, strict=True))


def measure(case: Case, backend: str = "reference") -> Errors:
    """The largest differences, each relative to the largest entry of what it is compared with (at least 1)."""
    program = program_of(case)
    data = data_for(case, program)
    inputs, params = data.leaves()
    expected = case.oracle(inputs, params)
    if isinstance(expected, torch.Tensor):
        expected = {"y": expected}
    weights = {n: data.random.standard_normal(y.shape) for n, y in expected.items()}
    run = with_reference if backend == "reference" else with_torch
    outputs, ours = run(case, program, data, weights)
    value_error = max(difference(outputs[n], y) for n, y in expected.items())
    if case.gradients is None:
        return Errors(value_error, None)
    theirs = slopes(expected, weights, {**inputs, **params})
    return Errors(value_error, max(difference(ours[n], g) for n, g in theirs.items()))


def with_reference(
    case: Case, program: Program, data: Data, weights: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs and gradients by the reference interpreter."""
    found = gradients(program, data.params, data.inputs, output_weights=weights)
    return found.outputs, {**found.inputs, **found.params}


def with_torch(
    case: Case, program: Program, data: Data, weights: dict[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs and gradients of the compiled module, by autograd."""
    module = module_of(case).double()
    inputs, _ = data.leaves()
    params = dict(module.named_parameters())
    with torch.no_grad():
        for name, value in data.params.items():
            params[name].copy_(torch.tensor(value))
    result = module(**inputs)
    outputs = {"y": result} if isinstance(result, torch.Tensor) else dict(result)
    found = slopes({n: outputs[n] for n in weights}, weights, {**inputs, **params})
    return {n: y.detach().numpy() for n, y in outputs.items()}, {n: g.numpy() for n, g in found.items()}


def difference(ours: Array, theirs: torch.Tensor) -> float:
    other = theirs.detach().numpy()
    assert ours.shape == other.shape, f"shape {ours.shape}, the oracle has {other.shape}"
    error = float(np.max(np.abs(ours - other), initial=0.0))
    return error / max(1.0, float(np.max(np.abs(other), initial=0.0)))


def agree(case: Case, backend: str = "reference") -> None:
    errors = measure(case, backend)
    assert errors.values <= case.values, f"{case.name}: values differ by {errors.values:.1e} from {case.against}"
    if case.gradients is not None and errors.gradients is not None:
        message = f"{case.name}: gradients differ by {errors.gradients:.1e} from {case.against}"
        assert errors.gradients <= case.gradients, message


def both_backends(cases: list[Case]) -> list[Any]:
    """The parameters (case, backend) of a test."""
    return [pytest.param(c, b, id=f"{c.shown}-{c.against}-{b}") for c in cases for b in c.backends]


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
