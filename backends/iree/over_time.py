"""Operations over the ticks of a segment (``ir/time_ops.py`` and its neighbours). None divides by a product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nldsl.backends.iree.carried import Carried
from nldsl.backends.iree.contraction import einsum
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import REAL, Node, Size
from nldsl.backends.iree.products import segprod
from nldsl.backends.iree.shapes import flip, gather, lined, pick, reshape


def cumsum(low: Lower, node: Node, dim: int, reverse: bool) -> Node:
    """A product with a triangle of ones."""
    n, rank = node.shape[dim], len(node.shape)
    if n == 1:
        return node
    t, s = lined(low, 0, (n, n)), lined(low, 1, (n, n))
    mask = low.point("to_real", low.point("le" if reverse else "ge", t, s))
    letters = "cdefghij"[:rank]
    into = letters.replace(letters[dim], "b")
    return einsum(low, f"ab,{into}->{into.replace('b', 'a')}", [mask, node])


def linear_scan(low: Lower, decay: Node, new: Node, reverse: bool) -> Node:
    """x[t] = decay[t] * x[t-1] + new[t]. A decay for each tick alone makes a matrix of products; else tick by tick."""
    n = new.shape[0]
    if n == 1:
        return new
    inner = decay.shape[1:]
    if len(inner) < len(new.shape) - 1:
        inner = (*([1] * (len(new.shape) - 1 - len(inner))), *inner)
        decay = reshape(low, decay, (n, *inner))
    if all(s == 1 for s in inner):
        decay = reshape(low, decay, (n,))
        table = flip(low, flip(low, segprod(low, flip(low, decay, 0)), 0), 1) if reverse else segprod(low, decay)
        letters = "cdefgh"[: len(new.shape) - 1]
        return einsum(low, f"ab,b{letters}->a{letters}", [table, new])

    def step(x: Node, a: Node, b: Node) -> Node:
        return low.point("add", low.point("mul", a, x), b)

    return tick_loop(low, [decay, new], low.stretched(low.zero(), (), new.shape[1:]), reverse, step)


# ---------------------------------------------------------------- full maps, tick by tick


def tick_loop(low: Lower, streams: Sequence[Node], first: Node, reverse: bool, step: object) -> Node:
    """x[t] = step(x[t-1], *streams[t]), all of them: [T, ..]. ``first`` is x before the first tick."""
    text, n = low.text, streams[0].shape[0]
    made = Carried.like(low, [*streams, first], (n, *first.shape), 0)
    start = low.full(low.stretched(first, made.axes, first.shape))
    every = [low.force(x) for x in streams]
    target = text.unlike(made.sizes, REAL)
    with text.loop(n, [(start.ssa, start.sizes, REAL), (target, made.sizes, REAL)]) as (count, (now, out), end):
        at: Size = count
        if reverse:
            at = text.index_op("subi", n - 1, count)
        x = replace(start, ssa=now)
        rows = [pick(low, s, len(s.axes), at) for s in every]
        new = low.full(low.stretched(step(x, *rows), made.axes, first.shape))  # type: ignore[operator]
        results = end([new.ssa, made.put(low, new, out, at)])
    return made.value(text.tied(results[1], made.sizes, REAL))


def matrix_scan(low: Lower, a: Node, b: Node, reverse: bool) -> Node:
    """x[t] = a[t] @ x[t-1] + b[t]."""

    def step(x: Node, a: Node, b: Node) -> Node:
        return low.point("add", einsum(low, "ij,jk->ik", [a, x]), b)

    if b.shape[0] == 1:
        return low.stretched(b, low.merged([a, b]), b.shape)
    return tick_loop(low, [a, b], low.stretched(low.zero(), (), b.shape[1:]), reverse, step)


def two_sided_scan(low: Lower, a: Node, w: Node, b: Node, reverse: bool) -> Node:
    """x[t] = a[t] @ x[t-1] @ b[t] + w[t]."""

    def step(x: Node, a: Node, w: Node, b: Node) -> Node:
        return low.point("add", einsum(low, "ij,jk,kl->il", [a, x, b]), w)

    if w.shape[0] == 1:
        return low.stretched(w, low.merged([a, w, b]), w.shape)
    return tick_loop(low, [a, w, b], low.stretched(low.zero(), (), w.shape[1:]), reverse, step)


def matrix_products(low: Lower, node: Node) -> Node:
    """[T, n, n, ..] -> [T, T, n, n, ..]: node[t] @ .. @ node[s+1]; row t from row t-1."""
    ticks, n = node.shape[:2]
    rest = node.shape[3:]
    one = low.point("to_real", low.point("eq", lined(low, 0, (n, n)), lined(low, 1, (n, n))))
    unit = low.view(one, (), (1, n, n, *(1 for _ in rest)), [1, 2])
    letters = "fgh"[: len(rest)]

    # the row of tick t: entry s is the product of s+1 .. t, the unit at s = t, zero above
    table_shape = (ticks, n, n, *rest)
    s = lined(low, 0, table_shape)
    row_number = low.view(low.counter(n=ticks), (), (ticks,), [0])

    def step(row: Node, now: Node, tick: Node) -> Node:
        product = einsum(low, f"ij{letters},sjk{letters}->sik{letters}", [now, row])
        return low.point(
            "where", low.point("lt", s, tick), low.force(product),
            low.point("where", low.point("eq", s, tick), unit, low.literal(0.0)),
        )  # fmt: skip

    first = low.stretched(low.zero(), (), table_shape)
    return tick_loop(low, [node, low.force(row_number)], first, False, step)


# ---------------------------------------------------------------- windows


def unfold(low: Lower, x: Node, n: int) -> Node:
    """[M, ..] -> [T, n, ..]: out[t, i] = x[t + i]."""
    count = x.shape[0] - (n - 1)
    shape = (count, n, *x.shape[1:])
    at = low.point("add", lined(low, 0, shape), lined(low, 1, shape))
    return _windows(low, x, x.axes, shape, {len(x.axes): at}, 1)


def band(low: Lower, x: Node, n: int) -> Node:
    """[T, M, ..] -> [T, n, ..]: out[t, i] = x[t, t + i]."""
    shape = (x.shape[0], n, *x.shape[2:])
    at = low.point("add", lined(low, 0, shape), lined(low, 1, shape))
    return _windows(low, x, x.axes, shape, {len(x.axes) + 1: at}, 0)


def unband(low: Lower, x: Node, n: int) -> Node:
    """[T, n, ..] -> [T, M, ..]: out[t, t + i] = x[t, i], 0 elsewhere."""
    shape = (x.shape[0], x.shape[0] + n - 1, *x.shape[2:])
    at = low.point("sub", lined(low, 1, shape), lined(low, 0, shape))
    inside = low.point("logical_and", low.point("ge", at, low.literal(0)), low.point("lt", at, low.literal(n)))
    safe = low.point("minimum", low.point("maximum", at, low.literal(0)), low.literal(n - 1))
    found = _windows(low, x, x.axes, shape, {len(x.axes) + 1: safe}, 0)
    return low.point("where", inside, found, low.literal(0.0))


def _windows(
    low: Lower, x: Node, axes: tuple[str, ...], shape: tuple[int, ...], index: dict[int, Node], more: int
) -> Node:
    """Entries of ``x`` whose dims keep their place, but for those of ``index``; the result has ``more`` dims."""
    lead = len(axes)
    where: dict[int, Node | int] = {}
    for d in range(x.rank):
        where[d] = index[d] if d in index else d + (more if d > lead else 0)
    return gather(low, x, axes, shape, where)
