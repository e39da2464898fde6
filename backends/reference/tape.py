"""Reverse mode over the NumPy operations that were executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nldsl.backends.reference.pullbacks import PULLBACKS, Back
from nldsl.backends.reference.values import CONSTANT, Array, Frame, Value
from nldsl.ir.types import Type


@dataclass(frozen=True)
class Node:
    """One executed operation; ``operands`` are laid out as the operation saw them."""

    op: str
    frame: Frame | None
    parents: tuple[Value, ...]
    operands: tuple[Array, ...]
    out: Array


class Tape:
    """Grows while an interpreter runs on it; see ``backward``."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def leaf(self, array: Array, type: Type) -> Value:
        """A value whose cotangent may be asked for."""
        self.nodes.append(Node("leaf", None, (), (), array))
        return Value(array, type, len(self.nodes) - 1)

    def record(self, op: str, frame: Frame, parents: Sequence[Value], operands: Sequence[Array], out: Array) -> Value:
        """The result of an operation; a constant if no operand can be differentiated."""
        if frame.out.kind == "int" or all(p.node == CONSTANT for p in parents):
            return Value(out, frame.out)
        self.nodes.append(Node(op, frame, tuple(parents), tuple(operands), out))
        return Value(out, frame.out, len(self.nodes) - 1)

    def backward(self, seeds: dict[int, Array], stop: int = 0) -> dict[int, Array]:
        """The cotangent of every node that influences a seed. Nodes before ``stop`` are constants: they get a
        cotangent, but pass nothing on."""
        cotangents = {node: np.array(seed, dtype=np.float64) for node, seed in seeds.items() if node != CONSTANT}
        for place in range(max(cotangents, default=-1), stop - 1, -1):
            node = self.nodes[place]
            if place not in cotangents or node.frame is None:
                continue
            if node.op not in PULLBACKS:
                raise NotImplementedError(f"the derivative of {node.op}: expand derivatives (passes/derive.py) first")
            with np.errstate(all="ignore"):  # an infinite slope is a value, as in the forward pass
                parts = PULLBACKS[node.op](Back(node.frame, cotangents[place], node.out, node.operands))
            for parent, operand, part in zip(node.parents, node.operands, parts, strict=True):
                if parent.node == CONSTANT or part is None:
                    continue
                whole = _sum_to(part, operand.shape).reshape(parent.array.shape)
                cotangents[parent.node] = cotangents[parent.node] + whole if parent.node in cotangents else whole
        return cotangents


def _sum_to(array: Array, shape: tuple[int, ...]) -> Array:
    """``array`` summed over the dims that were stretched from ``shape``."""
    lead = array.ndim - len(shape)
    if lead < 0:  # a scalar cotangent where nothing was stretched
        return np.broadcast_to(array, shape)
    array = array.sum(axis=tuple(range(lead)))
    pairs = enumerate(zip(array.shape, shape, strict=True))
    stretched = tuple(i for i, (have, want) in pairs if want == 1 and have != 1)
    return np.broadcast_to(array.sum(axis=stretched, keepdims=True) if stretched else array, shape)
