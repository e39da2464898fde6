"""Operations over the ticks of one segment, which only chunk-parallel bodies (``ir/chunk.py``) contain.

In these operations the first logical dimension is time, as ``collect`` leaves it; T is its size and t, s, l are ticks.

given(value)              leaf: a value of the per-token program, of each tick (axis ``time``) or one for all ticks
solve_triangular(A, b)    A^-1 b for a unit lower triangular A: [N, N] (its diagonal and upper part are not read),
                          b: [N] or [N, M]. ``transposed``: A^-T b
segprod(a)                [T, ..] -> [T, T, ..]: out[t, s] = a[s+1] * .. * a[t] for s <= t (1 on the diagonal), 0 above.
                          ``matrix``: a: [T, n, n, ..], out[t, s] = a[t] @ .. @ a[s+1]: [T, T, n, n, ..]
cumprod(a)                over the first dimension. ``reverse``: from the end. ``exclusive``: without the own tick
decay_gram(q, a, k)       q, a, k: [T, K] -> [T, T]: sum over c of q[t, c] * segprod(a)[t, s, c] * k[s, c]
decay_gram_grad(d, q, a, k)   [3, T, K]: the cotangents of q, a and k where decay_gram(q, a, k) has the cotangent d
lane(x)                   the value of lane ``index`` of the mapped axis ``axis`` of ``size`` lanes; without the axis
linear_scan(a, b)         x[t] = a[t] * x[t-1] + b[t], x[-1] = 0; a: [T, ..] stretches to the shape of b: [T, ..].
                          ``reverse``: x[t] = a[t] * x[t+1] + b[t], from the end

Leaves of a backward body (``ir/backward.py``) alone:

boundary(state, period)   a state (its anchor, if period > 0) as it was at the beginning of the segment
cotangent(state, period)  the cotangent of a state (of its anchor) at the end of the segment
cotangent_of(value)       the cotangent of an output of the segment
kept(value, zero)         a value of the forward body, read and not computed again; ``zero``: see ``ir/triangular.py``

None of them may divide by a product or take the logarithm of a factor that could be zero or negative: decays of any
sign and size are allowed, and a long product may underflow to zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.ir.types import ShapeError, Type, broadcast_shapes

Rule = Callable[[list[Type], dict[str, Any]], Type]


def _solve_triangular(types: list[Type], attrs: dict[str, Any]) -> Type:
    matrix, right = types
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"solve_triangular needs a square matrix, got {matrix}")
    if len(right.shape) not in (1, 2) or right.shape[0] != matrix.shape[0]:
        raise ShapeError(f"solve_triangular: {matrix} and {right} do not fit")
    if not attrs["lower"] or not attrs["unit"]:
        raise ShapeError("solve_triangular: only unit lower triangular systems")
    return Type(right.shape)


def _segprod(types: list[Type], attrs: dict[str, Any]) -> Type:
    (a,) = types
    if not a.shape or (attrs["matrix"] and (len(a.shape) < 3 or a.shape[1] != a.shape[2])):
        raise ShapeError(f"segprod of {a}")
    return Type((a.shape[0], *a.shape))


def _cumprod(types: list[Type], attrs: dict[str, Any]) -> Type:
    (a,) = types
    if not a.shape or not {"reverse", "exclusive"} <= attrs.keys():
        raise ShapeError(f"cumprod of {a}")
    return Type(a.shape)


def _decay_gram(types: list[Type], attrs: dict[str, Any]) -> Type:
    q, a, k = types
    if attrs or len(q.shape) != 2 or q.shape != k.shape or q.shape != a.shape:
        raise ShapeError(f"decay_gram of {q}, {a} and {k}")
    return Type((q.shape[0], q.shape[0]))


def _decay_gram_grad(types: list[Type], attrs: dict[str, Any]) -> Type:
    gram, q = types[0], types[1]
    if _decay_gram(types[1:], attrs).shape != gram.shape:
        raise ShapeError(f"decay_gram_grad of {gram} and {q}")
    return Type((3, *q.shape))


def _linear_scan(types: list[Type], attrs: dict[str, Any]) -> Type:
    a, b = types
    if not attrs.keys() <= {"reverse"} or not a.shape or not b.shape or a.shape[0] != b.shape[0]:
        raise ShapeError(f"linear_scan of {a} and {b}")
    if broadcast_shapes([a.shape[1:], b.shape[1:]]) != b.shape[1:]:
        raise ShapeError(f"linear_scan: {a} does not stretch to {b}")
    return Type(b.shape)


def _lane(types: list[Type], attrs: dict[str, Any]) -> Type:
    (value,) = types
    if attrs["axis"] not in value.axes:
        raise ShapeError(f"{value} has no axis {attrs['axis']}")
    return value


def _declared(types: list[Type], attrs: dict[str, Any]) -> Type:
    raise AssertionError(f"leaves carry their type: {types}, {attrs}")


TIME_RULES: dict[str, Rule] = {
    "given": _declared,
    "boundary": _declared,
    "cotangent": _declared,
    "cotangent_of": _declared,
    "kept": _declared,
    "solve_triangular": _solve_triangular,
    "segprod": _segprod,
    "cumprod": _cumprod,
    "decay_gram": _decay_gram,
    "decay_gram_grad": _decay_gram_grad,
    "linear_scan": _linear_scan,
    "lane": _lane,
}
