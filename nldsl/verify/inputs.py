"""Random inputs and parameters for a program, of a kind on which it stays finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nldsl.ir.program import InputDecl, ParamDecl, Program
from nldsl.ir.row_limits import row_limits
from nldsl.ir.types import BATCH

Array = NDArray[Any]
Arrays = dict[str, Array]
_LARGEST = 1e6  # beyond this a comparison says little
_FEW = 8  # values of an integer input that picks nothing


@dataclass(frozen=True)
class Sample:
    """Inputs ``[batch, ticks, ...]`` by name, parameters as they are stored, and the kind of numbers they are."""

    inputs: Arrays
    params: Arrays
    batch: int
    ticks: int
    kind: str

    def cut(self, start: int, stop: int) -> Arrays:
        """The inputs of some ticks."""
        return {name: x[:, start:stop] for name, x in self.inputs.items()}

    def rows(self, row: int) -> Arrays:
        """The inputs of one sequence, as a batch of one."""
        return {name: x[row : row + 1] for name, x in self.inputs.items()}


def _signed(rng: np.random.Generator, shape: tuple[int, ...], entries: int) -> Array:
    return np.asarray(rng.standard_normal(shape) * entries**-0.5)


def _positive(rng: np.random.Generator, shape: tuple[int, ...], entries: int) -> Array:
    return np.asarray(rng.uniform(0.1, 0.9, shape) * entries**-0.5)


def _fractions(rng: np.random.Generator, shape: tuple[int, ...], entries: int) -> Array:
    del entries
    return np.asarray(rng.uniform(0.1, 0.9, shape))


def _small(rng: np.random.Generator, shape: tuple[int, ...], entries: int) -> Array:
    return 0.3 * _signed(rng, shape, entries)


def _slow(rng: np.random.Generator, shape: tuple[int, ...], entries: int) -> Array:
    del entries
    return np.asarray(rng.uniform(0.01, 0.1, shape))


Draw = Callable[[np.random.Generator, tuple[int, ...], int], Array]
# Tensors, then scalars (rates, retentions): the first kind on which the program stays finite is taken.
KINDS: dict[str, tuple[Draw, Draw]] = {
    "signed": (_signed, _fractions),
    "positive": (_positive, _fractions),
    "small": (_small, _slow),
    "fractions": (_fractions, _fractions),
}


def sample(program: Program, batch: int, ticks: int, seed: int, kind: str) -> Sample:
    """Inputs ``[batch, ticks, ...]`` and parameters near their initial values."""
    tensor, scalar = KINDS[kind]
    rng = np.random.default_rng(seed)
    limits = row_limits(program)
    inputs: Arrays = {}
    longer: Arrays = {}
    for declared in program.inputs:
        if declared.ahead:
            continue
        shape = tuple(int(str(d)) for d in declared.type.shape)
        lead = (batch, ticks + 1) if BATCH in declared.type.axes else (ticks + 1,)
        entries = max(1, int(np.prod(shape)))
        if declared.type.kind == "int":
            drawn = rng.integers(0, limits.get(declared.name, _FEW), lead + shape)
        else:
            drawn = (tensor if shape else scalar)(rng, lead + shape, entries)
        longer[declared.name] = drawn
        inputs[declared.name] = _ticks(declared, drawn, 0, ticks)
    for declared in program.inputs:
        if declared.ahead:
            inputs[declared.name] = _ticks(declared, longer[declared.source], declared.ahead, ticks)
    params = {p.name: _parameter(program, p, rng) for p in program.params}
    return Sample(inputs, params, batch, ticks, kind)


def _ticks(declared: InputDecl, drawn: Array, start: int, ticks: int) -> Array:
    axis = int(BATCH in declared.type.axes)
    return np.take(drawn, range(start, start + ticks), axis)


def _parameter(program: Program, param: ParamDecl, rng: np.random.Generator) -> Array:
    """The initial value with noise, so that parameters that begin with zeros or ones are tried too."""
    from nldsl.runtime.initialize import initialize, shape_of

    shape = shape_of(program, param)
    first = initialize(program, 0)[param.name]
    size = max(1, shape[-1]) if shape else 1
    return np.asarray(first + 0.3 * size**-0.5 * rng.standard_normal(shape))


def is_usable(arrays: Arrays) -> bool:
    """Whether all values are finite and of a size that can be compared."""
    return all(
        bool(np.all(np.isfinite(x))) and float(np.max(np.abs(x), initial=0.0)) < _LARGEST for x in arrays.values()
    )
