"""Each operation of the IR in NumPy, on operands as ``values.lift`` lays them out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from nldsl.backends.reference.values import Array, Frame
from nldsl.ir.ops import split_spec
from nldsl.ir.types import BATCH

Forward = Callable[..., Array]

erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def logical_dims(frame: Frame, dims: tuple[int, ...]) -> tuple[int, ...]:
    """Where logical dims are in the array."""
    return tuple(frame.lead + d for d in dims)


def over_lanes(frame: Frame, *operands: Array) -> list[Array]:
    """The operands with every leading dim at its full length."""
    lanes = tuple(frame.sizes[axis] for axis in frame.axes)
    return [np.broadcast_to(x, lanes + x.shape[frame.lead :]) for x in operands]


def ellipsis_spec(spec: str) -> str:
    """The spec for operands with leading dims."""
    inputs, output = split_spec(spec)
    return ",".join("..." + letters for letters in inputs) + "->..." + output


def _concat(f: Frame, *parts: Array) -> Array:
    return np.concatenate(over_lanes(f, *parts), axis=f.lead + f.attrs["dim"])


def _slice(f: Frame, x: Array) -> Array:
    return np.take(x, range(f.attrs["start"], f.attrs["stop"]), axis=f.lead + f.attrs["dim"])


def _pad(f: Frame, x: Array) -> Array:
    widths = [(0, 0)] * x.ndim
    widths[f.lead + f.attrs["dim"]] = (f.attrs["before"], f.attrs["after"])
    return np.pad(x, widths)


def _cumsum(f: Frame, x: Array) -> Array:
    dim = f.lead + f.attrs["dim"]
    return np.flip(np.cumsum(np.flip(x, dim), dim), dim) if f.attrs["reverse"] else np.cumsum(x, dim)


def _rows(index: Array, size: int) -> Array:
    if index.size and not 0 <= index.min() <= index.max() < size:
        raise IndexError(f"row {index.min() if index.min() < 0 else index.max()} of a table of {size} rows")
    return index


def _take(f: Frame, table: Array, index: Array) -> Array:
    tables, indices = over_lanes(f, table, _rows(index, table.shape[f.lead]))
    out = np.empty(f.out_shape, table.dtype)
    for lane in np.ndindex(tables.shape[: f.lead]):
        out[lane] = tables[lane][indices[lane]]
    return out


def _scatter_add(f: Frame, rows: Array, index: Array) -> Array:
    many, indices = over_lanes(f, rows, _rows(index, f.attrs["n"]))
    out = np.zeros(f.out_shape, rows.dtype)
    for lane in np.ndindex(many.shape[: f.lead]):
        np.add.at(out[lane], indices[lane], many[lane])
    return out


def _solve(matrix: Array, right: Array) -> Array:
    if right.ndim == matrix.ndim:
        return np.asarray(np.linalg.solve(matrix, right))
    return np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0])


def _spread(f: Frame, x: Array) -> Array:
    axis = f.attrs["axis"]
    if axis in f.axes:  # lane h takes row h of its own tensor
        place = f.axes.index(axis)
        return np.moveaxis(np.diagonal(x, axis1=place, axis2=f.lead), -1, place)
    return np.moveaxis(x, f.lead, f.out.axes.index(axis))


def _collect(f: Frame, x: Array) -> Array:
    axis = f.attrs["axis"]
    if axis in f.axes:
        return np.moveaxis(x, f.axes.index(axis), f.lead - 1)
    shape = x.shape[: f.lead] + (f.sizes[axis],) + x.shape[f.lead :]
    return np.broadcast_to(np.expand_dims(x, f.lead), shape)


def _axis_sum(f: Frame, x: Array) -> Array:
    axis = f.attrs["axis"]
    return x.sum(axis=f.axes.index(axis)) if axis in f.axes else x * f.sizes[axis]


def _batch_mean(f: Frame, x: Array) -> Array:
    return x.mean(axis=f.axes.index(BATCH)) if BATCH in f.axes else x


def _clock(f: Frame) -> Array:
    n, period = f.tick // f.attrs["scale"], f.attrs["period"]
    return np.asarray(n if period == 0 else (n - 1) % period + 1)


def _pointwise(function: Callable[..., Any]) -> Forward:
    return lambda f, *operands: np.asarray(function(*operands))


_POINTWISE: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "abs": np.abs,
    "sign": np.sign,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "arctan": np.arctan,
    "sigmoid": sigmoid,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "relu": lambda x: np.maximum(x, 0.0),
    "erf": erf,
    "floor": np.floor,
    "logical_not": lambda x: x == 0,
    "to_real": lambda x: x,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "mod": np.mod,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "where": lambda c, a, b: np.where(c != 0, a, b),
}

FORWARD: dict[str, Forward] = {name: _pointwise(function) for name, function in _POINTWISE.items()} | {
    "const": lambda f: np.asarray(f.attrs["value"]),
    "iota": lambda f: np.arange(f.attrs["n"]),
    "clock": _clock,
    "einsum": lambda f, *operands: np.einsum(ellipsis_spec(f.attrs["spec"]), *operands),
    "sum": lambda f, x: x.sum(axis=logical_dims(f, f.attrs["dims"])),
    "max": lambda f, x: x.max(axis=logical_dims(f, f.attrs["dims"])),
    "cumsum": _cumsum,
    "reshape": lambda f, x: x.reshape(x.shape[: f.lead] + tuple(f.attrs["shape"])),
    "broadcast": lambda f, x: np.broadcast_to(x, x.shape[: f.lead] + tuple(f.attrs["shape"])),
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "take": _take,
    "scatter_add": _scatter_add,
    "one_hot": lambda f, index: index[..., None] == np.arange(f.attrs["n"]),
    "solve": lambda f, matrix, right: _solve(matrix, right),
    "spread": _spread,
    "collect": _collect,
    "axis_sum": _axis_sum,
    "batch_mean": _batch_mean,
    "stop_grad": lambda f, x: x,
    "fixed": lambda f, x: x,
    # not operations of the IR: a value used as it is, and one stretched to all axes of its place
    "same": lambda f, x: x,
    "place": lambda f, x: np.broadcast_to(x, f.out_shape),
}
# Operands whose logical dims are aligned from the right before the operation.
ALIGNED = frozenset(_POINTWISE) | {"broadcast"}
