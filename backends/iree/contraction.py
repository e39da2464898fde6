"""Sums of products: two operands at a time."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import BOOL, INT, REAL, Contract, Node, Size, held
from nldsl.ir.ops import split_spec


def einsum(low: Lower, spec: str, args: Sequence[Node]) -> Node:
    """``spec`` on the logical dims, mapped over the axes."""
    inputs, output = split_spec(spec)
    letters, out = [_marked(own) for own in inputs], _marked(output)
    labels = [(*arg.axes, *own) for arg, own in zip(args, letters, strict=True)]
    args = [low.point("to_real", a) if a.elem in (INT, BOOL) else a for a in args]
    axes = low.merged(args)
    sizes: dict[str, Size] = {a: low.sizes[a] for a in axes}
    for arg, own in zip(args, letters, strict=True):
        sizes.update(zip(own, arg.shape, strict=True))
    pairs = list(zip(args, labels, strict=True))
    final = (*axes, *out)
    while len(pairs) > 2:
        first, second = _cheapest(pairs, final, sizes)
        rest = [p for n, p in enumerate(pairs) if n not in (first, second)]
        needed = {label for _, own in rest for label in own} | set(final)
        seen = dict.fromkeys((*pairs[first][1], *pairs[second][1]))
        kept = tuple(label for label in seen if label in needed)
        kept = (*(a for a in low.order if a in kept), *(label for label in kept if label not in low.order))
        pairs = [*rest, (_product(low, [pairs[first], pairs[second]], kept, sizes), kept)]
    return _product(low, pairs, final, sizes)


def _marked(letters: str) -> tuple[str, ...]:
    """Labels of logical dims, which no axis is called."""
    return tuple("'" + letter for letter in letters)


def _product(
    low: Lower, pairs: Sequence[tuple[Node, tuple[str, ...]]], out: tuple[str, ...], sizes: dict[str, Size]
) -> Node:
    axes = tuple(label for label in out if label in low.order)
    shape = tuple(int(sizes[label]) for label in out if label not in low.order)
    if len(pairs) == 1:
        return _alone(low, *pairs[0], out, axes, shape)
    seen: dict[str, set[int]] = {}
    for n, (arg, labels) in enumerate(pairs):
        for d in held(arg):
            seen.setdefault(labels[d], set()).add(n)
    if all(label in out for label in seen) and all(len(set(own)) == len(own) for _, own in pairs):
        return _pointwise(low, pairs, out, axes, shape, sizes)
    return Contract(axes, shape, REAL, tuple(a for a, _ in pairs), tuple(own for _, own in pairs), out, dict(sizes))


def _pointwise(
    low: Lower,
    pairs: Sequence[tuple[Node, tuple[str, ...]]],
    out: tuple[str, ...],
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    sizes: dict[str, Size],
) -> Node:
    """Nothing that differs is summed over: a product, times the sizes of what is summed."""
    views = []
    for arg, labels in pairs:
        where = [out.index(label) if label in out else None for label in labels]
        views.append(low.view(arg, axes, shape, where))
    factors = {label for _, own in pairs for label in own} - set(out)
    found = low.point("mul", *views)
    return low.times(found, [sizes[label] for label in sorted(factors)])


def _alone(
    low: Lower, arg: Node, labels: tuple[str, ...], out: tuple[str, ...], axes: tuple[str, ...], shape: tuple[int, ...]
) -> Node:
    """One operand: its dims in another order, diagonals, and sums."""
    order = [*out, *dict.fromkeys(label for label in labels if label not in out)]
    extra = order[len(out) :]
    sizes = dict(zip(labels, low.dims(arg), strict=True))
    inner = tuple(int(sizes[label]) for label in extra if label not in low.order)
    assert all(label not in low.order for label in extra), "einsum is mapped over axes"
    view = low.view(arg, axes, (*shape, *inner), [order.index(label) for label in labels])
    return low.reduce(view, range(len(out), len(order)))


def _cheapest(
    pairs: Sequence[tuple[Node, tuple[str, ...]]], final: tuple[str, ...], sizes: dict[str, Size]
) -> tuple[int, int]:
    """The two operands whose product takes the fewest multiplications."""

    def count(label: str) -> int:
        size = sizes[label]
        return size if isinstance(size, int) else 64

    best, found = None, (0, 1)
    for i in range(len(pairs)):
        for j in range(i + 1, len(pairs)):
            seen = set(pairs[i][1]) | set(pairs[j][1])
            rest = {label for n, p in enumerate(pairs) if n not in (i, j) for label in p[1]} | set(final)
            cost, left = 1, 1
            for label in seen:
                cost *= count(label)
                left *= count(label) if label in rest else 1
            if best is None or (cost + left) < best:
                best, found = cost + left, (i, j)
    return found
