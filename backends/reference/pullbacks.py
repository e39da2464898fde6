"""The numeric derivative of each NumPy operation of ``ops.py``: the cotangents of its operands.

Written for the arrays that were computed, independently of ``passes/vjp_rules.py``: the two are tested against each
other. A cotangent may have the full length where the operand has length 1; the tape sums it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nldsl.backends.reference.ops import logical_dims, over_lanes, sigmoid
from nldsl.backends.reference.values import Array, Frame
from nldsl.ir.ops import split_spec
from nldsl.ir.types import BATCH


@dataclass(frozen=True)
class Back:
    """One executed operation: where (``f``), the cotangent ``g`` of its result ``y``, its operands ``xs``."""

    f: Frame
    g: Array
    y: Array
    xs: Sequence[Array]


# the cotangent of each operand; None is zero
Pullback = Callable[[Back], Sequence[Array | None]]


def _slope(function: Callable[[Array, Array], Array]) -> Pullback:
    """A unary pointwise operation, from its slope at (x, y)."""
    return lambda b: [b.g * function(b.xs[0], b.y)]


def _halves(a: Array, b: Array, a_wins: Array) -> tuple[Array, Array]:
    share = np.where(a == b, 0.5, np.where(a_wins, 1.0, 0.0))
    return share, 1.0 - share


def _extremum(first_wins: Callable[[Array, Array], Array]) -> Pullback:
    def pull(b: Back) -> list[Array]:
        left, right = _halves(b.xs[0], b.xs[1], first_wins(b.xs[0], b.xs[1]))
        return [b.g * left, b.g * right]

    return pull


def _pow(b: Back) -> list[Array]:
    base, exponent = b.xs
    slope = np.where(exponent == 0, 0.0, exponent * np.power(base, exponent - 1.0))
    return [b.g * slope, b.g * b.y * np.log(np.where(base > 0, base, 1.0))]


def _einsum(b: Back) -> list[Array]:
    """By the definition: the operand's entry at an index multiplies everything else at that index."""
    inputs, output = split_spec(b.f.attrs["spec"])
    results = []
    for i, letters in enumerate(inputs):
        ones = [np.ones(b.xs[i].shape[b.f.lead + d]) for d in range(len(letters))]
        unique = list(dict.fromkeys(letters))
        terms = [b.g] + [x for j, x in enumerate(b.xs) if j != i] + [ones[letters.index(u)] for u in unique]
        spec = ",".join([output] + [s for j, s in enumerate(inputs) if j != i] + unique) + "->" + "".join(unique)
        values = np.einsum(_lane_spec(spec, len(unique)), *terms)
        full = np.zeros(values.shape[: b.f.lead] + b.xs[i].shape[b.f.lead :])
        where = dict(zip(unique, np.ix_(*(np.arange(len(ones[letters.index(u)])) for u in unique)), strict=True))
        at: tuple[Any, ...] = (Ellipsis, *(where[x] for x in letters))
        full[at] = values
        results.append(full)
    return results


def _lane_spec(spec: str, without: int) -> str:
    """The spec with leading dims, except for the last ``without`` operands."""
    inputs, output = split_spec(spec)
    kept = len(inputs) - without
    return ",".join([*("..." + s for s in inputs[:kept]), *inputs[kept:]]) + "->..." + output


def _keep(f: Frame, x: Array) -> Array:
    return np.expand_dims(x, logical_dims(f, f.attrs["dims"]))


def _max(b: Back) -> list[Array]:
    largest = (b.xs[0] == _keep(b.f, b.y)).astype(np.float64)
    return [largest * _keep(b.f, b.g / largest.sum(axis=logical_dims(b.f, b.f.attrs["dims"])))]


def _cumsum(b: Back) -> list[Array]:
    dim = b.f.lead + b.f.attrs["dim"]
    return [np.cumsum(b.g, dim) if b.f.attrs["reverse"] else np.flip(np.cumsum(np.flip(b.g, dim), dim), dim)]


def _concat(b: Back) -> list[Array]:
    dim = b.f.lead + b.f.attrs["dim"]
    ends = np.cumsum([x.shape[dim] for x in b.xs])[:-1]
    return np.split(b.g, ends, axis=dim)


def _slice(b: Back) -> list[Array]:
    full = np.zeros(b.xs[0].shape)
    full[(slice(None),) * (b.f.lead + b.f.attrs["dim"]) + (slice(b.f.attrs["start"], b.f.attrs["stop"]),)] = b.g
    return [full]


def _pad(b: Back) -> list[Array]:
    dim, start = b.f.lead + b.f.attrs["dim"], b.f.attrs["before"]
    return [b.g[(slice(None),) * dim + (slice(start, start + b.xs[0].shape[dim]),)]]


def _take(b: Back) -> list[Array | None]:
    table, index = over_lanes(b.f, *b.xs)
    full = np.zeros(table.shape)
    for lane in np.ndindex(table.shape[: b.f.lead]):
        np.add.at(full[lane], index[lane], b.g[lane])
    return [full, None]


def _scatter_add(b: Back) -> list[Array | None]:
    rows, index = over_lanes(b.f, *b.xs)
    full = np.zeros(rows.shape)
    for lane in np.ndindex(rows.shape[: b.f.lead]):
        full[lane] = b.g[lane][index[lane]]
    return [full, None]


def _solve(b: Back) -> list[Array]:
    matrix, right = b.xs
    vector = right.ndim < matrix.ndim
    columns = b.g[..., None] if vector else b.g
    back = np.linalg.solve(np.swapaxes(matrix, -1, -2), columns)
    solution = b.y[..., None] if vector else b.y
    return [-back @ np.swapaxes(solution, -1, -2), back[..., 0] if vector else back]


def _spread(b: Back) -> list[Array]:
    axis = b.f.attrs["axis"]
    if axis not in b.f.axes:
        return [np.moveaxis(b.g, b.f.out.axes.index(axis), b.f.lead)]
    place, full = b.f.axes.index(axis), np.zeros(b.xs[0].shape)
    for lane in range(b.f.sizes[axis]):
        at = (slice(None),) * place + (lane,)
        full[at + (slice(None),) * (b.f.lead - place - 1) + (lane,)] = b.g[at]
    return [full]


def _collect(b: Back) -> list[Array]:
    axis = b.f.attrs["axis"]
    return [np.moveaxis(b.g, b.f.lead - 1, b.f.axes.index(axis)) if axis in b.f.axes else b.g.sum(axis=b.f.lead)]


def _axis_sum(b: Back) -> list[Array]:
    axis = b.f.attrs["axis"]
    if axis not in b.f.axes:
        return [b.g * b.f.sizes[axis]]
    return [np.broadcast_to(np.expand_dims(b.g, b.f.axes.index(axis)), b.xs[0].shape)]


def _batch_mean(b: Back) -> list[Array]:
    if BATCH not in b.f.axes:
        return [b.g]
    return [np.broadcast_to(np.expand_dims(b.g, b.f.axes.index(BATCH)), b.xs[0].shape) / b.f.sizes[BATCH]]


_FLAT: Pullback = lambda b: [None] * len(b.xs)  # noqa: E731
_SAME: Pullback = lambda b: [b.g]  # noqa: E731

PULLBACKS: dict[str, Pullback] = dict.fromkeys(
    "sign floor logical_not lt le gt ge eq ne logical_and logical_or one_hot stop_grad fixed const iota clock".split(),
    _FLAT,
) | {
    "neg": _slope(lambda x, y: -np.ones_like(x)),
    "exp": _slope(lambda x, y: y),
    "log": _slope(lambda x, y: 1.0 / x),
    "log1p": _slope(lambda x, y: 1.0 / (1.0 + x)),
    "expm1": _slope(lambda x, y: np.exp(x)),
    "sqrt": _slope(lambda x, y: 0.5 / y),
    "rsqrt": _slope(lambda x, y: -0.5 * y / x),
    "abs": _slope(lambda x, y: np.sign(x)),
    "sin": _slope(lambda x, y: np.cos(x)),
    "cos": _slope(lambda x, y: -np.sin(x)),
    "tanh": _slope(lambda x, y: 1.0 - y * y),
    "arctan": _slope(lambda x, y: 1.0 / (1.0 + x * x)),
    "sigmoid": _slope(lambda x, y: y * (1.0 - y)),
    "softplus": _slope(lambda x, y: sigmoid(x)),
    "relu": _slope(lambda x, y: (x > 0).astype(np.float64)),
    "erf": _slope(lambda x, y: 2.0 / np.sqrt(np.pi) * np.exp(-x * x)),
    "to_real": _SAME,
    "add": lambda b: [b.g, b.g],
    "sub": lambda b: [b.g, -b.g],
    "mul": lambda b: [b.g * b.xs[1], b.g * b.xs[0]],
    "div": lambda b: [b.g / b.xs[1], -b.g * b.xs[0] / b.xs[1] ** 2.0],
    "pow": _pow,
    "maximum": _extremum(np.greater),
    "minimum": _extremum(np.less),
    "mod": lambda b: [b.g, -b.g * np.floor(b.xs[0] / b.xs[1])],
    "where": lambda b: [None, np.where(b.xs[0] != 0, b.g, 0.0), np.where(b.xs[0] != 0, 0.0, b.g)],
    "einsum": _einsum,
    "sum": lambda b: [np.broadcast_to(_keep(b.f, b.g), b.xs[0].shape)],
    "max": _max,
    "cumsum": _cumsum,
    "reshape": lambda b: [b.g.reshape(b.xs[0].shape)],
    "broadcast": _SAME,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "take": _take,
    "scatter_add": _scatter_add,
    "solve": _solve,
    "spread": _spread,
    "collect": _collect,
    "axis_sum": _axis_sum,
    "batch_mean": _batch_mean,
    "same": _SAME,
    "place": _SAME,
}
