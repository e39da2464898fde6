"""Writes that share a factor become one.

    u k' + w k'  -->  (u + w) k'        u is a node (an unknown) or free, w too
    v h' + v k'  -->  v (h + k)'        all free

The first also takes what is free out of the system that has to be solved. States that feed one another are left alone:
there one write reaches several states, and should stay one unknown.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.passes.affine import Affine, Factor, Term, substitute
from nldsl.passes.affine_rules import Node, Rules
from nldsl.passes.contract import Operand, added, contract

Signature = tuple[tuple[int, tuple[int, ...]], ...]  # values of factors, with the dims of the state they lie along


def merged(rules: Rules, writes: tuple[Term, ...]) -> tuple[Term, ...]:
    """The writes into one state, fewer where some share a factor."""
    lanes = {_places(w, w.letters) for w in writes if w.source is not None}
    if len(lanes) > 1 or len(writes) < 2:
        return writes
    if lanes:
        (places,) = lanes
        return _with_nodes(rules, writes, places)
    return _free(rules, _free(rules, writes, first=True), first=False)


def _places(write: Term, letters: tuple[int | None, ...]) -> tuple[int, ...]:
    """The dims of the state along which something lies."""
    return tuple(d for d, x in enumerate(write.out) if x is not None and x in letters)


def _split(write: Term, places: tuple[int, ...]) -> tuple[list[Factor], list[Factor]] | None:
    """Factors that lie on other dims than ``places``, and the rest; None when one lies on both."""
    keys, rest = [], []
    for factor in write.factors:
        own = _places(write, factor.letters)
        if any(x is not None and x not in write.out for x in factor.letters):
            return None  # summed over within the write
        if not own or set(own) <= set(places):
            rest.append(factor)
        elif set(own) & set(places):
            return None
        else:
            keys.append(factor)
    return keys, rest


def _signature(write: Term, factors: list[Factor]) -> Signature:
    place = {x: d for d, x in enumerate(write.out) if x is not None}
    found = [(f.value, tuple(-1 if x is None else place[x] for x in f.letters)) for f in factors]
    return tuple(sorted(found))


def _with_nodes(rules: Rules, writes: tuple[Term, ...], places: tuple[int, ...]) -> tuple[Term, ...]:
    buckets: dict[Signature | int, list[tuple[Term, list[Factor], list[Factor]]]] = {}
    for n, write in enumerate(writes):
        parts = _split(write, places)
        key: Signature | int = n if parts is None else _signature(write, parts[0])
        buckets.setdefault(key, []).append((write, *(parts or ([], []))))
    found: list[Term] = []
    for bucket in buckets.values():
        if len(bucket) == 1 or all(w.source is None for w, _, _ in bucket):
            found += [w for w, _, _ in bucket]
        else:
            found.append(_joined(rules, bucket, places))
    return tuple(found)


def _joined(rules: Rules, bucket: list[tuple[Term, list[Factor], list[Factor]]], places: tuple[int, ...]) -> Term:
    """One write whose node is the sum of what the writes of the bucket have on the lanes."""
    first, keys, _ = bucket[0]
    lead = tuple(first.out[d] for d in places)
    common = [f for f in bucket[0][2] if not _places(first, f.letters)]
    common = [f for f in common if all(f.value in [g.value for g in rest] for _, _, rest in bucket)]
    shared = {f.value for f in common}
    terms: list[Term] = []
    for write, _, rest in bucket:
        mapping = {x: y for x, y in zip(write.out, first.out, strict=True) if x is not None and y is not None}
        moved = substitute(replace(write, factors=tuple(f for f in rest if f.value not in shared)), mapping)
        if moved.source is None:
            terms.append(replace(moved, out=lead))
            continue
        assert isinstance(moved.source.key, int)
        for inner in rules.nodes[moved.source.key].affine.terms:
            names = {x: y for x, y in zip(inner.out, moved.letters, strict=True) if x is not None and y is not None}
            own = substitute(inner, names)
            terms.append(replace(own, out=lead, factors=(*own.factors, *moved.factors), scale=own.scale * moved.scale))
    shape = tuple(1 if x is None else rules.sizes.of[x] for x in lead)
    rules.nodes.append(Node(Affine(shape, tuple(terms)), -1))
    node = rules.source("node", len(rules.nodes) - 1, shape).terms[0]
    return Term(first.out, (*keys, *common), node.source, lead)


def _free(rules: Rules, writes: tuple[Term, ...], first: bool) -> tuple[Term, ...]:
    """Join writes with the same factors on the first dim (or on the others) and the same numbers."""
    buckets: dict[Signature | int, list[tuple[Term, list[Factor], list[Factor]]]] = {}
    for n, write in enumerate(writes):
        side = (0,) if first else tuple(range(1, len(write.out)))
        parts = _split(write, side)
        if parts is None or write.source is not None:
            buckets[n] = [(write, [], [])]
            continue
        rest, same = parts
        buckets.setdefault(_signature(write, same), []).append((write, same, rest))
    found: list[Term] = []
    for bucket in buckets.values():
        write, same, rest = bucket[0]
        letters = {tuple(sorted(d for f in r for d in _places(w, f.letters))) for w, _, r in bucket}
        if len(bucket) == 1 or not rest or not same or len(letters) > 1:
            found += [w for w, _, _ in bucket]
            continue
        order = tuple(x for x in write.out if x is not None and any(x in f.letters for f in rest))
        total: int | None = None
        for other, _, factors in bucket:
            own = tuple(other.out[write.out.index(x)] for x in order)
            part = contract(rules.body, [Operand(f.value, f.letters) for f in factors], own, other.scale)
            total = part.value if total is None else added(rules.body, total, part.value)
        assert total is not None
        found.append(replace(write, factors=(*same, Factor(total, order)), scale=1.0))
    return tuple(found)
