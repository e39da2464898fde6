"""Operations on windows over the ticks of one segment, which only chunk-parallel bodies (``ir/chunk.py``) contain.

T is the number of ticks, ``n`` the length of a window, M = T + n - 1 the ticks that some window of the segment sees:
the window of tick t is rows t to t + n - 1 of those M, the newest last. The first logical dims are the ones shown.

unfold(x; n)    [M, ..] -> [T, n, ..]: out[t, i] = x[t + i]
band(x; n)      [T, M, ..] -> [T, n, ..]: out[t, i] = x[t, t + i]
unband(x; n)    [T, n, ..] -> [T, M, ..]: out[t, t + i] = x[t, i], 0 elsewhere
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.ir.types import ShapeError, Type

Rule = Callable[[list[Type], dict[str, Any]], Type]


def _length(attrs: dict[str, Any]) -> int:
    if set(attrs) != {"n"} or not isinstance(attrs["n"], int) or attrs["n"] < 1:
        raise ShapeError(f"a window of {attrs}")
    length: int = attrs["n"]
    return length


def _unfold(types: list[Type], attrs: dict[str, Any]) -> Type:
    (x,), n = types, _length(attrs)
    if not x.shape:
        raise ShapeError(f"unfold of {x}")
    return Type((x.shape[0] - (n - 1), n, *x.shape[1:]), (), x.kind)


def _band(types: list[Type], attrs: dict[str, Any]) -> Type:
    (x,), n = types, _length(attrs)
    if len(x.shape) < 2 or x.shape[1] != x.shape[0] + (n - 1):
        raise ShapeError(f"band of {x}")
    return Type((x.shape[0], n, *x.shape[2:]), (), x.kind)


def _unband(types: list[Type], attrs: dict[str, Any]) -> Type:
    (x,), n = types, _length(attrs)
    if len(x.shape) < 2 or x.shape[1] != n:
        raise ShapeError(f"unband of {x}")
    return Type((x.shape[0], x.shape[0] + (n - 1), *x.shape[2:]), (), x.kind)


WINDOW_RULES: dict[str, Rule] = {"unfold": _unfold, "band": _band, "unband": _unband}
