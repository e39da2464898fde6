"""Several writes into one state side by side: one product instead of a sum of products.

    sum over w:  k_w^T u_w   -->   [k_1; k_2; ..]^T [u_1; u_2; ..]

Each write must be a product of a part on the *lanes* (the dims of the unknown, or those that a read keeps) and a part
on the other dims, the *keys*.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.dims import Dim
from nldsl.ir.chunk import TICKS
from nldsl.passes.affine import Term
from nldsl.passes.chunk_values import FROM, Values
from nldsl.passes.contract import Letter, Operand, placed


@dataclass(frozen=True)
class Stack:
    """``keys``: [count * T, keys], ``lanes``: [count * T, lanes], the first dim with the letter ``FROM``."""

    count: int
    keys: Operand
    lanes: Operand


def stacked(
    values: Values, writes: list[Term], nodes: dict[int, int], lanes: tuple[int, ...], sizes: list[Dim]
) -> Stack | None:
    """Two or more matched writes into one state as one, or None where they are not such products."""
    if len(writes) < 2:
        return None
    dims = {x for w in writes for x in w.out if x is not None}
    keys = tuple(x for x in writes[0].out if x is not None and x not in lanes)
    if not keys or not lanes or dims != {*keys, *lanes}:
        return None
    left, right = [], []
    for write in writes:
        if not set(write.letters) <= {*lanes, None}:
            return None
        own, rest = [], []
        for factor in write.factors:
            letters = {x for x in factor.letters if x is not None}
            if letters & set(keys):
                if not letters <= set(keys):
                    return None
                own.append(values.factor(factor, FROM))
            elif letters <= set(lanes):
                rest.append(values.factor(factor, FROM))
            else:
                return None
        if write.source is not None:
            assert isinstance(write.source.key, int)
            rest.append(Operand(nodes[write.source.key], (FROM, *write.letters)))
        left.append(_rows(values, own, keys, 1.0, sizes))
        right.append(_rows(values, rest, lanes, write.scale, sizes))
    builder = values.builder
    key_rows, lane_rows = builder.emit("concat", *left, dim=0), builder.emit("concat", *right, dim=0)
    return Stack(len(writes), Operand(key_rows, (FROM, *keys)), Operand(lane_rows, (FROM, *lanes)))


def tiled(values: Values, value: int, count: int, dim: int) -> int:
    """``count`` copies one after the other along a dim."""
    return values.builder.emit("concat", *([value] * count), dim=dim)


def _rows(values: Values, operands: list[Operand], letters: tuple[int, ...], scale: float, sizes: list[Dim]) -> int:
    order: tuple[Letter, ...] = (FROM, *letters)
    value = placed(values.builder, values.product(operands, order, scale), order)
    return values.stretched(value, (TICKS, *(sizes[x] for x in letters)))
