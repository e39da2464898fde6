"""The first values of parameters, the same numbers for every backend."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nldsl.dims import Dim
from nldsl.ir.program import ParamDecl, Program

Array = NDArray[Any]


def initialize(program: Program, seed: int) -> dict[str, Array]:
    """Each parameter in float64: its axes (copies of a memory), then its shape.

    Each has a random stream of its own, from the seed and its name, so that adding one leaves the others as they are.
    """
    return {p.name: np.array(_draw(p, shape_of(program, p), _stream(p, seed))) for p in program.params}


def shape_of(program: Program, param: ParamDecl) -> tuple[int, ...]:
    """The shape in which a parameter is stored."""
    return tuple(_number(program.axis_size(axis), param) for axis in param.type.axes) + tuple(
        _number(size, param) for size in param.type.shape
    )


def _number(size: Dim | None, param: ParamDecl) -> int:
    if not isinstance(size, int):
        raise ValueError(f"parameter {param.name}: the size {size} is not a number yet")  # noqa: TRY004
    return size


def _stream(param: ParamDecl, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(param.name.encode()).digest()
    words = [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def _draw(param: ParamDecl, shape: tuple[int, ...], random: np.random.Generator) -> Any:
    rule = param.initializer
    match rule.kind:
        case "constant":
            (value,) = rule.values
            return np.full(shape, value, dtype=np.float64)
        case "normal":
            (std,) = rule.values
            return std * random.standard_normal(shape)
        case "uniform":
            low, high = rule.values
            return low + (high - low) * random.random(shape)
        case "identity":
            (scale,) = rule.values
            return scale * np.broadcast_to(np.eye(shape[-2], shape[-1]), shape)
        case "values":
            (numbers,) = rule.values
            return np.broadcast_to(np.asarray(numbers, dtype=np.float64), shape)
    raise ValueError(f"parameter {param.name}: unknown initializer {rule.kind}")
