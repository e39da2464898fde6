"""Recurrences with full matrices at every tick, over the ticks of one segment (only in ``ir/chunk.py``).

matrix_scan(a, b)    x[t] = a[t] @ x[t-1] + b[t], x[-1] = 0; a: [T, n, n], b: [T, n, m] -> [T, n, m].
                     ``reverse``: x[t] = a[t] @ x[t+1] + b[t], from the end
two_sided_scan(a, w, b)    x[t] = a[t] @ x[t-1] @ b[t] + w[t], x[-1] = 0; a: [T, n, n], w: [T, n, m], b: [T, m, m]
                     -> [T, n, m]. ``reverse``: from the end
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.ir.types import ShapeError, Type

Rule = Callable[[list[Type], dict[str, Any]], Type]


def _matrix_scan(types: list[Type], attrs: dict[str, Any]) -> Type:
    a, b = types
    if set(attrs) != {"reverse"} or len(a.shape) != 3 or len(b.shape) != 3:
        raise ShapeError(f"matrix_scan of {a} and {b}")
    if a.shape[1] != a.shape[2] or a.shape[:2] != b.shape[:2]:
        raise ShapeError(f"matrix_scan: {a} and {b} do not fit")
    return Type(b.shape)


def _two_sided_scan(types: list[Type], attrs: dict[str, Any]) -> Type:
    a, w, b = types
    if set(attrs) != {"reverse"} or any(len(t.shape) != 3 for t in types):
        raise ShapeError(f"two_sided_scan of {a}, {w} and {b}")
    ticks, n, m = w.shape
    if a.shape != (ticks, n, n) or b.shape != (ticks, m, m):
        raise ShapeError(f"two_sided_scan: {a}, {w} and {b} do not fit")
    return Type(w.shape)


MATRIX_RULES: dict[str, Rule] = {"matrix_scan": _matrix_scan, "two_sided_scan": _two_sided_scan}
