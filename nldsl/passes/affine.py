"""Affine values: sums of contractions of free tensors with one unknown each.

Inside one tick, a value that depends on the states of a recurrence is *affine* when it is a sum of terms

    scale * einsum(free factors.., source -> dims of the value)

where the source is a state before the tick, a state after it, or a *node*: an affine value with a name, which other
terms multiply (a write ``outer(u, k)`` is the node ``u`` times the free factor ``k``). A term without a source is free.
Dims are denoted by letters (integers, unique in the whole analysis); a dim of size 1, or one along which the term is
constant, has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nldsl.dims import Dim
from nldsl.ir.types import broadcast_shapes

Letters = tuple["int | None", ...]


@dataclass(frozen=True)
class Factor:
    """A free value (of the extended per-token body), one letter for each of its dims."""

    value: int
    letters: Letters


@dataclass(frozen=True)
class Source:
    """``before`` and ``after``: the state ``key`` at that side of the tick, ``decayed`` (``chunk_decayed.py``) between
    its decay and the writes. ``node``: the node number ``key``."""

    kind: str
    key: str | int


@dataclass(frozen=True)
class Term:
    out: Letters
    factors: tuple[Factor, ...] = ()
    source: Source | None = None
    letters: Letters = ()
    scale: float = 1.0

    def contracted(self) -> bool:
        """Whether a dim of the source is summed over, moved or repeated."""
        own = [x for x in self.letters if x is not None]
        return own != [x for x in self.out if x in own]

    def expanded(self) -> bool:
        """Whether the factors add dims that the source does not have."""
        return any(x is not None and x not in self.letters for x in self.out)


@dataclass(frozen=True)
class Affine:
    shape: tuple[Dim, ...]
    terms: tuple[Term, ...]

    def sources(self) -> set[Source]:
        return {t.source for t in self.terms if t.source is not None}


def heavy(value: Affine) -> int:
    """How many dims a state has that the value holds as a whole, or a product that adds dims to a read; 0 if it is only
    vectors and reads: small enough for each tick to have its own."""
    found = 0
    for term in value.terms:
        if sum(x is not None for x in term.out) < 2:
            continue
        size = sum(x is not None for x in term.letters)
        state = term.source is not None and term.source.kind != "node"
        if term.expanded() or (state and size > 1 and not term.contracted()):
            found = max(found, len(term.out))
    return found


class Sizes:
    """Makes letters and remembers the size of each."""

    def __init__(self) -> None:
        self.of: list[Dim] = []

    def fresh(self, size: Dim) -> int | None:
        if size == 1:
            return None
        self.of.append(size)
        return len(self.of) - 1

    def letters(self, shape: tuple[Dim, ...]) -> Letters:
        return tuple(self.fresh(size) for size in shape)


def substitute(term: Term, mapping: Mapping[int, int]) -> Term:
    """``term`` with letters renamed."""

    def move(letters: Letters) -> Letters:
        return tuple(x if x is None else mapping.get(x, x) for x in letters)

    factors = tuple(Factor(f.value, move(f.letters)) for f in term.factors)
    return replace(term, out=move(term.out), letters=move(term.letters), factors=factors)


def refreshed(term: Term, sizes: Sizes) -> Term:
    """``term`` with letters of its own: it may be used twice in one expression."""
    used = {x for group in (term.out, term.letters, *(f.letters for f in term.factors)) for x in group if x is not None}
    mapping: dict[int, int] = {}
    for letter in sorted(used):
        new = sizes.fresh(sizes.of[letter])
        assert new is not None
        mapping[letter] = new
    return substitute(term, mapping)


def scaled(value: Affine, factor: float) -> Affine:
    """``factor`` times the value."""
    return Affine(value.shape, tuple(replace(t, scale=t.scale * factor) for t in value.terms))


def aligned(term: Term, rank: int) -> Term:
    """``term`` as a value of ``rank`` dims: dims are added on the left."""
    return replace(term, out=(None,) * (rank - len(term.out)) + term.out)


def total(values: Iterable[Affine]) -> Affine:
    """The elementwise sum, shapes aligned from the right."""
    given = list(values)
    shape = broadcast_shapes([v.shape for v in given])
    return Affine(shape, tuple(aligned(t, len(shape)) for v in given for t in v.terms))


def multiplied(value: Affine, free: int, shape: tuple[Dim, ...], sizes: Sizes) -> Affine:
    """The elementwise product with a free value of that shape."""
    full = broadcast_shapes([value.shape, shape])
    terms = []
    for term in value.terms:
        out = list(aligned(term, len(full)).out)
        letters: list[int | None] = []
        for dim, size in enumerate(shape, len(full) - len(shape)):
            if size != 1 and out[dim] is None:
                out[dim] = sizes.fresh(size)
            letters.append(None if size == 1 else out[dim])
        factors = (*term.factors, Factor(free, tuple(letters)))
        terms.append(replace(term, out=tuple(out), factors=factors))
    return Affine(full, tuple(terms))


def stretches(value: Affine, shape: tuple[Dim, ...]) -> bool:
    """Whether a product with a value of that shape has dims that ``value`` has not."""
    full = broadcast_shapes([value.shape, shape])
    own = (1,) * (len(full) - len(value.shape)) + value.shape
    return own != full


def reshaped(value: Affine, shape: tuple[Dim, ...]) -> Affine | None:
    """The value in a shape that differs only by dims of size 1; otherwise None."""
    if [s for s in value.shape if s != 1] != [s for s in shape if s != 1]:
        return None
    terms = []
    for term in value.terms:
        kept = [x for x, size in zip(term.out, value.shape, strict=True) if size != 1]
        places = iter(kept)
        terms.append(replace(term, out=tuple(None if size == 1 else next(places) for size in shape)))
    return Affine(shape, tuple(terms))


def broadcast_to(value: Affine, shape: tuple[Dim, ...]) -> Affine:
    """The value stretched to a shape."""
    return Affine(shape, tuple(aligned(t, len(shape)) for t in value.terms))


def summed(value: Affine, dims: tuple[int, ...]) -> Affine | None:
    """The sum over dims; None when a constant dim has no known size."""
    terms = []
    for term in value.terms:
        scale = term.scale
        for dim in dims:
            size = value.shape[dim]
            if term.out[dim] is None and size != 1:
                if not isinstance(size, int):
                    return None
                scale *= size
        kept = tuple(x for d, x in enumerate(term.out) if d not in dims)
        terms.append(replace(term, out=kept, scale=scale))
    return Affine(tuple(s for d, s in enumerate(value.shape) if d not in dims), tuple(terms))
