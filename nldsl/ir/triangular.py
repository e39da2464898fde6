"""Which entries of the values of a body are known to be zero, and which nobody needs, along pairs of dims.

A ``Triangles`` maps a pair of logical dims (a, b) to a number n. As a fact about zeros it says that an entry is zero
where its index along b exceeds its index along a by more than n: {(0, 1): 0} is lower triangular, {(0, 1): -1} strictly
so, {(1, 0): 0} upper triangular. As a fact about needs it says that nothing depends on such entries, as long as they
are finite, and zero where that is known of them too. ``terms`` says the same about the labels of a contraction:
products of entries whose index along b exceeds the one along a by more than n add nothing that anybody needs.

Everything follows from the operations: segments are causal, so most tables of ticks by ticks are half empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.program import Instr

Pair = tuple[int, int]
Triangles = Mapping[Pair, int]
Terms = dict[tuple[str, str], int]
NONE: Triangles = {}

# op(0) = 0; the result has the shape of the operand
KEEPS_ZERO = frozenset("neg abs sign sqrt relu sin tanh arctan erf floor expm1 log1p to_real stop_grad fixed".split())
SAME_SHAPE = frozenset("stop_grad fixed axis_sum batch_mean lane".split())
PARTIAL = frozenset("log log1p sqrt rsqrt pow div mod".split())  # not finite for some finite operands
COMPARED = frozenset("lt le gt ge eq".split())
OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def either(facts: Iterable[Triangles]) -> Triangles:
    """What holds where all of the facts do."""
    found: dict[Pair, int] = {}
    for fact in facts:
        for pair, slack in fact.items():
            found[pair] = min(slack, found.get(pair, slack))
    return found


def both(facts: Sequence[Triangles]) -> Triangles:
    """What follows from each of the facts alone."""
    if not facts:
        return NONE
    first, *others = facts
    return {
        p: max(s, *(o[p] for o in others)) if others else s for p, s in first.items() if all(p in o for o in others)
    }


def zeros(body: Sequence[Instr]) -> list[Triangles]:
    """Of every value, the entries that are zero."""
    found: list[Triangles] = []
    places: list[tuple[int, int] | None] = []
    for instr in body:
        places.append(_place(body, instr, places))
        found.append(_zeros(body, instr, found, places))
    return found


def needs(
    body: Sequence[Instr],
    roots: Iterable[int],
    zero: Sequence[Triangles],
    unread: Mapping[int, Triangles] | None = None,
) -> dict[int, Triangles]:
    """Of every value that ``roots`` need, the entries that nothing depends on. ``zero``: of ``zeros``. ``unread``: more
    roots, of which somebody reads all but these entries."""
    found: dict[int, Triangles] = {**(unread or {}), **dict.fromkeys(roots, NONE)}
    places: list[tuple[int, int] | None] = []
    for instr in body:
        places.append(_place(body, instr, places))
    for value in range(len(body) - 1, -1, -1):
        if value not in found:
            continue
        instr = body[value]
        for position, arg in enumerate(instr.args):
            wanted = _need(body, instr, position, found[value], zero, places)
            found[arg] = both([found[arg], wanted]) if arg in found else wanted
    return found


def terms(instr: Instr, zero: Sequence[Triangles], need: Triangles = NONE) -> Terms:
    """Of an einsum: labels (a, b) and n, where only terms with b <= a + n count. ``need``: of its result."""
    inputs, output = ops.split_spec(instr.attr("spec"))
    found: Terms = {}
    for letters, facts in (*zip(inputs, (zero[a] for a in instr.args), strict=True), (output, need)):
        for (a, b), slack in facts.items():
            _bound(found, letters[a], letters[b], slack)
    return _closed(found)


def share(bounds: Terms) -> float:
    """The part of the terms that count, where all labels with bounds are equally long."""
    labels = sorted({x for pair in bounds for x in pair})
    if not labels or len(labels) > 5:
        return 1.0
    orders = list(permutations(range(len(labels))))
    rank = {x: n for n, x in enumerate(labels)}
    return sum(all(o[rank[b]] < o[rank[a]] for a, b in bounds) for o in orders) / len(orders)


# ---------------------------------------------------------------- labels


def _bound(found: Terms, a: str, b: str, slack: int) -> None:
    if a != b:
        found[a, b] = min(slack, found.get((a, b), slack))


def _closed(found: Terms) -> Terms:
    """With what follows from two bounds together."""
    labels = sorted({x for pair in found for x in pair})
    for k in labels:
        for i in labels:
            for j in labels:
                if (i, k) in found and (k, j) in found:
                    _bound(found, i, j, found[i, k] + found[k, j])
    return found


# ---------------------------------------------------------------- where dims go

Move = Callable[[int], int | None]


def _moved(facts: Triangles, move: Move, shift: Callable[[int], int] = lambda d: 0) -> Triangles:
    """The facts about dims that are still there; index along dim d of what they were about plus ``shift(d)``."""
    found: dict[Pair, int] = {}
    for (a, b), slack in facts.items():
        row, column = move(a), move(b)
        if row is not None and column is not None:
            found[row, column] = slack + shift(b) - shift(a)
    return found


def _stretched(body: Sequence[Instr], arg: int, rank: int) -> dict[int, int]:
    """Dims of an operand that are not stretched -> those of a pointwise result of that rank."""
    shape = body[arg].type.shape
    return {d: rank - len(shape) + d for d, size in enumerate(shape) if size != 1}


def _to_result(body: Sequence[Instr], arg: int, facts: Triangles, rank: int) -> Triangles:
    return _moved(facts, _stretched(body, arg, rank).get)


def _to_operand(body: Sequence[Instr], arg: int, facts: Triangles, rank: int) -> Triangles:
    back = {out: own for own, out in _stretched(body, arg, rank).items()}
    return _moved(facts, back.get)


def _regrouped(old: tuple[Dim, ...], new: tuple[Dim, ...]) -> list[tuple[list[int], list[int]]] | None:
    """Dims of two shapes with as many entries, in groups of equal size; None where they do not line up."""
    groups: list[tuple[list[int], list[int]]] = []
    left = [d for d, size in enumerate(old) if size != 1]
    right = [d for d, size in enumerate(new) if size != 1]
    while left or right:
        a, b = [left.pop(0)] if left else [], [right.pop(0)] if right else []
        while ops.product(tuple(old[d] for d in a)) != ops.product(tuple(new[d] for d in b)):
            if len(right) and (len(b) <= len(a) or not left):
                b.append(right.pop(0))
            elif left:
                a.append(left.pop(0))
            else:
                return None
        groups.append((a, b))
    return groups


def _reshaped(facts: Triangles, old: tuple[Dim, ...], new: tuple[Dim, ...]) -> Triangles:
    """The facts after a reshape: dims stay, or the outermost of several becomes a block of the one they merge into."""
    if old == new:
        return facts
    groups = _regrouped(old, new)
    if groups is None:
        return NONE
    place: dict[int, tuple[int, int, int]] = {}  # dim -> new dim, how many new steps one old step is, and the reverse
    for a, b in groups:
        if len(a) == 1 and len(b) == 1:
            place[a[0]] = b[0], 1, 1
        elif len(b) == 1:
            inner = ops.product(tuple(old[d] for d in a[1:]))
            if isinstance(inner, int):
                place[a[0]] = b[0], inner, 1
        elif len(a) == 1:
            inner = ops.product(tuple(new[d] for d in b[1:]))
            if isinstance(inner, int):
                place[a[0]] = b[0], 1, inner
    found: dict[Pair, int] = {}
    for (a_dim, b_dim), slack in facts.items():
        if a_dim in place and b_dim in place and place[a_dim][1:] == place[b_dim][1:]:
            row, outer, inner = place[a_dim]
            found[row, place[b_dim][0]] = (slack * outer + outer - 1) if inner == 1 else (inner - 1 + slack) // inner
    return found


# ---------------------------------------------------------------- indices as values


def _place(body: Sequence[Instr], instr: Instr, places: Sequence[tuple[int, int] | None]) -> tuple[int, int] | None:
    """(d, n) for a tensor whose every entry is its index along d plus n."""
    rank = len(instr.type.shape)
    if instr.op == "iota":
        return 0, 0
    if instr.op in ("reshape", "broadcast", "to_real", "add", "sub"):
        known = places[instr.args[0]]
        if known is None:
            return None
        old = body[instr.args[0]].type.shape
        if instr.op == "reshape":
            moved = [row for row, _ in _reshaped({(known[0], known[0]): 0}, old, instr.type.shape)]
            same = len(moved) == 1 and instr.type.shape[moved[0]] == old[known[0]]
            return (moved[0], known[1]) if same else None
        if instr.op in ("add", "sub"):
            number = _number(body, instr.args[1])
            if not isinstance(number, int):
                return None
            return rank - len(old) + known[0], known[1] + (number if instr.op == "add" else -number)
        return rank - len(old) + known[0], known[1]
    return None


def _number(body: Sequence[Instr], value: int) -> float | int | None:
    instr = body[value]
    while instr.op in ("broadcast", "reshape"):
        instr = body[instr.args[0]]
    number: float | int | None = instr.attr("value") if instr.op == "const" else None
    return number


def _compared(op: str, body: Sequence[Instr], instr: Instr, places: Sequence[tuple[int, int] | None]) -> Triangles:
    """Where a comparison of two indices is false."""
    rank, sides = len(instr.type.shape), []
    for arg in instr.args:
        known = places[arg]
        if known is None:
            return NONE
        sides.append((rank - len(body[arg].type.shape) + known[0], known[1]))
    (a, n), (b, m) = sides
    if a == b:
        return NONE
    above, below = {(a, b): n - m}, {(b, a): m - n}  # b's index <= a's + (n - m): left >= right
    match op:
        case "ge":
            return above
        case "gt":
            return {(a, b): n - m - 1}
        case "le":
            return below
        case "lt":
            return {(b, a): m - n - 1}
        case "eq":
            return {**above, **below}
    return NONE


# ---------------------------------------------------------------- zeros


def _zeros(
    body: Sequence[Instr], instr: Instr, zero: Sequence[Triangles], places: Sequence[tuple[int, int] | None]
) -> Triangles:
    op, args, rank = instr.op, instr.args, len(instr.type.shape)

    def of(position: int) -> Triangles:
        return _to_result(body, args[position], zero[args[position]], rank)

    if op in KEEPS_ZERO or op in ("axis_sum", "batch_mean", "lane"):
        return zero[args[0]]
    if op in COMPARED:
        return _compared(op, body, instr, places)
    if op in ("mul", "logical_and"):
        return either([of(0), of(1)])
    if op == "div":
        return of(0)
    if op in ("add", "sub", "maximum", "minimum", "logical_or"):
        return both([of(0), of(1)])
    if op == "when":
        return both([zero[args[0]], zero[args[1]]])
    if op == "where":
        return _chosen(body, instr, of, places)
    if op == "einsum":
        output = ops.split_spec(instr.attr("spec"))[1]
        known = terms(instr, zero)
        return {
            (a, b): known[x, y]
            for a, x in enumerate(output)
            for b, y in enumerate(output)
            if (x, y) in known and a != b
        }
    if op in ("segprod", "decay_gram"):
        return {(0, 1): 0}
    if op == "kept":
        return dict(instr.attr("zero"))
    if op == "one_hot":
        place = places[args[0]]
        return NONE if place is None else {(place[0], rank - 1): place[1], (rank - 1, place[0]): -place[1]}
    if op == "unband":
        return {(0, 1): instr.attr("n") - 1, (1, 0): 0}
    if op == "reshape":
        return _reshaped(zero[args[0]], body[args[0]].type.shape, instr.type.shape)
    if op == "broadcast":
        return of(0)
    if op in ("slice", "pad", "concat"):
        return both([_shifted(body, instr, n, zero[a]) for n, a in enumerate(args)])
    if op == "sum":
        return _moved(zero[args[0]], _kept(body, instr).get)
    if op == "collect":
        return _moved(zero[args[0]], lambda d: d + 1)
    if op == "spread":
        return _moved(zero[args[0]], lambda d: d - 1 if d else None)
    if op == "cumsum":
        return {p: s for p, s in zero[args[0]].items() if instr.attr("dim") not in p}
    if op == "solve_triangular":
        pair = (1, 0) if _flag(instr, "transposed") else (0, 1)
        return {p: s for p, s in zero[args[1]].items() if p == pair}
    if op == "linear_scan":
        side = 1 if _flag(instr, "reverse") else 0
        return {p: s for p, s in zero[args[1]].items() if 0 not in p or p[side] == 0}
    return NONE


def _chosen(
    body: Sequence[Instr], instr: Instr, of: Callable[[int], Triangles], places: Sequence[tuple[int, int] | None]
) -> Triangles:
    """Of ``where``: each side where it is chosen, or is zero itself."""
    condition = body[instr.args[0]]
    rank = len(instr.type.shape)
    otherwise: Triangles = NONE
    if condition.op in OPPOSITE:
        opposite = _compared(OPPOSITE[condition.op], body, condition, places)
        otherwise = _to_result(body, instr.args[0], opposite, rank)
    sides = []
    for position, chosen in ((1, of(0)), (2, otherwise)):
        if _number(body, instr.args[position]) != 0:
            sides.append(either([chosen, of(position)]))
    return both(sides)


def _flag(instr: Instr, name: str) -> bool:
    return any(key == name and bool(value) for key, value in instr.attrs)


def _kept(body: Sequence[Instr], instr: Instr) -> dict[int, int]:
    """Dims of the operand of a sum -> those of the result."""
    left = [d for d in range(len(body[instr.args[0]].type.shape)) if d not in instr.attr("dims")]
    return {d: n for n, d in enumerate(left)}


def _shift(body: Sequence[Instr], instr: Instr, position: int) -> int | None:
    """How far an operand of slice, pad or concat moves along its dim; None where that is not a number."""
    start: Dim = 0
    if instr.op == "slice":
        start = -instr.attr("start")
    elif instr.op == "pad":
        start = instr.attr("before")
    else:
        for arg in instr.args[:position]:
            start = start + body[arg].type.shape[instr.attr("dim")]
    return start if isinstance(start, int) else None


def _shifted(body: Sequence[Instr], instr: Instr, position: int, facts: Triangles, back: bool = False) -> Triangles:
    """Facts about an operand as facts about the result, or ``back``."""
    by, dim = _shift(body, instr, position), instr.attr("dim")
    if by is None:
        return {p: s for p, s in facts.items() if dim not in p}
    step = -by if back else by
    return _moved(facts, lambda d: d, lambda d: step if d == dim else 0)


# ---------------------------------------------------------------- needs


def _need(
    body: Sequence[Instr],
    instr: Instr,
    position: int,
    need: Triangles,
    zero: Sequence[Triangles],
    places: Sequence[tuple[int, int] | None],
) -> Triangles:
    """What of an operand nothing depends on, if nothing depends on ``need`` of the result."""
    op, arg, rank = instr.op, instr.args[position], len(instr.type.shape)
    if op == "mul":
        other = instr.args[1 - position]
        return _to_operand(body, arg, either([need, _to_result(body, other, zero[other], rank)]), rank)
    if op == "where" and position:
        condition = body[instr.args[0]]
        chosen = zero[instr.args[0]] if position == 1 else NONE
        if position == 2 and condition.op in OPPOSITE:
            chosen = _compared(OPPOSITE[condition.op], body, condition, places)
        return _to_operand(body, arg, either([need, _to_result(body, instr.args[0], chosen, rank)]), rank)
    if op in PARTIAL and not (op == "div" and position == 0):
        return NONE
    if op in ops.POINTWISE or op in SAME_SHAPE or op in ("broadcast", "when"):
        return _to_operand(body, arg, need, rank)
    if op == "einsum":
        return _need_of_factor(instr, position, need, zero)
    if op in ("solve_triangular", "decay_gram_grad") and position == 0:
        return {(0, 1): -1} if op == "solve_triangular" else {(0, 1): 0}
    if op == "band":
        return {(0, 1): instr.attr("n") - 1, (1, 0): 0}
    if op == "reshape":
        return _reshaped(need, instr.type.shape, body[arg].type.shape)
    if op in ("slice", "pad", "concat"):
        return _shifted(body, instr, position, need, back=True)
    if op == "sum":
        back = {n: d for d, n in _kept(body, instr).items()}
        return _moved(need, back.get)
    if op == "collect":
        return _moved(need, lambda d: d - 1 if d else None)
    if op == "spread":
        return _moved(need, lambda d: d + 1)
    if op == "linear_scan" and position == 1:
        side = 0 if _flag(instr, "reverse") else 1
        return {p: s for p, s in need.items() if 0 not in p or p[side] == 0}
    return NONE


def _need_of_factor(instr: Instr, position: int, need: Triangles, zero: Sequence[Triangles]) -> Triangles:
    """Entries of a factor are needed where the other factors and the result are."""
    inputs, output = ops.split_spec(instr.attr("spec"))
    found: Terms = {}
    rest = [(x, zero[a]) for n, (x, a) in enumerate(zip(inputs, instr.args, strict=True)) if n != position]
    for letters, facts in (*rest, (output, need)):
        for (a, b), slack in facts.items():
            _bound(found, letters[a], letters[b], slack)
    _closed(found)
    own = inputs[position]
    return {(a, b): found[x, y] for a, x in enumerate(own) for b, y in enumerate(own) if (x, y) in found and a != b}
