"""Types of the per-token IR.

A value has *mapped axes* and a *logical shape*. Operations are defined on the logical shape alone; over the axes
they are mapped (each lane on its own, missing axes broadcast), as under ``vmap``. ``batch`` is an axis, copies of a
memory (heads) are an axis, and a pass that vectorizes over tokens adds the axis ``time``: no operation mentions them.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.dims import Dim

BATCH = "batch"
TIME = "time"


class ShapeError(Exception):
    """Operands that do not fit; the message is in terms of shapes, the caller adds the place."""


@dataclass(frozen=True)
class Type:
    """``axes`` in the program's axis order, then ``shape``; ``kind`` is ``real`` or ``int``."""

    shape: tuple[Dim, ...] = ()
    axes: tuple[str, ...] = ()
    kind: str = "real"

    @property
    def shown(self) -> str:
        """The shape as a user writes it, without mapped axes."""
        return ("int" if self.kind == "int" else "") + "[" + ", ".join(str(d) for d in self.shape) + "]"

    def __str__(self) -> str:
        shape = "[" + ", ".join(str(d) for d in self.shape) + "]"
        prefix = "int" if self.kind == "int" else ""
        return prefix + shape + ("{" + ", ".join(self.axes) + "}" if self.axes else "")


@dataclass(frozen=True)
class Clock:
    """Fires at ticks ``t`` (from 1) with ``t % period == 0`` (``start=False``) or ``(t-1) % period == 0``."""

    period: int
    start: bool = False

    def fires(self, tick: int) -> bool:
        return (tick - 1 if self.start else tick) % self.period == 0

    def __str__(self) -> str:
        return f"every {self.period}" + (" start" if self.start else "")


def axis_order(names: tuple[str, ...], declared: tuple[str, ...]) -> tuple[str, ...]:
    """``names`` in the canonical order: batch, time, then as declared."""
    rank = {BATCH: -2, TIME: -1} | {name: i for i, name in enumerate(declared) if name not in (BATCH, TIME)}
    return tuple(sorted(set(names), key=lambda name: rank[name]))


def broadcast_shapes(shapes: list[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """The common shape, aligned from the right; raises ShapeError."""
    rank = max(len(s) for s in shapes)
    out: list[Dim] = []
    for position in range(rank):
        size: Dim = 1
        for shape in shapes:
            offset = position - (rank - len(shape))
            if offset < 0 or shape[offset] == 1 or shape[offset] == size:
                continue
            if size != 1:
                shown = " and ".join("[" + ", ".join(map(str, s)) + "]" for s in shapes)
                raise ShapeError(f"shapes {shown} do not fit: {size} is not {shape[offset]}")
            size = shape[offset]
        out.append(size)
    return tuple(out)
