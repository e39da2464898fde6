"""``grad`` by its definition: for each lane of the loss one reverse sweep over the operations of the tick."""

from __future__ import annotations

import numpy as np

from nldsl.backends.reference.tape import Tape
from nldsl.backends.reference.values import CONSTANT, Array, Value
from nldsl.ir.types import Type


def derivative_per_lane(tape: Tape, loss: Value, x: Value, out: Type, start: int) -> Array:
    """In each lane of ``out``: the derivative of the loss of that lane with respect to ``x`` of that lane.

    Nodes before ``start`` belong to earlier ticks and are constants.
    """
    sizes = dict(zip((*loss.type.axes, *x.type.axes), (*loss.array.shape, *x.array.shape), strict=False))
    shape = tuple(sizes[axis] for axis in out.axes) + x.array.shape[len(x.type.axes) :]
    result = np.zeros(shape)
    if loss.node == CONSTANT or x.node == CONSTANT:
        return result
    for index in np.ndindex(loss.array.shape):
        seed = np.zeros(loss.array.shape)
        seed[index] = 1.0
        found = tape.backward({loss.node: seed}, start).get(x.node)
        if found is None:
            continue
        lane: dict[str, int | slice] = dict(zip(loss.type.axes, index, strict=True))
        target = tuple(lane.get(axis, slice(None)) for axis in out.axes)
        result[target] = found[tuple(lane.get(axis, slice(None)) for axis in x.type.axes)]
    return result
