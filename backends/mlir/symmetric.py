"""Products whose results are symmetric matrices: the half above the diagonal is a copy of the one below.

Found in the algebra of a body, not in what it is for: a product is symmetric along two labels if it is the same product
with them exchanged (``X X'``; ``A A`` where ``A`` is symmetric itself), and pointwise work on symmetric values is. Both
halves are sums of the same terms in the same order, so nothing is rounded in another way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nldsl.backends.mlir.lane import Lane
from nldsl.backends.mlir.nests import transposed
from nldsl.backends.mlir.views import View
from nldsl.ir import ops
from nldsl.ir.ops import split_spec

Pairs = frozenset[tuple[int, int]]  # of dimensions that may be exchanged, the first one before the second
NONE: Pairs = frozenset()


def symmetries(lane: Lane) -> dict[int, Pairs]:
    """Of each needed value, pairs of its dimensions (inner axes first); values without any are left out."""
    found: dict[int, Pairs] = {}
    for value in sorted(lane.needed):
        pairs = _product(lane, value, found) or _pointwise(lane, value, found)
        if pairs:
            found[value] = pairs
    return found


def _product(lane: Lane, value: int, known: Mapping[int, Pairs]) -> Pairs:
    if value in lane.products:
        product = lane.products[value]
        args, labels, output = product.args, product.labels, product.output
    elif lane.body[value].op == "einsum":
        letters, out = split_spec(lane.body[value].attr("spec"))
        args = tuple(lane.body[value].args)
        labels = tuple((*lane.axes(a), *text) for a, text in zip(args, letters, strict=True))
        output = (*lane.axes(value), *out)
    else:
        return NONE
    if len(set(output)) < len(output):
        return NONE
    dims, found = lane.dims(value), set[tuple[int, int]]()
    usual = Counter(_ordered(a, own, known) for a, own in zip(args, labels, strict=True))
    for second in range(len(output)):
        for first in range(second):
            if dims[first] != dims[second] or dims[first] == 1:
                continue
            swap = {output[first]: output[second], output[second]: output[first]}
            swapped = [tuple(swap.get(x, x) for x in own) for own in labels]
            if Counter(_ordered(a, own, known) for a, own in zip(args, swapped, strict=True)) == usual:
                found.add((first, second))
    return frozenset(found)


def _ordered(arg: int, labels: Sequence[str], known: Mapping[int, Pairs]) -> tuple[int, tuple[str, ...]]:
    """An operand with its labels, those of dimensions that may be exchanged in order."""
    own = list(labels)
    for first, second in sorted(known.get(arg, NONE)):
        own[first], own[second] = sorted((own[first], own[second]))
    return arg, tuple(own)


def _pointwise(lane: Lane, value: int, known: Mapping[int, Pairs]) -> Pairs:
    instr = lane.body[value]
    if instr.op not in ops.POINTWISE or not any(a in known for a in instr.args):
        return NONE
    outer, rank = lane.axes(value), len(lane.dims(value))
    operands: list[tuple[set[int], set[tuple[int, int]]]] = []
    for arg in instr.args:
        own, dims = lane.axes(arg), lane.dims(arg)
        inner = len(dims) - len(own)
        places = [outer.index(a) for a in own] + [rank - inner + n for n in range(inner)]
        wide = {place for place, size in zip(places, dims, strict=True) if size > 1}
        operands.append((wide, {(places[a], places[b]) for a, b in known.get(arg, NONE)}))
    candidates = set[tuple[int, int]]().union(*(pairs for _, pairs in operands))
    return frozenset(c for c in candidates if all(c in pairs or not wide & {*c} for wide, pairs in operands))


def mirror(lane: Lane, view: View, first: int, second: int, block: int) -> None:
    """Copy what lies below blocks of ``block`` columns on the diagonal of two dimensions to the other side of it."""
    size = view.dims[first]
    order = list(range(len(view.dims)))
    order[first], order[second] = second, first
    other = view.permuted(order)
    down, across = (second, first) if view.step(second) == 1 else (first, second)
    for start in range(0, size - block, block):
        source, target = (
            v.sliced(second, start, block).sliced(first, start + block, size - start - block) for v in (view, other)
        )
        with lane.f.fence():
            transposed(lane, source, target, down, across)
