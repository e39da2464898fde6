"""Two sets of arrays compared: how far apart they are, and the first entry that differs, in the program's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nldsl.ir.program import Program
from nldsl.ir.types import BATCH, TIME

Array = NDArray[Any]
_FLOOR = 1e-2  # errors of a tensor whose entries are all smaller than this are measured against this


@dataclass(frozen=True)
class Difference:
    """``error`` is relative to the largest entry of the tensor. ``place`` names the first entry beyond the bound."""

    error: float
    place: str = ""


NONE = Difference(0.0)


def worse(left: Difference, right: Difference) -> Difference:
    """The larger error, with the place that was found first."""
    error = left.error if left.error >= right.error or np.isnan(left.error) else right.error
    return Difference(error, left.place or right.place)


def compare(
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    bound: float,
    what: str,
    axes: Mapping[str, tuple[str, ...]] | None = None,
    first_tick: int = 1,
) -> Difference:
    """The worst difference of tensors of the same names; ``axes`` names their leading dims."""
    result = NONE
    for name, wanted in expected.items():
        if name not in found:
            result = worse(result, Difference(float("inf"), f"{what} `{name}` is missing"))
            continue
        lead = (axes or {}).get(name, ())
        result = worse(result, _one(wanted, found[name], bound, f"{what} `{name}`", lead, first_tick))
    return result


def _one(wanted: Array, got: Array, bound: float, title: str, lead: tuple[str, ...], first_tick: int) -> Difference:
    wanted, got = np.asarray(wanted, np.float64), np.asarray(got, np.float64)
    if wanted.shape != got.shape:
        return Difference(float("inf"), f"{title} has shape {list(got.shape)}, not {list(wanted.shape)}")
    if wanted.size == 0:
        return NONE
    scale = max(float(np.max(np.abs(wanted))), _FLOOR)
    with np.errstate(invalid="ignore"):
        errors = np.abs(wanted - got) / scale
    same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
    errors = np.where(same, 0.0, np.where(np.isnan(errors), np.inf, errors))
    worst = float(np.max(errors))
    if worst <= bound:
        return Difference(worst)
    place = _first(errors > bound, lead)
    index = ", ".join(_named(axis, i, first_tick) for axis, i in zip(lead, place, strict=False))
    rest = list(place[len(lead) :])
    at = ", ".join(part for part in (index, f"entry {rest}" if rest else "") if part)
    values = f"{float(got[place]):.10g} instead of {float(wanted[place]):.10g}"
    return Difference(worst, f"{title}{': ' + at if at else ''}: {values}")


def _first(wrong: Array, lead: tuple[str, ...]) -> tuple[int, ...]:
    """The first wrong entry: the earliest tick, where there are ticks."""
    places = np.argwhere(wrong)
    if TIME in lead:
        axis = lead.index(TIME)
        places = places[np.argsort(places[:, axis], kind="stable")]
    return tuple(int(i) for i in places[0])


def _named(axis: str, index: int, first_tick: int) -> str:
    if axis == TIME:
        return f"token {index + first_tick}"
    return f"sequence {index}" if axis == BATCH else f"{axis} {index}"


def axes_of(program: Program, kind: str) -> dict[str, tuple[str, ...]]:
    """The leading dims of inputs, outputs, losses (with time), states and parameters."""
    if kind == "inputs":
        return {i.name: _streamed(i.type.axes) for i in program.inputs}
    if kind in ("outputs", "losses"):
        pairs = program.outputs if kind == "outputs" else program.losses
        batched = BATCH in program.axis_names()
        return {n: _streamed((*((BATCH,) if batched else ()), *_without(program.body[v].type.axes))) for n, v in pairs}
    if kind == "states":
        return {s.name: s.type.axes for s in program.states}
    return {p.name: p.type.axes for p in program.params}


def _without(axes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(a for a in axes if a != BATCH)


def _streamed(axes: tuple[str, ...]) -> tuple[str, ...]:
    return (BATCH, TIME, *_without(axes)) if BATCH in axes else (TIME, *axes)
