"""Operations over the ticks of a segment (``ir/time_ops.py`` and its neighbours). None divides by a product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nldsl.backends.iree.contraction import einsum
from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import REAL, Held, Node, Size, held
from nldsl.backends.iree.shapes import cut, flip, gather, join, lined, pad, pick, reshape


def along(node: Node, dim: int) -> int:
    """The number of a logical dim among all dims."""
    return len(node.axes) + dim


def part(low: Lower, node: Node, dim: int, start: int, stop: int) -> Node:
    """Some entries along a logical dim."""
    return cut(low, node, along(node, dim), start, stop - start)


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


def _inside(low: Lower, shape: tuple[int, ...], after: int | None, reverse: bool = False, strict: bool = False) -> Node:
    """Over dims (t, [s,] u, ..): whether u is among the factors of t (and s)."""
    t, u = lined(low, 0, shape), lined(low, 1 if after is None else 2, shape)
    order = ("gt" if strict else "ge") if reverse else ("lt" if strict else "le")
    inside = low.point(order, u, t)
    if after is not None:
        inside = low.point("logical_and", inside, low.point("gt", u, lined(low, after, shape)))
    return inside


def cumprod(low: Lower, node: Node, reverse: bool, exclusive: bool) -> Node:
    """One product over the factors of each tick: n^2 of them, all at once."""
    n, rest = node.shape[0], node.shape[1:]
    if n == 1:
        return low.stretched(low.literal(1.0), node.axes, node.shape) if exclusive else node
    node = _laid_out(low, node)
    inside = _inside(low, (n, n, *rest), None, reverse, exclusive)
    factors = low.view(node, node.axes, (1, n, *rest), _spaced(node, 0))
    table = low.point("where", inside, factors, low.literal(1.0))
    return low.reduce(table, (len(table.axes) + 1,), "mul")


def segprod(low: Lower, node: Node) -> Node:
    """[T, ..] -> [T, T, ..]: the products of the factors after s, up to t; 0 for s > t."""
    n, rest = node.shape[0], node.shape[1:]
    t, s = lined(low, 0, (n, n, *rest)), lined(low, 1, (n, n, *rest))
    if n == 1:
        return low.stretched(low.literal(1.0), node.axes, (n, n, *rest))
    node = _laid_out(low, node)
    inside = _inside(low, (n, n, n, *rest), 1)
    lead = len(node.axes)
    where = [*range(lead), *(lead + 2 + d for d in range(len(node.shape)))]
    factors = low.view(node, node.axes, (1, 1, n, *rest), where)
    table = low.point("where", inside, factors, low.literal(1.0))
    found = low.reduce(table, (len(table.axes) + 2,), "mul")
    return low.point("where", low.point("ge", t, s), low.force(found), low.literal(0.0))


def _laid_out(low: Lower, node: Node) -> Node:
    """The factors of ticks as a tensor along the ticks, also where all are the same (a number, a parameter): IREE 3.13
    makes wrong products in short segments where nothing that a product reads has its dim."""
    if len(node.axes) in held(node):
        return node
    made = low.full(node)
    return replace(made, ssa=low.text.apart(made.ssa, made.sizes, made.elem))


def _spaced(node: Node, at: int) -> list[int | None]:
    """Where the dims of a value go when a logical dim is put in at ``at``."""
    lead = len(node.axes)
    return [*range(lead), *(lead + n + (n >= at) for n in range(len(node.shape)))]


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


# ---------------------------------------------------------------- triangular systems


def solve_triangular(low: Lower, matrix: Node, right: Node, transposed: bool) -> Node:
    """Row by row: x[i] = right[i] - matrix[i] @ x, where the rows of x that are not known yet are zero."""
    n = matrix.shape[0]
    axes = low.merged([matrix, right])
    if n == 1:
        return low.stretched(right, axes, right.shape)
    vector = len(right.shape) == 1
    columns = reshape(low, right, (n, 1)) if vector else right
    made = Held(axes, columns.shape, REAL, "", (), ())
    dims = [d for d in range(made.rank) if low.size(made, d) != 1]
    sizes: list[Size] = [low.size(made, d) for d in dims]
    text, place = low.text, dims.index(len(axes))
    start = text.unlike(sizes, REAL)
    table, given = low.force(matrix), low.force(columns)
    with text.loop(n, [(start, sizes, REAL)]) as (count, (now,), end):
        here = Lower(text, low.sizes, low.order)
        at: Size = text.index_op("subi", n - 1, count) if transposed else count
        x = Held(axes, columns.shape, REAL, now, tuple(sizes), tuple(dims))
        row = pick(here, table, along(table, 1 if transposed else 0), at)
        new = here.point("sub", pick(here, given, along(given, 0), at), einsum(here, "j,jc->c", [row, x]))
        done = here.full(here.stretched(new, axes, columns.shape[1:]))
        results = end([text.put((done.ssa, done.sizes), (now, sizes), REAL, place, at, None)])
    found = Held(axes, columns.shape, REAL, text.tied(results[0], sizes, REAL), tuple(sizes), tuple(dims))
    return reshape(low, found, (n,)) if vector else found


def _diagonal(low: Lower, node: Node) -> Node:
    """[P, b, P, b] -> [P, b, 1, b]: the blocks on the diagonal."""
    lead = len(node.axes)
    pairs, b = node.shape[:2]
    where = [*range(lead), lead, lead + 1, lead, lead + 3]
    return low.view(node, node.axes, (pairs, b, 1, b), where)


# ---------------------------------------------------------------- Gram matrices with decays


class _Levels:
    """Products of decays inside blocks, level by level: up to a tick in its block, and after it."""

    def __init__(self, low: Lower, a: Node) -> None:
        self.low = low
        n, k = a.shape
        one = low.stretched(low.literal(1.0), (), (n, 1, k))
        before = low.view(a, a.axes, (n, 1, k), _spaced(a, 1))
        self.found = [(before, low.stretched(one, a.axes, (n, 1, k)), before)]
        b = 1
        while b < n:
            self.found.append(self._above(b))
            b *= 2

    def halves(self, node: Node) -> tuple[Node, Node]:
        low, (blocks, *rest) = self.low, node.shape
        pairs = reshape(low, node, (blocks // 2, 2, *rest))
        left, right = (part(low, pairs, 1, n, n + 1) for n in (0, 1))
        return reshape(low, left, (blocks // 2, *rest)), reshape(low, right, (blocks // 2, *rest))

    def _above(self, b: int) -> tuple[Node, Node, Node]:
        low = self.low
        before, after, whole = (low.force(x) for x in self.found[-1])
        (bl, br), (al, ar), (wl, wr) = self.halves(before), self.halves(after), self.halves(whole)
        return (
            join(low, [bl, low.point("mul", wl, br)], 1),
            join(low, [low.point("mul", al, wr), ar], 1),
            low.point("mul", wl, wr),
        )


def _powers(low: Lower, nodes: Sequence[Node], fills: Sequence[float]) -> list[Node]:
    """Padded to a number of ticks that is a power of two."""
    n = nodes[0].shape[0]
    size = 1 << (n - 1).bit_length()
    found: list[Node] = []
    for node, fill in zip(nodes, fills, strict=True):
        rest = low.stretched(low.literal(fill), node.axes, (size - n, *node.shape[1:]))
        found.append(low.force(join(low, [node, rest], 0) if size > n else node))
    return found


def decay_gram(low: Lower, q: Node, a: Node, k: Node) -> Node:
    """[T, K] -> [T, T]: the sum over c of q[t, c] * a[s+1, c] * .. * a[t, c] * k[s, c], for one t after the other."""
    n = q.shape[0]
    if n == 1:
        return reshape(low, low.reduce(low.point("mul", q, k), (low.point("mul", q, k).rank - 1,)), (1, 1))
    axes, shape = low.merged([q, a, k]), q.shape
    made = Held(axes, shape, REAL, "", (), ())
    dims = [d for d in range(made.rank) if low.size(made, d) != 1]
    sizes: list[Size] = [low.size(made, d) for d in dims]
    result = Held(axes, (n, n), REAL, "", (), ())
    places = [d for d in range(result.rank) if low.size(result, d) != 1]
    outer: list[Size] = [low.size(result, d) for d in places]
    text, (q, a, k) = low.text, (low.force(x) for x in (q, a, k))
    carried = [(text.unlike(sizes, REAL), sizes, REAL), (text.unlike(outer, REAL), outer, REAL)]
    with text.loop(n, carried) as (count, (now, out), end):
        here = Lower(text, low.sizes, low.order)
        decayed = Held(axes, shape, REAL, now, tuple(sizes), tuple(dims))
        s = lined(here, 0, shape)
        late = here.point("eq", s, here.scalar(text.integer(count), "i64"))
        keys = here.full(here.point("where", late, k, here.point("mul", decayed, pick(here, a, along(a, 0), count))))
        row = here.full(here.stretched(einsum(here, "c,sc->s", [pick(here, q, along(q, 0), count), keys]), axes, (n,)))
        done = text.put((row.ssa, row.sizes), (out, outer), REAL, places.index(len(axes)), count, None)
        results = end([keys.ssa, done])
    return replace(result, ssa=text.tied(results[1], outer, REAL), sizes=tuple(outer), where=tuple(places))


def decay_gram_grad(low: Lower, d: Node, q: Node, a: Node, k: Node) -> Node:
    """[3, T, K]: the cotangents of q, a and k; the levels of ``decay_gram`` from the last to the first."""
    n, width = q.shape
    q, a, k = _powers(low, (q, a, k), (0.0, 1.0, 0.0))
    size = q.shape[0]
    if size > n:
        d = pad(low, pad(low, d, 0, 0, size - n), 1, 0, size - n)
    d = low.force(d)
    levels = _Levels(low, a)
    diagonal = low.view(d, d.axes, (size, 1), [*range(len(d.axes)), len(d.axes), len(d.axes)])
    d_q: Node = low.force(low.point("mul", diagonal, k))
    d_k: Node = low.force(low.point("mul", diagonal, q))
    d_before = d_after = low.stretched(low.literal(0.0), (), (1, size, width))
    d_whole = low.stretched(low.literal(0.0), (), (1, 1, width))
    b = size // 2
    for before, after, whole in reversed(levels.found[:-1]):
        pairs = size // (2 * b)
        blocks = reshape(low, d, (pairs, 2, b, pairs, 2, b))
        blocks = reshape(low, part(low, part(low, blocks, 1, 1, 2), 4, 0, 1), (pairs, b, pairs, b))
        block = low.force(einsum(low, "piqj->pij", [_diagonal(low, blocks)]))
        qr = levels.halves(reshape(low, q, (2 * pairs, b, width)))[1]
        kl = levels.halves(reshape(low, k, (2 * pairs, b, width)))[0]
        br, (al, _) = levels.halves(low.force(before))[1], levels.halves(low.force(after))
        wl, wr = levels.halves(low.force(whole))
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


# ---------------------------------------------------------------- full maps, tick by tick


def tick_loop(low: Lower, streams: Sequence[Node], first: Node, reverse: bool, step: object) -> Node:
    """x[t] = step(x[t-1], *streams[t]), all of them: [T, ..]. ``first`` is x before the first tick."""
    text, n = low.text, streams[0].shape[0]
    axes = low.merged([*streams, first])
    shape = (n, *first.shape)
    start = low.full(low.stretched(first, axes, first.shape))
    every = [low.force(x) for x in streams]
    made = Held(axes, shape, REAL, "", (), ())
    dims = [d for d in range(made.rank) if low.size(made, d) != 1]
    sizes: list[Size] = [low.size(made, d) for d in dims]
    target = text.unlike(sizes, REAL)
    with text.loop(n, [(start.ssa, start.sizes, REAL), (target, sizes, REAL)]) as (count, (now, out), end):
        at: Size = count
        if reverse:
            at = text.index_op("subi", n - 1, count)
        x = Held(start.axes, start.shape, REAL, now, start.sizes, start.where)
        rows = [pick(low, s, along(s, 0), at) for s in every]
        new = low.full(low.stretched(step(x, *rows), axes, first.shape))  # type: ignore[operator]
        place = dims.index(len(axes))
        results = end([new.ssa, text.put((new.ssa, new.sizes), (out, sizes), REAL, place, at, None)])
    return Held(axes, shape, REAL, text.tied(results[1], sizes, REAL), tuple(sizes), tuple(dims))


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
