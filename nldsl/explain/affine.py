"""The transition form of an update that is linear in its own state: ``S ← keep·S (I − rate·k kᵀ) + rate·v kᵀ``.

Products are multiplied out as far as the state goes, then what multiplies the state is collected: first common scalar
factors, then common matrices next to the state, then the sum that remains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nldsl.explain.product import chain, times, transpose
from nldsl.explain.terms import (
    Chain,
    Diag,
    Hadamard,
    Num,
    Number,
    Product,
    Sum,
    Sym,
    Term,
    Transpose,
    add,
    merged,
    scaled,
    word,
)

_MOST_PIECES = 3  # more of them multiplied out are harder to read than the steps one after the other


@dataclass(frozen=True)
class _Piece:
    """``coefficient · scalars · left state right``; ``flipped`` where it is the transpose of that."""

    coefficient: Number
    scalars: tuple[Term, ...] = ()
    left: tuple[Term, ...] = ()
    right: tuple[Term, ...] = ()
    flipped: bool = False


class _Expansion:
    def __init__(self, state: Sym, definitions: Mapping[Sym, Term]) -> None:
        self.state = state
        self.definitions = definitions
        self.constants: list[Term] = []
        self._known: dict[Term, bool] = {}

    def depends(self, term: Term) -> bool:
        """Whether the state occurs in a term or in the lines it names."""
        if term not in self._known:
            inner = self.definitions.get(term) if isinstance(term, Sym) else None
            parts = term.children if inner is None else (inner,)
            self._known[term] = term == self.state or any(self.depends(c) for c in parts)
        return self._known[term]

    def pieces(self, term: Term) -> tuple[list[_Piece], Term] | None:
        """The pieces with the state and the rest; None if the term is not affine in the state."""
        if term == self.state:
            return [_Piece(1)], Num(term.shape, 0)
        if not self.depends(term):
            return [], term
        if isinstance(term, Sym):
            return self.pieces(self.definitions[term])
        if isinstance(term, Sum):
            return self._sum(term)
        if isinstance(term, Product):
            return self._product(term)
        if isinstance(term, Chain):
            return self._chain(term)
        if isinstance(term, Transpose):
            return self._transpose(term)
        if isinstance(term, Hadamard) and len(term.shape) == 1:
            diagonal = [Diag((f.shape[0], f.shape[0]), f) for f in term.factors if not self.depends(f)]
            vectors = [f for f in term.factors if self.depends(f)]
            return self._around(tuple(diagonal), vectors[0], ()) if len(vectors) == 1 else None
        return None

    def _sum(self, term: Sum) -> tuple[list[_Piece], Term] | None:
        found: list[_Piece] = []
        rest: list[Term] = [Num(term.shape, 0)]
        for inner in term.terms:
            result = self.pieces(inner)
            if result is None or (result[0] and inner.shape != term.shape):
                return None
            found += result[0]
            rest.append(result[1])
        return found, add(*rest)

    def _product(self, term: Product) -> tuple[list[_Piece], Term] | None:
        if term.core is None or any(self.depends(s) for s in term.scalars):
            return None
        result = self.pieces(term.core)
        if result is None:
            return None
        found = [
            _Piece(term.coefficient * p.coefficient, (*term.scalars, *p.scalars), p.left, p.right, p.flipped)
            for p in result[0]
        ]
        return found, _scaled_sum(term.coefficient, term.scalars, result[1])

    def _chain(self, term: Chain) -> tuple[list[_Piece], Term] | None:
        places = [i for i, f in enumerate(term.factors) if self.depends(f)]
        if len(places) != 1:
            return None
        (at,) = places
        return self._around(term.factors[:at], term.factors[at], term.factors[at + 1 :])

    def _around(
        self, left: tuple[Term, ...], middle: Term, right: tuple[Term, ...]
    ) -> tuple[list[_Piece], Term] | None:
        result = self.pieces(middle)
        if result is None:
            return None
        found = [replace(p, left=(*left, *p.left), right=(*p.right, *right)) for p in result[0]]
        rest = result[1].terms if isinstance(result[1], Sum) else (result[1],)
        products = [chain(*left, r, *right) for r in rest if not (isinstance(r, Num) and r.value == 0)]
        shape = chain(*left, middle, *right).shape
        return found, add(Num(shape, 0), *products)

    def _transpose(self, term: Transpose) -> tuple[list[_Piece], Term] | None:
        result = self.pieces(term.of)
        if result is None:
            return None
        found = [
            _Piece(
                p.coefficient,
                p.scalars,
                tuple(transpose(f) for f in reversed(p.right)),
                tuple(transpose(f) for f in reversed(p.left)),
                not p.flipped,
            )
            for p in result[0]
        ]
        rest = [transpose(t) for t in (result[1].terms if isinstance(result[1], Sum) else (result[1],))]
        return found, add(*rest)


def _scaled_sum(coefficient: Number, scalars: tuple[Term, ...], term: Term) -> Term:
    factor = scaled(coefficient, scalars, None)
    if isinstance(term, Sum):
        return add(*(times(factor, t) for t in term.terms))
    return times(factor, term)


def transition(state: Sym, update: Term, definitions: Mapping[Sym, Term]) -> tuple[Term, Term] | None:
    """An update as the state between what it is multiplied with, written once, and the rest.

    None if it is not linear in the state, or if it already looks like that.
    """
    result = _Expansion(state, definitions).pieces(update)
    if result is None or not 2 <= len(result[0]) <= _MOST_PIECES or any(p.flipped for p in result[0]):
        return None
    found, rest = result
    right_sided = all(p.left == found[0].left for p in found)
    left_sided = all(p.right == found[0].right for p in found)
    if not (right_sided or left_sided) or len(state.shape) != 2:
        return None
    common = [s for s in found[0].scalars if all(s in p.scalars for p in found)]
    sides = [p.right if right_sided else tuple(transpose(f) for f in reversed(p.left)) for p in found]
    shared = _common_prefix(sides)
    size = state.shape[1] if right_sided else state.shape[0]
    inner: list[Term] = []
    for piece, side in zip(found, sides, strict=True):
        scalars = list(piece.scalars)
        for s in common:
            scalars.remove(s)
        left_over = side[len(shared) :]
        core = chain(*left_over) if left_over else word("I", (size, size))
        inner.append(times(scaled(piece.coefficient, merged(tuple(scalars)), None), core))
    bracket = add(*inner)
    factors = (*shared, bracket)
    if right_sided:
        product = chain(*found[0].left, state, *factors)
    else:
        product = chain(*(_flipped(f) for f in reversed(factors)), state, *found[0].right)
    return times(scaled(1, tuple(common), None), product), rest


def _flipped(term: Term) -> Term:
    """The transpose, taken inside of sums."""
    if isinstance(term, Sum):
        return add(*(_flipped(t) for t in term.terms))
    return term if isinstance(term, Sym) and term.kind == "word" else transpose(term)


def _common_prefix(sides: list[tuple[Term, ...]]) -> tuple[Term, ...]:
    """The matrices that every side begins with."""
    first = sides[0]
    count = 0
    while count < len(first) and all(len(s) > count and s[count] == first[count] for s in sides):
        count += 1
    if any(len(f.shape) < 2 for f in first[:count]):
        return ()
    return first[:count]
