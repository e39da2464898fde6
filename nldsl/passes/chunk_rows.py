"""One operation on values that are folded to rows (``chunk_window.py``): where it does the same at every place.

The operands are bases: along the window they have size 1 if it is a logical dim (``place`` is its number), and nothing
if it is a mapped axis (``place`` is its name).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.ir.ops import product
from nldsl.source import Span

Place = str | int


@dataclass(frozen=True)
class _Site:
    """An operation of one operand whose window is the dim ``place``."""

    builder: Builder
    op: str
    arg: int
    place: int
    attrs: dict[str, Any]
    length: int


def folded(
    builder: Builder,
    op: str,
    args: Sequence[int],
    places: Sequence[Place | None],
    attrs: dict[str, Any],
    length: int,
    name: str,
    span: Span,
) -> tuple[int, Place] | None:
    """The base of the result and where its window lies; None where the operation mixes places."""
    first = next(p for p in places if p is not None)
    if isinstance(first, str):
        return _on_axis(builder, op, args, first, attrs, name, span)
    if op in ops.POINTWISE:
        return _pointwise(builder, op, args, places, name, span)
    if op == "einsum":
        return _einsum(builder, args, places, attrs["spec"])
    if len(args) != 1:
        return None
    rule = _ONE.get(op)
    return rule(_Site(builder, op, args[0], first, attrs, length)) if rule is not None else None


def _on_axis(
    builder: Builder, op: str, args: Sequence[int], place: str, attrs: dict[str, Any], name: str, span: Span
) -> tuple[int, Place] | None:
    if attrs.get("axis") == place:
        if op != "collect":
            return None
        return builder.emit("reshape", args[0], shape=(1, *builder.type(args[0]).shape)), 0
    return builder.emit(op, *args, name=name, span=span, **attrs), place


def _pointwise(
    builder: Builder, op: str, args: Sequence[int], places: Sequence[Place | None], name: str, span: Span
) -> tuple[int, Place] | None:
    ranks = [len(builder.type(a).shape) for a in args]
    behind = {rank - place for rank, place in zip(ranks, places, strict=True) if isinstance(place, int)}
    if len(behind) != 1:
        return None
    (right,) = behind
    for arg, rank, place in zip(args, ranks, places, strict=True):
        if place is None and rank >= right and builder.type(arg).shape[rank - right] != 1:
            return None
    return builder.emit(op, *args, name=name, span=span), max(ranks) - right


def _einsum(
    builder: Builder, args: Sequence[int], places: Sequence[Place | None], spec: str
) -> tuple[int, Place] | None:
    inputs, output = ops.split_spec(spec)
    letters = {x[p] for x, p in zip(inputs, places, strict=True) if isinstance(p, int)}
    if len(letters) != 1:
        return None
    (window,) = letters
    if output.count(window) != 1:
        return None
    new, texts = [], []
    for arg, text, place in zip(args, inputs, places, strict=True):
        if text.count(window) != (0 if place is None else 1):
            return None
        if isinstance(place, int):
            shape = builder.type(arg).shape
            new.append(builder.emit("reshape", arg, shape=(*shape[:place], *shape[place + 1 :])))
        else:
            new.append(arg)
        texts.append(text.replace(window, ""))
    base = builder.emit("einsum", *new, spec=",".join(texts) + "->" + output.replace(window, ""))
    at, shape = output.index(window), builder.type(base).shape
    return builder.emit("reshape", base, shape=(*shape[:at], 1, *shape[at:])), at


def _reduced(site: _Site) -> tuple[int, Place] | None:
    if site.place in site.attrs["dims"]:
        return None
    return site.builder.emit(site.op, site.arg, **site.attrs), site.place - sum(
        d < site.place for d in site.attrs["dims"]
    )


def _reshape(site: _Site) -> tuple[int, Place] | None:
    before, shape = product(site.builder.type(site.arg).shape[: site.place]), site.attrs["shape"]
    for at, size in enumerate(shape):
        if size == site.length and product(shape[:at]) == before:
            return site.builder.emit("reshape", site.arg, shape=(*shape[:at], 1, *shape[at + 1 :])), at
    return None


def _broadcast(site: _Site) -> tuple[int, Place] | None:
    shape: tuple[Dim, ...] = site.attrs["shape"]
    at = len(shape) - (len(site.builder.type(site.arg).shape) - site.place)
    return site.builder.emit("broadcast", site.arg, shape=(*shape[:at], 1, *shape[at + 1 :])), at


def _spread(site: _Site) -> tuple[int, Place] | None:
    if site.place:
        return site.builder.emit("spread", site.arg, **site.attrs), site.place - 1
    if site.attrs["axis"] in site.builder.type(site.arg).axes:
        return None  # each lane takes a site.place of its own
    return site.builder.emit("reshape", site.arg, shape=site.builder.type(site.arg).shape[1:]), str(site.attrs["axis"])


def _collect(site: _Site) -> tuple[int, Place] | None:
    return site.builder.emit("collect", site.arg, **site.attrs), site.place + 1


def _same(site: _Site) -> tuple[int, Place] | None:
    return site.builder.emit(site.op, site.arg, **site.attrs), site.place


def _along(site: _Site) -> tuple[int, Place] | None:
    return None if site.attrs["dim"] == site.place else (site.builder.emit(site.op, site.arg, **site.attrs), site.place)


_ONE = {
    "sum": _reduced,
    "max": _reduced,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "spread": _spread,
    "collect": _collect,
    "axis_sum": _same,
    "batch_mean": _same,
    "stop_grad": _same,
    "cumsum": _along,
    "slice": _along,
    "pad": _along,
}
