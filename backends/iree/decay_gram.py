"""Gram matrices with a decay for each channel, and their derivative."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.backends.iree.carried import Carried
from nldsl.backends.iree.contraction import einsum
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import REAL, Held, Node
from nldsl.backends.iree.products import cut_square, ends, padded, spaced
from nldsl.backends.iree.shapes import join, lined, pad, part, pick, reshape

TICK_BY_TICK = 16  # ticks of the smallest blocks


# Products of decays up to a tick in its block, after it, and of the block: [P, b, K] twice, and [P, 1, K].
Ends = tuple[Node, Node, Node]


def _halves(low: Lower, node: Node) -> tuple[Node, Node]:
    """Every other block, from the first and from the second on."""
    blocks, *rest = node.shape
    pairs = reshape(low, node, (blocks // 2, 2, *rest))
    left, right = (part(low, pairs, 1, n, n + 1) for n in (0, 1))
    return reshape(low, left, (blocks // 2, *rest)), reshape(low, right, (blocks // 2, *rest))


def _above(low: Lower, ends: Ends) -> Ends:
    """The same for blocks of twice the size."""
    before, after, whole = (low.force(x) for x in ends)
    (bl, br), (al, ar), (wl, wr) = _halves(low, before), _halves(low, after), _halves(low, whole)
    return (
        join(low, [bl, low.point("mul", wl, br)], 1),
        join(low, [low.point("mul", al, wr), ar], 1),
        low.point("mul", wl, wr),
    )


def _levels(low: Lower, a: Node) -> list[Ends]:
    """For blocks of 1, 2, 4, .. ticks."""
    n, k = a.shape
    before = low.view(a, a.axes, (n, 1, k), spaced(a, 1))
    found: list[Ends] = [(before, low.stretched(low.literal(1.0), a.axes, (n, 1, k)), before)]
    while found[-1][0].shape[0] > 1:
        found.append(_above(low, found[-1]))
    return found


def _powers(low: Lower, nodes: Sequence[Node], fills: Sequence[float]) -> list[Held]:
    """Padded to a number of ticks that is a power of two."""
    size = 1 << (nodes[0].shape[0] - 1).bit_length()
    return [low.force(padded(low, node, size, fill)) for node, fill in zip(nodes, fills, strict=True)]


def decay_gram(low: Lower, q: Node, a: Node, k: Node) -> Node:
    """[T, K] -> [T, T]: the sum over c of q[t, c] * a[s+1, c] * .. * a[t, c] * k[s, c].

    Tick by tick within blocks of a few ticks, all blocks at once; between two halves of a larger block it is a product,
    of q with the decays since the half began and of k with those until it ended.
    """
    n, width = q.shape
    if n == 1:
        product = low.point("mul", q, k)
        return reshape(low, low.reduce(product, (product.rank - 1,)), (1, 1))
    ticks, decay, written = _powers(low, (q, a, k), (0.0, 1.0, 0.0))
    size = ticks.shape[0]
    b = min(TICK_BY_TICK, size)
    ticks, decay, written = (low.force(reshape(low, x, (size // b, b, width))) for x in (ticks, decay, written))
    table, decays = _within(low, ticks, decay, written), ends(low, decay)
    while b < size:
        shape = (size // b, b, width)
        before, after = _halves(low, decays[0])[1], _halves(low, decays[1])[0]
        late = low.force(low.point("mul", _halves(low, reshape(low, ticks, shape))[1], before))
        early = low.force(low.point("mul", _halves(low, reshape(low, written, shape))[0], after))
        across = low.force(einsum(low, "pic,pjc->pij", [late, early]))
        first, second = _halves(low, table)
        none = low.stretched(low.literal(0.0), (), across.shape)
        table = low.force(join(low, [join(low, [first, none], 2), join(low, [across, second], 2)], 1))
        b *= 2
        if b < size:
            decays = _above(low, decays)
    return cut_square(low, reshape(low, table, (size, size)), n)


def _within(low: Lower, q: Held, a: Held, k: Held) -> Node:
    """[P, b, K] -> [P, b, b]: one tick of all blocks after the other; keys are carried, with their decays so far."""
    blocks, b, _ = q.shape
    text = low.text
    keys = Carried.like(low, [a, k], q.shape, 1)
    made = Carried.like(low, [q, a, k], (blocks, b, b), 1)
    carried = [(text.unlike(c.sizes, REAL), c.sizes, REAL) for c in (keys, made)]
    with text.loop(b, carried) as (count, (now, out), end):
        here = low.inside()
        late = here.point("eq", lined(here, 1, q.shape), here.scalar(text.integer(count), "i64"))
        own = pick(here, a, len(a.axes) + 1, count)
        decay = here.view(own, own.axes, (blocks, 1, q.shape[2]), spaced(own, 1))
        moved = here.point("where", late, k, here.point("mul", keys.value(now), decay))
        kept = here.laid(here.stretched(moved, keys.axes, keys.shape), keys.where)
        row = einsum(here, "pc,psc->ps", [pick(here, q, len(q.axes) + 1, count), kept])
        results = end([kept.ssa, made.put(here, row, out, count)])
    return made.value(text.tied(results[1], made.sizes, REAL))


def _diagonal(low: Lower, node: Node) -> Node:
    """[P, b, P, b] -> [P, b, 1, b]: the blocks on the diagonal."""
    lead = len(node.axes)
    pairs, b = node.shape[:2]
    where = [*range(lead), lead, lead + 1, lead, lead + 3]
    return low.view(node, node.axes, (pairs, b, 1, b), where)


def decay_gram_grad(low: Lower, d: Node, q: Node, a: Node, k: Node) -> Node:
    """[3, T, K]: the cotangents of q, a and k; the levels of ``decay_gram`` from the last to the first."""
    n, width = q.shape
    q, a, k = _powers(low, (q, a, k), (0.0, 1.0, 0.0))
    size = q.shape[0]
    if size > n:
        d = pad(low, pad(low, d, 0, 0, size - n), 1, 0, size - n)
    d = low.force(d)
    levels = _levels(low, a)
    diagonal = low.view(d, d.axes, (size, 1), [*range(len(d.axes)), len(d.axes), len(d.axes)])
    d_q: Node = low.force(low.point("mul", diagonal, k))
    d_k: Node = low.force(low.point("mul", diagonal, q))
    d_before = d_after = low.stretched(low.literal(0.0), (), (1, size, width))
    d_whole = low.stretched(low.literal(0.0), (), (1, 1, width))
    b = size // 2
    for before, after, whole in reversed(levels[:-1]):
        pairs = size // (2 * b)
        blocks = reshape(low, d, (pairs, 2, b, pairs, 2, b))
        blocks = reshape(low, part(low, part(low, blocks, 1, 1, 2), 4, 0, 1), (pairs, b, pairs, b))
        block = low.force(einsum(low, "piqj->pij", [_diagonal(low, blocks)]))
        qr = _halves(low, reshape(low, q, (2 * pairs, b, width)))[1]
        kl = _halves(low, reshape(low, k, (2 * pairs, b, width)))[0]
        br, (al, _) = _halves(low, low.force(before))[1], _halves(low, low.force(after))
        wl, wr = _halves(low, low.force(whole))
        to_right = low.force(einsum(low, "pij,pjc->pic", [block, low.point("mul", kl, al)]))
        to_left = low.force(einsum(low, "pij,pic->pjc", [block, low.point("mul", qr, br)]))

        def both(left: Node, right: Node, pairs: int = pairs) -> Node:
            """[P, b, K] twice -> [P, 2, b, K] as blocks of half the size."""
            side = [reshape(low, x, (pairs, 1, *x.shape[1:])) for x in (left, right)]
            joined = join(low, [low.stretched(x, x.axes, x.shape) for x in side], 1)
            return reshape(low, joined, (2 * pairs, *left.shape[1:]))

        zero = low.stretched(low.literal(0.0), (), (pairs, b, width))
        d_q = low.force(low.point("add", d_q, reshape(low, both(zero, low.point("mul", br, to_right)), (size, width))))
        d_k = low.force(low.point("add", d_k, reshape(low, both(low.point("mul", al, to_left), zero), (size, width))))
        first, second = part(low, d_before, 1, 0, b), part(low, d_before, 1, b, 2 * b)
        third, fourth = part(low, d_after, 1, 0, b), part(low, d_after, 1, b, 2 * b)
        new_right = low.point("add", low.point("mul", wl, second), low.point("mul", qr, to_right))
        new_left = low.point("add", low.point("mul", wr, third), low.point("mul", kl, to_left))

        def summed(x: Node, pairs: int = pairs) -> Node:
            return reshape(low, low.reduce(x, (x.rank - 2,)), (pairs, 1, width))

        whole_left = low.point("add", summed(low.point("mul", br, second)), low.point("mul", wr, d_whole))
        whole_right = low.point("add", summed(low.point("mul", al, third)), low.point("mul", wl, d_whole))
        d_before = low.force(both(first, low.force(new_right)))
        d_after = low.force(both(low.force(new_left), fourth))
        d_whole = low.force(both(low.force(whole_left), low.force(whole_right)))
        b //= 2
    d_a = reshape(low, low.point("add", d_before, d_whole), (size, width))
    rows = [reshape(low, part(low, x, 0, 0, n), (1, n, width)) for x in (d_q, d_a, d_k)]
    return join(low, rows, 0)
