"""How what a state held at one tick arrives at a later one: products of the transition coefficients over a segment.

States that feed one another elementwise form a *group* with a small transition matrix (memory and momentum: 2x2).
For states i, j of a group, P[i, j](t, s) is what a unit of j written at tick s contributes to i at tick t >= s. All
are made by ``segprod`` and ``cumprod``, which never divide and take no logarithm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from nldsl.dims import Dim
from nldsl.ir.build import Builder
from nldsl.ir.chunk import TICKS
from nldsl.passes.affine import Term
from nldsl.passes.chunk_values import AT, FROM, Values
from nldsl.passes.contract import Operand, contract, placed
from nldsl.passes.recurrence import Recurrence


@dataclass(frozen=True)
class Coefficient:
    """``value`` is a per-token value with size 1 in the dims where the coefficient is constant, or a number."""

    value: int | None
    number: float = 1.0


def groups(recurrence: Recurrence) -> list[tuple[str, ...]]:
    """States joined by coefficients between different states, in the order of the loop."""
    root = {s: s for s in recurrence.live}

    def find(s: str) -> str:
        while root[s] != s:
            s = root[s]
        return s

    for i, j in recurrence.coefficients:
        root[find(i)] = find(j)
    found: dict[str, list[str]] = {}
    for s in recurrence.live:
        found.setdefault(find(s), []).append(s)
    return [tuple(members) for members in found.values()]


def coefficient(body: Builder, terms: Iterable[Term]) -> Coefficient:
    """The sum of the products of the factors of some terms of one source."""
    number, value = 0.0, None
    for term in terms:
        if not term.factors:
            number += term.scale
            continue
        kept = tuple(x for x in term.letters if x is not None)
        product = contract(body, [Operand(f.value, f.letters) for f in term.factors], kept, term.scale)
        first = next((d for d, x in enumerate(term.letters) if x in product.letters and x is not None), len(kept))
        part = placed(body, product, term.letters[first:]) if product.letters else product.value
        value = part if value is None else body.emit("add", value, part)
    if value is None:
        return Coefficient(None, number)
    if number:
        value = body.emit("add", value, body.const(number))
    return Coefficient(value)


class Decay:
    """The products for one group. ``dims``: the dims of the states along which a coefficient is not constant."""

    def __init__(self, values: Values, members: tuple[str, ...]) -> None:
        self.values = values
        self.builder = values.builder
        self.members = members
        self.shape = values.program.state(members[0]).type.shape
        rank, given = len(self.shape), values.recurrence.coefficients
        self.coefficients: dict[tuple[int, int], Coefficient] = {}
        for n, i in enumerate(members):
            for m, j in enumerate(members):
                if (i, j) in given:
                    self.coefficients[m, n] = coefficient(values.source, given[i, j])
        self.dims = tuple(d for d in range(rank) if any(self._differs(c, d) for c in self.coefficients.values()))
        self.reach = _closure(len(members), set(self.coefficients))

    def _differs(self, c: Coefficient, dim: int) -> bool:
        if c.value is None:
            return False
        shape = self.values.source.type(c.value).shape
        at = dim - (len(self.shape) - len(shape))
        return at >= 0 and shape[at] != 1

    @property
    def sizes(self) -> tuple[Dim, ...]:
        return tuple(self.shape[d] for d in self.dims)

    @property
    def single(self) -> bool:
        return len(self.members) == 1

    @property
    def trivial(self) -> bool:
        """No decay at all."""
        return self.single and self.coefficients.get((0, 0)) == Coefficient(None, 1.0)

    @property
    def forgets(self) -> bool:
        """Whether each tick replaces the whole state."""
        return self.single and not self.coefficients

    def index(self, state: str) -> int:
        return self.members.index(state)

    def reaches(self, i: str, j: str) -> bool:
        """Whether j ever contributes to i."""
        return (self.index(i), self.index(j)) in self.reach

    @cached_property
    def steps(self) -> int:
        """The coefficients of a single state: [T, dims]; of a group: [T, n, n, dims]."""
        n = len(self.members)
        if self.single:
            return self._step(0, 0)
        rows = []
        for i in range(n):
            row = [self._entry_of_step(i, j) for j in range(n)]
            rows.append(self.builder.emit("concat", *row, dim=2))
        return self.builder.emit("concat", *rows, dim=1)

    def _step(self, i: int, j: int) -> int:
        shape = (TICKS, *self.sizes)
        c = self.coefficients.get((i, j), Coefficient(None, 0.0))
        if c.value is None:
            return self.builder.emit("broadcast", self.builder.const(c.number), shape=shape)
        value = self.values.per_tick(c.value)
        own = self.builder.type(value).shape
        letters = tuple(range(len(self.shape) - len(own), len(self.shape)))
        operand = self.values.segment(value)
        lead = (AT,) if operand.letters[:1] == (AT,) else ()
        named = Operand(operand.value, (*lead, *(None if s == 1 else x for x, s in zip(letters, own, strict=True))))
        return self.values.stretched(placed(self.builder, named, (AT, *self.dims)), shape)

    def _entry_of_step(self, i: int, j: int) -> int:
        return self.builder.emit("reshape", self._step(i, j), shape=(TICKS, 1, 1, *self.sizes))

    @cached_property
    def table(self) -> int:
        """P(t, s): [T, T, dims] or [T, T, n, n, dims]."""
        if self.trivial:
            return self.causal
        return self.builder.emit("segprod", self.steps, matrix=not self.single)

    @cached_property
    def causal(self) -> int:
        """1 for s <= t, otherwise 0: [T, T]."""
        builder, ticks = self.builder, self.builder.emit("iota", n=TICKS)
        rows = builder.emit("reshape", ticks, shape=(TICKS, 1))
        one, zero = builder.const(1.0), builder.const(0.0)
        return builder.emit("where", builder.emit("ge", rows, ticks), one, zero)

    def strict(self, table: int) -> int:
        """[T, T, ..] without the entries of the same tick."""
        builder, ticks = self.builder, self.builder.emit("iota", n=TICKS)
        rest = (1,) * (len(builder.type(table).shape) - 2)
        rows = builder.emit("reshape", ticks, shape=(TICKS, 1, *rest))
        columns = builder.emit("reshape", ticks, shape=(1, TICKS, *rest))
        return builder.emit("where", builder.emit("gt", rows, columns), table, builder.const(0.0))

    def pick(self, value: int, i: int, j: int, lead: int) -> int:
        """Entry i, j of [.., n, n, dims] with ``lead`` dims before the matrix."""
        shape = self.builder.type(value).shape
        for dim, at in ((lead, i), (lead + 1, j)):
            value = self.builder.emit("slice", value, dim=dim, start=at, stop=at + 1)
        return self.builder.emit("reshape", value, shape=(*shape[:lead], *shape[lead + 2 :]))

    def between(self, i: str, j: str, after: bool) -> int:
        """P[i, j](t, s), or without ``after`` P[i, j](t - 1, s), zero for s >= t: [T, T, dims]."""
        full = self.table if self.single else self.pick(self.table, self.index(i), self.index(j), 2)
        return full if after else self.values.delayed(full)

    def start(self, i: str, j: str, after: bool) -> int | None:
        """What j at the beginning of the segment contributes to i at t, or at t - 1: [T, dims]. None: always 1."""
        if self.trivial:
            return None
        if self.single:
            return self.builder.emit("cumprod", self.steps, reverse=False, exclusive=not after)
        value = self._matrices if after else self._matrices_before
        return self.pick(value, self.index(i), self.index(j), 1)

    @cached_property
    def _matrices(self) -> int:
        builder, v = self.builder, self.values
        first = v.row(self.steps, 0)
        column = builder.emit("slice", self.table, dim=1, start=0, stop=1)
        shape = builder.type(self.table).shape
        column = builder.emit("reshape", column, shape=(shape[0], *shape[2:]))
        rest = "xyzuvw"[: len(self.dims)]
        return builder.emit("einsum", column, first, spec=f"tij{rest},jk{rest}->tik{rest}")

    @cached_property
    def _matrices_before(self) -> int:
        n = len(self.members)
        unit = self.builder.emit("one_hot", self.builder.emit("iota", n=n), n=n)
        unit = self.builder.emit("reshape", unit, shape=(1, n, n, *(1 for _ in self.dims)))
        unit = self.values.stretched(unit, (1, n, n, *self.sizes))
        return self.builder.emit("concat", unit, self.values.rows(self._matrices, 0, TICKS - 1), dim=0)

    def end(self, i: str, j: str, after: bool) -> int | None:
        """P[i, j](t, s) at the last tick t, or the one before it (then zero for s = t): [T, dims]. None: always 1."""
        if self.trivial and after:
            return None
        builder, v = self.builder, self.values
        if self.trivial:
            return self._last_dropped(builder.emit("broadcast", builder.const(1.0), shape=(TICKS - 1,)))
        if self.single:
            steps = self.steps if after else v.rows(self.steps, 0, TICKS - 1)
            found = builder.emit("cumprod", steps, reverse=True, exclusive=True)
            return found if after else self._last_dropped(found)
        row = v.row(self.table if after else v.delayed(self.table), TICKS - 1)
        return self.pick(row, self.index(i), self.index(j), 1)

    def _last_dropped(self, value: int) -> int:
        return self.builder.emit("pad", value, dim=0, before=0, after=1)

    def whole(self, i: str, j: str, after: bool) -> int | None:
        """What j at the beginning contributes to i after the last tick, or before it: [dims]. None: 1."""
        found = self.start(i, j, after)
        return None if found is None else self.values.row(found, TICKS - 1)

    def letters(self, state: tuple[int | None, ...], *ticks: str) -> tuple[int | str | None, ...]:
        """The letters of a product for a state whose dims have these letters."""
        return (*ticks, *(state[d] for d in self.dims))


def _closure(n: int, edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    found = edges | {(i, i) for i in range(n)}
    for k in range(n):
        found |= {(i, j) for i in range(n) for j in range(n) if (i, k) in found and (k, j) in found}
    return found


__all__ = ["AT", "FROM", "Coefficient", "Decay", "groups"]
