"""The decays of states that feed one another, but not in a circle (a memory and its momentum), entry by entry.

With c the coefficients of a tick and P[i, j](t, s) what a unit of j written at s contributes to i at t,

    P[i, i] = products of c[i, i]
    P[i, j](t, s) = c[i, i](t) P[i, j](t - 1, s) + sum over k != i:  c[i, k](t) P[k, j](t - 1, s)

so that each entry is one scan over t, and so is its derivative. Products of matrices, which any group has, cost the
number of states more, and their derivative is a contraction of tables. A scan is cheap where it runs over one segment
at a time; where many ticks are done at once, products of matrices wait less.
"""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.ir.chunk import TICKS
from nldsl.passes.chunk_decay import Coefficient, Decay
from nldsl.passes.chunk_values import Values

ONE = Coefficient(None, 1.0)


def decay_of(values: Values, members: tuple[str, ...], serial: bool) -> Decay:
    """The decay of a group; ``serial``: for segments that are done one after the other."""
    found = Decay(values, members)
    circle = any((j, i) in found.reach for i, j in found.reach if i != j)
    return ScannedDecay(values, members) if serial and not found.single and not circle else found


class ScannedDecay(Decay):
    """Needs: no two states of the group that reach one another."""

    def __init__(self, values: Values, members: tuple[str, ...]) -> None:
        super().__init__(values, members)
        self.tables: dict[tuple[int, int], int] = {}
        self.starts: dict[tuple[int, int], int] = {}
        self.ends: dict[tuple[int, int], int] = {}

    def between(self, i: str, j: str, after: bool) -> int:
        full = self._table(self.index(i), self.index(j))
        return full if after else self.values.delayed(full)

    def start(self, i: str, j: str, after: bool) -> int:
        pair = self.index(i), self.index(j)
        return self._start(*pair) if after else self._before(*pair)

    def end(self, i: str, j: str, after: bool) -> int:
        pair, v = (self.index(i), self.index(j)), self.values
        return self._end(*pair) if after else v.row(v.delayed(self._table(*pair)), TICKS - 1)

    # ---- P(t, s): [T, T, dims]

    def _table(self, i: int, j: int) -> int:
        if (i, j) not in self.tables:
            self.tables[i, j] = self._new_table(i, j)
        return self.tables[i, j]

    def _new_table(self, i: int, j: int) -> int:
        if i == j and self.coefficients.get((i, i)) == ONE and not self.dims:
            return self.causal
        if i == j:
            return self.builder.emit("segprod", self._step(i, i), matrix=False)
        parts = []
        for k in self._between(i, j, from_left=True):
            column = self.builder.emit("reshape", self._step(i, k), shape=(TICKS, 1, *self.sizes))
            parts.append(self.builder.emit("mul", column, self.values.delayed(self._table(k, j))))
        return self._scanned(i, self._sum(parts))

    # ---- from the beginning of the segment to t, or to t - 1: [T, dims]

    def _start(self, i: int, j: int) -> int:
        if (i, j) not in self.starts:
            if i == j:
                found = self.builder.emit("cumprod", self._step(i, i), reverse=False, exclusive=False)
            else:
                ways = self._between(i, j, from_left=True)
                parts = [self.builder.emit("mul", self._step(i, k), self._before(k, j)) for k in ways]
                found = self._scanned(i, self._sum(parts))
            self.starts[i, j] = found
        return self.starts[i, j]

    def _before(self, i: int, j: int) -> int:
        if i == j:
            return self.builder.emit("cumprod", self._step(i, i), reverse=False, exclusive=True)
        return self.values.delayed(self._start(i, j))

    # ---- from s to the last tick: [T, dims]

    def _end(self, i: int, j: int) -> int:
        if (i, j) not in self.ends:
            if i == j:
                found = self.builder.emit("cumprod", self._step(i, i), reverse=True, exclusive=True)
            else:
                ways = self._between(i, j, from_left=False)
                parts = [self.builder.emit("mul", self._end(i, k), self._step(k, j)) for k in ways]
                found = self._ahead(self._sum(parts))
                if (j, j) in self.coefficients:
                    found = self.builder.emit("linear_scan", self._ahead(self._step(j, j)), found, reverse=True)
            self.ends[i, j] = found
        return self.ends[i, j]

    # ---- both

    def _between(self, i: int, j: int, from_left: bool) -> list[int]:
        """The states on the way from j to i: next to i, or next to j."""
        if from_left:
            return [k for a, k in self.coefficients if a == i and k != i and (k, j) in self.reach]
        return [k for k, b in self.coefficients if b == j and k != j and (i, k) in self.reach]

    def _scanned(self, i: int, new: int) -> int:
        if (i, i) not in self.coefficients:
            return new
        return self.builder.emit("linear_scan", self._step(i, i), new)

    def _ahead(self, value: int) -> int:
        """[T, ..] of the tick after; zero at the last."""
        return self.builder.emit("pad", self.values.rows(value, 1, TICKS), dim=0, before=0, after=1)

    def _sum(self, parts: Sequence[int]) -> int:
        total = parts[0]
        for part in parts[1:]:
            total = self.builder.emit("add", total, part)
        return total
