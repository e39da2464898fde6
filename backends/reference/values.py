"""Arrays with their types, and how operands of an operation are laid out.

A value is stored as one array: its mapped axes in the program's order, then its logical dims. Before an operation
all operands get the same leading dims, of length 1 for an axis that a value does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nldsl.ir.types import Type

Array = NDArray[Any]
CONSTANT = -1


@dataclass(frozen=True)
class Value:
    """``node``: its place on the tape, if there is one."""

    array: Array
    type: Type
    node: int = CONSTANT


@dataclass(frozen=True)
class Frame:
    """Where one operation is evaluated: ``axes`` are the leading dims of its operands."""

    axes: tuple[str, ...]
    out: Type
    sizes: dict[str, int]
    attrs: dict[str, Any] = field(default_factory=dict)
    tick: int = 0

    @property
    def lead(self) -> int:
        return len(self.axes)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return stored_shape(self.out, self.sizes)


def stored_shape(type: Type, sizes: dict[str, int]) -> tuple[int, ...]:
    """The shape of the array of a value of this type."""
    shape = [sizes[axis] for axis in type.axes]
    for size in type.shape:
        if not isinstance(size, int):
            raise ValueError(f"the interpreter needs numbers: the size {size} is not known")  # noqa: TRY004
        shape.append(size)
    return tuple(shape)


def lift(value: Value, axes: tuple[str, ...], rank: int | None = None) -> Array:
    """The array over ``axes``; its logical dims padded from the left to ``rank``."""
    own = iter(value.array.shape)
    lead = [next(own) if axis in value.type.axes else 1 for axis in axes]
    logical = list(own)
    padding = [1] * ((rank or 0) - len(logical))
    return value.array.reshape(lead + padding + logical)


def dtype_of(type: Type) -> Any:
    """What its array holds."""
    return np.int64 if type.kind == "int" else np.float64
