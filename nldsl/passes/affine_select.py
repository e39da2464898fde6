"""One entry along a small dim of an affine value: how several reads of a state at once become one read each.

``S @ K'`` with K: [n, dk] is one value [dv, n]. What is written from it, ``(S @ K') @ K``, depends on the n reads of a
tick as n nodes would: the sum over n is written as n terms, each an outer product of a read and a row of K. The same
for a sum over the places of a window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nldsl.ir.build import Builder
from nldsl.passes.affine import Affine, Factor, Source, Term

MOST_ENTRIES = 16  # the system of a segment has as many rows per tick: beyond, a scan or a loop is as good


class Select:
    """Makes the entries of values, factors and nodes, each once. ``node`` gives a named value by its number, ``name``
    the term of a new one."""

    def __init__(self, body: Builder, node: Callable[[int], Affine], name: Callable[[Affine], Term]) -> None:
        self.body = body
        self.node = node
        self.name = name
        self.rows: dict[tuple[int, int, int], int] = {}
        self.named: dict[tuple[int, int, int], Source] = {}

    def entries(self, value: Affine, dim: int) -> list[Affine] | None:
        """All entries along a dim. None where a whole state has the dim: no read of it is smaller than the state."""
        size = value.shape[dim]
        if not isinstance(size, int) or size > MOST_ENTRIES:
            return None
        if any(not self._selectable(t, t.out[dim]) for t in value.terms):
            return None
        return [self.entry(value, dim, at) for at in range(size)]

    def _selectable(self, term: Term, letter: int | None) -> bool:
        if letter is None:
            return True
        if term.out.count(letter) > 1 or any(f.letters.count(letter) > 1 for f in term.factors):
            return False
        if letter not in term.letters:
            return True
        if term.source is None or term.source.kind != "node" or term.letters.count(letter) > 1:
            return False
        assert isinstance(term.source.key, int)
        place = term.letters.index(letter)
        return all(self._selectable(t, t.out[place]) for t in self.node(term.source.key).terms)

    def entry(self, value: Affine, dim: int, at: int) -> Affine:
        """Entry ``at`` along a dim that ``entries`` has found selectable."""
        shape = (*value.shape[:dim], *value.shape[dim + 1 :])
        return Affine(shape, tuple(self._term(t, dim, at) for t in value.terms))

    def _term(self, term: Term, dim: int, at: int) -> Term:
        letter = term.out[dim]
        out = (*term.out[:dim], *term.out[dim + 1 :])
        if letter is None:
            return replace(term, out=out)
        factors = tuple(self._factor(f, letter, at) for f in term.factors)
        source, letters = term.source, term.letters
        if source is not None and letter in letters:
            place = letters.index(letter)
            source = self._node(source, place, at)
            letters = (*letters[:place], *letters[place + 1 :])
        return Term(out, factors, source, letters, term.scale)

    def _factor(self, factor: Factor, letter: int, at: int) -> Factor:
        if letter not in factor.letters:
            return factor
        dim = factor.letters.index(letter)
        return Factor(self.row(factor.value, dim, at), (*factor.letters[:dim], *factor.letters[dim + 1 :]))

    def row(self, value: int, dim: int, at: int) -> int:
        """Entry ``at`` along a dim of a free value."""
        key = value, dim, at
        if key not in self.rows:
            shape = self.body.type(value).shape
            row = self.body.emit("slice", value, dim=dim, start=at, stop=at + 1)
            self.rows[key] = self.body.emit("reshape", row, shape=(*shape[:dim], *shape[dim + 1 :]))
        return self.rows[key]

    def _node(self, source: Source, dim: int, at: int) -> Source:
        assert isinstance(source.key, int)
        key = source.key, dim, at
        if key not in self.named:
            found = self.name(self.entry(self.node(source.key), dim, at)).source
            assert found is not None
            self.named[key] = found
        return self.named[key]
