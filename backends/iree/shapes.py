"""Operations that only move entries: reshapes, slices, concatenations, axes, indexing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import BOOL, REAL, Gather, Held, Node, Size, held


def reshape(low: Lower, node: Node, shape: tuple[int, ...]) -> Node:
    """The entries in the same order."""
    lead = len(node.axes)
    old = [(lead + n, s) for n, s in enumerate(node.shape) if s != 1]
    new = [(lead + n, s) for n, s in enumerate(shape) if s != 1]
    if [s for _, s in old] == [s for _, s in new]:
        where: list[int | None] = [*range(lead), *([None] * len(node.shape))]
        for (d, _), (w, _) in zip(old, new, strict=True):
            where[d] = w
        return low.view(node, node.axes, shape, where)
    groups = _regrouped([s for _, s in old], [s for _, s in new])
    seen = held(node)
    axes = [d for d in range(lead) if d in seen]
    flat = low.laid(node, [*axes, *(d for d, _ in old)])
    lead_sizes = [[s] for s in flat.sizes[: len(axes)]]
    middle: list[Size] = [*(s for (s,) in lead_sizes)]
    for before, _ in groups:
        total = 1
        for s in before:
            total *= s
        middle.append(total)
    ssa = low.text.collapse(flat.ssa, flat.sizes, flat.elem, [*lead_sizes, *(b for b, _ in groups)], middle)
    ssa = low.text.expand(ssa, middle, flat.elem, [*lead_sizes, *(a for _, a in groups)])
    sizes = [*(s for (s,) in lead_sizes), *(s for _, after in groups for s in after)]
    return Held(node.axes, shape, flat.elem, ssa, tuple(sizes), (*axes, *(d for d, _ in new)))


def _regrouped(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of dims that have equally many entries."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = [old[i]], [new[j]]
        left, right = old[i], new[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                before.append(old[i])
                left, i = left * old[i], i + 1
            else:
                after.append(new[j])
                right, j = right * new[j], j + 1
        found.append((before, after))
    return found


def cut(low: Lower, node: Node, dim: int, start: Size, length: int) -> Node:
    """``length`` entries along dim ``dim`` (axes count)."""
    lead = len(node.axes)
    assert dim >= lead, "axes are cut by the loops"
    shape = (*node.shape[: dim - lead], length, *node.shape[dim - lead + 1 :])
    if node.shape[dim - lead] == length:
        return node
    if dim not in held(node):
        return low.view(node, node.axes, shape, [None if d == dim else d for d in range(node.rank)])
    whole = low.force(node)
    if whole.where.count(dim) > 1:
        whole = low.laid(whole, sorted(set(whole.where)))
    place = whole.where.index(dim)
    if length == 1:
        return replace(pick(low, whole, dim, start), shape=shape, where=tuple(w for w in whole.where if w != dim))
    ssa = low.text.cut(whole.ssa, whole.sizes, whole.elem, place, start, length)
    sizes = tuple(length if n == place else s for n, s in enumerate(whole.sizes))
    return replace(whole, shape=shape, ssa=ssa, sizes=sizes)


def part(low: Lower, node: Node, dim: int, start: int, stop: int) -> Node:
    """Some entries along a logical dim."""
    return cut(low, node, len(node.axes) + dim, start, stop - start)


def pick(low: Lower, node: Node, dim: int, start: Size) -> Held:
    """One entry along a dim, without the dim."""
    whole = low.force(node)
    if whole.where.count(dim) > 1:
        whole = low.laid(whole, sorted(set(whole.where)))
    lead = len(whole.axes)
    axes = whole.axes[:dim] + whole.axes[dim + 1 :] if dim < lead else whole.axes
    shape = whole.shape if dim < lead else whole.shape[: dim - lead] + whole.shape[dim - lead + 1 :]
    where = tuple(w - (w > dim) for w in whole.where if w != dim)
    if dim not in whole.where:
        return replace(whole, axes=axes, shape=shape, where=where)
    place = whole.where.index(dim)
    ssa = low.text.cut(whole.ssa, whole.sizes, whole.elem, place, start, None)
    sizes = tuple(s for n, s in enumerate(whole.sizes) if n != place)
    return Held(axes, shape, whole.elem, ssa, sizes, where)


def join(low: Lower, parts: Sequence[Node], dim: int) -> Node:
    """Side by side along logical dim ``dim``."""
    parts = [p for p in parts if p.shape[dim]]
    if len(parts) == 1:
        return parts[0]
    axes = low.merged(parts)
    rank = len(parts[0].shape)
    full = [low.stretched(p, axes, p.shape) for p in parts]
    place = len(axes) + dim
    dims = sorted({d for p in full for d in held(p)} | {place})
    total = sum(p.shape[dim] for p in parts)
    shape = tuple(total if n == dim else parts[0].shape[n] for n in range(rank))
    elem = REAL if any(p.elem in (REAL, BOOL) for p in full) else full[0].elem
    made = Held(axes, shape, elem, "", (), ())
    dims = [d for d in dims if low.size(made, d) != 1]
    sizes = tuple(low.size(made, d) for d in dims)
    target, at = low.text.empty(sizes, elem), 0
    for part in full:
        same = part if part.elem == elem else low.point("to_real", part)
        own = low.laid(same, dims)
        length = part.shape[dim]
        piece = (own.ssa, own.sizes)
        target = low.text.put(piece, (target, sizes), elem, dims.index(place), at, None if length == 1 else length)
        at += length
    return Held(axes, shape, elem, target, sizes, tuple(dims))


def pad(low: Lower, node: Node, dim: int, before: int, after: int) -> Node:
    """Zeros around a logical dim."""

    def zeros(n: int) -> Node:
        shape = (*node.shape[:dim], n, *node.shape[dim + 1 :])
        return low.stretched(low.literal(0.0 if node.elem != "i64" else 0), node.axes, shape)

    return join(low, [zeros(before), node, zeros(after)], dim)


def spread(low: Lower, node: Node, axis: str) -> Node:
    """The first logical dim as an axis; where the value has the axis already, lane h takes row h of its own."""
    lead = len(node.axes)
    axes = tuple(a for a in low.order if a in {*node.axes, axis})
    where = [axes.index(a) for a in node.axes]
    place = axes.index(axis)
    rest = [len(axes) + n for n in range(len(node.shape) - 1)]
    first: int | None = place if node.shape[0] != 1 else None
    del lead
    return low.view(node, axes, node.shape[1:], [*where, first, *rest])


def collect(low: Lower, node: Node, axis: str, size: int) -> Node:
    """An axis as the first logical dim."""
    axes = tuple(a for a in node.axes if a != axis)
    where: list[int | None] = [len(axes) if a == axis else axes.index(a) for a in node.axes]
    where += [len(axes) + 1 + n for n in range(len(node.shape))]
    return low.view(node, axes, (size, *node.shape), where)


def gather(
    low: Lower, source: Node, axes: tuple[str, ...], shape: tuple[int, ...], index: dict[int, Node | int]
) -> Node:
    """Entries of ``source``: ``index`` says for each of its dims where (see ``Gather``)."""
    whole = low.force(source)
    return Gather(axes, shape, whole.elem, whole, tuple(index[w] for w in whole.where))


def lined(low: Lower, counter_of: int, node_shape: tuple[int, ...]) -> Node:
    """The place along logical dim ``counter_of`` of a value of this shape."""
    shape = (node_shape[counter_of], *(1 for _ in node_shape[counter_of + 1 :]))
    where = [0]
    return low.view(low.counter(n=node_shape[counter_of]), (), shape, where)


def flip(low: Lower, node: Node, dim: int) -> Node:
    """From the end to the beginning along a logical dim."""
    place = len(node.axes) + dim
    if place not in held(node):
        return node
    last = low.literal(node.shape[dim] - 1)
    backward = low.point("sub", last, lined(low, dim, node.shape))
    index: dict[int, Node | int] = {d: d for d in range(node.rank)}
    index[place] = backward
    return gather(low, node, node.axes, node.shape, index)


def rows(low: Lower, table: Node, index: Node) -> Node:
    """``take``: for each index the row of the table; an index outside takes the nearest row."""
    axes = low.merged([table, index])
    shape = (*index.shape, *table.shape[1:])
    lead, picks = len(table.axes), len(index.shape)
    bounded = low.point("minimum", low.point("maximum", index, low.literal(0)), low.literal(table.shape[0] - 1))
    places = low.view(bounded, index.axes, (*index.shape, *(1 for _ in table.shape[1:])), list(range(index.rank)))
    where: dict[int, Node | int] = {n: axes.index(a) for n, a in enumerate(table.axes)}
    where[lead] = places
    where.update({lead + 1 + n: len(axes) + picks + n for n in range(len(table.shape) - 1)})
    return gather(low, table, axes, shape, where)


def one_hot(low: Lower, index: Node, n: int) -> Node:
    """1 at the index, 0 elsewhere, along a last dim of length ``n``."""
    last = low.view(index, index.axes, (*index.shape, 1), list(range(index.rank)))
    return low.point("to_real", low.point("eq", last, low.counter(n=n)))


def scatter_rows(low: Lower, values: Node, index: Node, n: int) -> Node:
    """``scatter_add``: a table of ``n`` rows, row r the sum of those whose index is r."""
    picks = len(index.shape)
    rest = len(values.shape) - picks
    lead = low.view(index, index.axes, (*index.shape, 1, *(1 for _ in range(rest))), list(range(index.rank)))
    own = values.axes
    where = [*range(len(own) + picks), *(len(own) + picks + 1 + d for d in range(rest))]
    spaced = low.view(values, own, (*values.shape[:picks], 1, *values.shape[picks:]), where)
    count = low.view(low.counter(n=n), (), (n, *(1 for _ in range(rest))), [0])
    hit = low.point("where", low.point("eq", lead, count), spaced, low.literal(0.0))
    return low.reduce(hit, range(len(hit.axes), len(hit.axes) + picks))
