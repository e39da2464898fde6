"""An affine value as contractions of the states before the tick alone: nodes and states after the tick taken apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from nldsl.passes.affine import Term, refreshed, substitute
from nldsl.passes.recurrence import Recurrence

MOST = 512  # terms


class TooManyTermsError(Exception):
    """A value that multiplies out to more terms than is worth it."""


def flattened(recurrence: Recurrence, terms: Iterable[Term], states: Collection[str]) -> list[Term]:
    """Terms whose sources are none, one of ``states`` before the tick, or another state. Raises TooManyTermsError."""
    found: list[Term] = []
    stack = list(terms)
    while stack:
        term = stack.pop()
        if len(found) + len(stack) > MOST:
            raise TooManyTermsError
        source = term.source
        if source is None or source.kind == "before" or (source.kind == "after" and source.key not in states):
            found.append(term)
            continue
        stack += [_inside(recurrence, term, inner) for inner in _parts(recurrence, term)]
    return found


def update(recurrence: Recurrence, state: str) -> list[Term]:
    """The terms of the update of a state."""
    given = [t for (_, target), terms in recurrence.coefficients.items() if target == state for t in terms]
    return [*given, *recurrence.maps.get(state, ()), *recurrence.writes.get(state, ())]


def _parts(recurrence: Recurrence, term: Term) -> list[Term]:
    assert term.source is not None
    if term.source.kind == "after":
        return update(recurrence, str(term.source.key))
    assert isinstance(term.source.key, int)
    return list(recurrence.rules.nodes[term.source.key].affine.terms)


def _inside(recurrence: Recurrence, term: Term, inner: Term) -> Term:
    """``term`` with one of the terms that its source is the sum of."""
    sizes = recurrence.rules.sizes
    inner = refreshed(inner, sizes)
    out = (None,) * (len(term.letters) - len(inner.out)) + inner.out
    # a letter may stand at two dims of the inner value, or of the outer one: all of them become one
    names: dict[int, int] = {}
    outer: dict[int, int] = {}
    scale = term.scale * inner.scale
    used = {x for f in term.factors for x in f.letters} | set(term.out)
    for x, y in zip(out, term.letters, strict=True):
        if x is None or y is None:
            if y is not None and y not in used:
                size = sizes.of[y]
                assert isinstance(size, int)
                scale *= size
            continue
        y = outer.get(y, y)
        if x in names and names[x] != y:
            outer[y] = names[x]
        else:
            names[x] = y
    inner = substitute(inner, names)
    term, inner = substitute(term, outer), substitute(inner, outer)
    return Term(term.out, (*term.factors, *inner.factors), inner.source, inner.letters, scale)
