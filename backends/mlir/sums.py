"""Results of a backward loop that are added over lanes: the lanes give their parts, and the caller adds them.

    axis_sum(axis_sum(x, time), heads)   -->   axis_sum(x, time), to be added over ``heads``

A sum of such sums is taken apart into terms; time and other axes that a lane has within itself are summed by the lane.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from nldsl.ir.backward import Leaf
from nldsl.ir.program import Instr
from nldsl.ir.types import BATCH


@dataclass(frozen=True)
class Term:
    """Part of a sum: a value of the body, and the axes over which the caller adds it."""

    leaf: Leaf
    value: int
    gone: tuple[str, ...]


def split_sums(
    body: Sequence[Instr], sums: Sequence[tuple[Leaf, int]], inner: Sequence[str]
) -> tuple[tuple[Instr, ...], tuple[Term, ...]]:
    """The body with the sums of the terms over ``inner`` axes, and the terms."""
    found = list(body)
    terms: list[Term] = []
    for leaf, root in sums:
        stack: list[tuple[int, tuple[str, ...]]] = [(root, ())]
        while stack:
            value, gone = stack.pop()
            instr = body[value]
            if instr.op == "axis_sum":
                stack.append((instr.args[0], (*gone, instr.attr("axis"))))
            elif instr.op == "add" and all(body[a].type.shape == instr.type.shape for a in instr.args):
                stack += [(a, gone) for a in reversed(instr.args)]
            else:
                # a lane has some of the sequences: it adds up its own
                outer = tuple(sorted(a for a in gone if a not in inner or a == BATCH))
                for axis in gone:
                    if axis in inner:
                        type = found[value].type
                        without = replace(type, axes=tuple(a for a in type.axes if a != axis))
                        found.append(
                            Instr("axis_sum", (value,), (("axis", axis),), without, None, instr.name, instr.span)
                        )
                        value = len(found) - 1
                terms.append(Term(leaf, value, outer))
    return tuple(found), tuple(terms)


def shared_streams(
    body: Sequence[Instr], outputs: Sequence[tuple[int, int]], lanes: Sequence[str]
) -> tuple[tuple[tuple[int, int], ...], dict[int, tuple[str, ...]]]:
    """The outputs without the last sums over axes of ``lanes``, and which axes each of them then has to spare: the
    cotangent of a stream that all lanes share, of which each lane gives its part."""
    found: list[tuple[int, int]] = []
    surplus: dict[int, tuple[str, ...]] = {}
    for stream, inside in outputs:
        value, gone = inside, list[str]()
        while body[value].op == "axis_sum" and body[value].attr("axis") in lanes:
            gone.append(body[value].attr("axis"))
            value = body[value].args[0]
        found.append((stream, value))
        surplus[stream] = tuple(gone)
    return tuple(found), surplus


def mixed_axes(body: Sequence[Instr], needed: Set[int], skip: frozenset[int]) -> set[str]:
    """The axes that an operation looks along; ``skip``: sums that the caller does."""
    mixed: set[str] = set()
    for value in needed - skip:
        instr = body[value]
        if instr.op in ("collect", "spread", "axis_sum", "lane"):
            mixed.add(instr.attr("axis"))
        elif instr.op == "batch_mean":
            mixed.add(BATCH)
    return mixed


def peeled(body: Sequence[Instr], sums: Sequence[tuple[Leaf, int]]) -> frozenset[int]:
    """The sums over axes at the very end of a body, which ``split_sums`` may leave to the caller."""
    found: set[int] = set()
    for _, root in sums:
        stack = [root]
        while stack:
            instr = body[stack[-1]]
            value = stack.pop()
            if instr.op == "axis_sum":
                found.add(value)
                stack.append(instr.args[0])
            elif instr.op == "add":
                stack.extend(instr.args)
    return frozenset(found)
