"""Products of decays over the ticks of a segment. None divides: a decay may be zero.

Long segments go by blocks of about the root of their ticks, so that no entry of a table takes a product over a whole
segment: T^2 operations and not T^3.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import Node, held
from nldsl.backends.iree.shapes import cut, join, lined, reshape

AT_ONCE = 16  # ticks of a segment whose products are made one by one


def cumprod(low: Lower, node: Node, reverse: bool, exclusive: bool, dim: int = 0) -> Node:
    """One product over the factors of each tick: n^2 of them, all at once."""
    n, before, rest = node.shape[dim], node.shape[:dim], node.shape[dim + 1 :]
    if n == 1:
        return low.stretched(low.literal(1.0), node.axes, node.shape) if exclusive else node
    node = laid_out(low, node)
    shape = (*before, n, n, *rest)
    t, u = lined(low, dim, shape), lined(low, dim + 1, shape)
    order = ("gt" if exclusive else "ge") if reverse else ("lt" if exclusive else "le")
    factors = low.view(node, node.axes, (*before, 1, n, *rest), spaced(node, dim))
    table = low.point("where", low.point(order, u, t), factors, low.literal(1.0))
    return low.reduce(table, (len(table.axes) + dim + 1,), "mul")


def segprod(low: Lower, node: Node) -> Node:
    """[T, ..] -> [T, T, ..]: the products of the factors after s, up to t; 0 for s > t."""
    n, rest = node.shape[0], node.shape[1:]
    if n == 1:
        return low.stretched(low.literal(1.0), node.axes, (n, n, *rest))
    node = laid_out(low, node)
    shape = (n, n, *rest)
    if n <= AT_ONCE:
        found = reshape(low, between(low, reshape(low, node, (1, n, *rest))), shape)
        return low.point("where", low.point("ge", *_ticks(low, shape)), found, low.literal(0.0))
    size = 1 << (n.bit_length() + 1) // 2
    blocks = -(-n // size)
    factors = padded(low, node, blocks * size, 1.0)
    factors = low.force(reshape(low, factors, (blocks, size, *rest)))
    upto, after, whole = ends(low, factors)
    return cut_square(low, _joined(low, (between(low, factors), upto, after), whole), n)


def _joined(low: Lower, parts: tuple[Node, Node, Node], whole: Node) -> Node:
    """[P * b, P * b, ..] from the products within a block, up to its ticks, after its ticks, and of all of it."""
    within, upto, after = parts
    blocks, size, rest = within.shape[0], within.shape[1], within.shape[3:]
    shape = (blocks, size, blocks, size, *rest)
    lead, last = len(within.axes), range(4, 4 + len(rest))

    def over(node: Node, *dims: int) -> Node:
        """The value along these dims of the table."""
        own = tuple(shape[d] if d in dims else 1 for d in range(4))
        return low.view(node, node.axes, (*own, *rest), [*range(lead), *(lead + d for d in (*dims, *last))])

    skipped = low.force(between(low, reshape(low, whole, (1, blocks, *rest)), strict=True))
    passed = over(reshape(low, skipped, (blocks, blocks, *rest)), 0, 2)
    later, t, earlier, s = (lined(low, d, shape) for d in range(4))
    across = low.point("mul", low.point("mul", over(upto, 0, 1), passed), over(after, 2, 3))
    zero = low.literal(0.0)
    same = low.point("where", low.point("ge", t, s), over(within, 0, 1, 3), zero)
    other = low.point("where", low.point("gt", later, earlier), across, zero)
    table = low.point("where", low.point("eq", later, earlier), same, other)
    return reshape(low, table, (blocks * size, blocks * size, *rest))


def ends(low: Lower, factors: Node) -> tuple[Node, Node, Node]:
    """Of blocks [P, b, ..]: the products up to each tick, those after it, and of all ticks [P, 1, ..]."""
    upto = low.force(cumprod(low, factors, False, False, 1))
    after = low.force(cumprod(low, factors, True, True, 1))
    return upto, after, cut(low, upto, len(upto.axes) + 1, factors.shape[1] - 1, 1)


def between(low: Lower, factors: Node, strict: bool = False) -> Node:
    """[P, b, ..] -> [P, b, b, ..]: the products of the factors after s, up to t (``strict``: before t); 1 for s > t."""
    blocks, size, rest = factors.shape[0], factors.shape[1], factors.shape[2:]
    shape = (blocks, size, size, size, *rest)
    t, s, u = (lined(low, d, shape) for d in (1, 2, 3))
    lead = len(factors.axes)
    where = [*range(lead), lead, *(lead + 3 + d for d in range(1 + len(rest)))]
    view = low.view(factors, factors.axes, (blocks, 1, 1, size, *rest), where)
    inside = low.point("logical_and", low.point("lt" if strict else "le", u, t), low.point("gt", u, s))
    table = low.point("where", inside, view, low.literal(1.0))
    return low.force(low.reduce(table, (len(table.axes) + 3,), "mul"))


def laid_out(low: Lower, node: Node) -> Node:
    """The factors of ticks as a tensor along the ticks, also where all are the same (a number, a parameter): IREE 3.13
    makes wrong products in short segments where nothing that a product reads has its dim."""
    if len(node.axes) in held(node):
        return node
    made = low.full(node)
    return replace(made, ssa=low.text.apart(made.ssa, made.sizes, made.elem))


def spaced(node: Node, at: int) -> list[int | None]:
    """Where the dims of a value go when a logical dim is put in at ``at``."""
    lead = len(node.axes)
    return [*range(lead), *(lead + n + (n >= at) for n in range(len(node.shape)))]


def padded(low: Lower, node: Node, size: int, fill: float) -> Node:
    """With more ticks at the end, whose entries are ``fill``."""
    n = node.shape[0]
    if n == size:
        return node
    return join(low, [node, low.stretched(low.literal(fill), node.axes, (size - n, *node.shape[1:]))], 0)


def cut_square(low: Lower, node: Node, n: int) -> Node:
    """The first ``n`` rows and columns of a table."""
    lead = len(node.axes)
    return node if node.shape[0] == n else cut(low, cut(low, node, lead, 0, n), lead + 1, 0, n)


def _ticks(low: Lower, shape: tuple[int, ...]) -> tuple[Node, Node]:
    return lined(low, 0, shape), lined(low, 1, shape)
