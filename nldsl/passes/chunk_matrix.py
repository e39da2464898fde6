"""States that feed one another by full linear maps: an associative scan over the ticks of a segment.

States that feed one another are one: their *rows* (the dims that some map mixes) are put below one another, what no map
touches are *lanes*. With the matrix A[t]: [n, n] of all that a tick does to the rows, and what it writes b[t]: [n, m],

    x[t] = A[t] x[t-1] + b[t]     -->     x[t] = P[t] x[start] + s[t]

where the products P and the sums s are made for all segments at once (``matrix_scan``); only ``P x + s`` at the last
tick waits for the state. The work of a tick is n^2 (n + m), so n must be small.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise

from nldsl.dims import Dim
from nldsl.ir.chunk import TICKS
from nldsl.ir.ops import product
from nldsl.passes.affine import Factor, Term
from nldsl.passes.chunk_values import AT, Values
from nldsl.passes.contract import Letter, Operand, added, placed
from nldsl.passes.flatten_affine import flattened, update

MOST_ROWS = 64
MOST_WORK = 1 << 16  # multiplications of one tick: above, a loop over ticks is as fast


class MatrixScan:
    """Live states that feed one another, at all ticks. ``fits`` says whether their rows are few enough; ``known`` gives
    a term of another state, as parts to be added. Raises TooManyTermsError."""

    def __init__(self, values: Values, states: tuple[str, ...], known: Callable[[Term], list[Operand]]) -> None:
        self.values = values
        self.known = known
        self.builder = values.builder
        self.recurrence = values.recurrence
        self.states = states
        self.shapes = {s: values.program.state(s).type.shape for s in self.states}
        self.terms = {s: flattened(values.recurrence, update(values.recurrence, s), states) for s in states}
        self.lane = self._lanes()
        self.rows = {s: product(tuple(self.shapes[s][d] for d in self._own(s))) for s in self.states}
        first = self.states[0]
        self.columns = product(tuple(self.shapes[first][d] for d in self.lane))

    @property
    def fits(self) -> bool:
        n = sum(r if isinstance(r, int) else MOST_ROWS + 1 for r in self.rows.values())
        known = 0 < n <= MOST_ROWS and isinstance(self.columns, int)
        return known and isinstance(self.columns, int) and n * n * (n + self.columns) <= MOST_WORK

    def _own(self, state: str) -> list[int]:
        """The dims that are rows."""
        return [d for d in range(len(self.shapes[state])) if d not in self.lane]

    def _lanes(self) -> tuple[int, ...]:
        """The dims (the same of all states) that every term leaves alone."""
        ranks = {len(s) for s in self.shapes.values()}
        if len(ranks) > 1:
            return ()
        found = []
        for d in range(ranks.pop()):
            alike = len({shape[d] for shape in self.shapes.values()}) == 1
            if alike and all(self._untouched(t, d) for terms in self.terms.values() for t in terms):
                found.append(d)
        return tuple(found)

    def _untouched(self, term: Term, dim: int) -> bool:
        if not self._own_source(term):
            return True
        letter = term.out[dim]
        once = term.out.count(letter) == 1 and term.letters.count(letter) == 1
        free = all(letter not in f.letters for f in term.factors)
        return letter is not None and letter == term.letters[dim] and once and free

    def _own_source(self, term: Term) -> bool:
        return term.source is not None and term.source.key in self.states

    # ---- the matrices, for all ticks

    @cached_property
    def matrix(self) -> int:
        """[T, n, n]."""
        rows = []
        for i in self.states:
            row = [self._block(i, j) for j in self.states]
            rows.append(row[0] if len(row) == 1 else self.builder.emit("concat", *row, dim=2))
        return rows[0] if len(rows) == 1 else self.builder.emit("concat", *rows, dim=1)

    def _block(self, i: str, j: str) -> int:
        """What a tick adds to state i of state j: [T, rows of i, rows of j]."""
        builder, values = self.builder, self.values
        own, other = self._own(i), self._own(j)
        shape = (TICKS, *(self.shapes[i][d] for d in own), *(self.shapes[j][d] for d in other))
        total: int | None = None
        for term in self.terms[i]:
            if term.source is None or term.source.key != j:
                continue
            operands = [values.factor(f) for f in term.factors]
            into: list[Letter | None] = [f"o{d}" if term.out[d] is not None else None for d in own]
            of: list[Letter | None] = [f"s{d}" if term.letters[d] is not None else None for d in other]
            ties = [(term.out[d], f"o{d}", self.shapes[i][d]) for d in own if term.out[d] is not None]
            ties += [(term.letters[d], f"s{d}", self.shapes[j][d]) for d in other if term.letters[d] is not None]
            operands += self._tied(operands, ties)
            out: tuple[Letter, ...] = (AT, *(x for x in into if x is not None), *(x for x in of if x is not None))
            part = placed(builder, values.product(operands, out, term.scale), (AT, *into, *of))
            part = values.stretched(part, shape)
            total = part if total is None else added(builder, total, part)
        if total is None:
            total = values.stretched(builder.const(0.0), shape)
        return builder.emit("reshape", total, shape=(TICKS, self.rows[i], self.rows[j]))

    def _tied(self, operands: list[Operand], ties: list[tuple[int | None, str, Dim]]) -> list[Operand]:
        """Identity matrices that say which dims of the result are the dim of a letter."""
        builder, found = self.builder, []
        present = {x for o in operands for x in o.letters}
        names: dict[int | None, list[str]] = {}
        size: dict[int | None, Dim] = {}
        for letter, name, length in ties:
            names.setdefault(letter, []).append(name)
            size[letter] = length
        for letter, same in names.items():
            chain: list[Letter] = [*([letter] if letter in present else []), *same]
            if len(chain) == 1:
                one = builder.emit("broadcast", builder.const(1.0), shape=(size[letter],))
                found.append(Operand(one, (chain[0],)))
            unit = builder.emit(
                "to_real", builder.emit("one_hot", builder.emit("iota", n=size[letter]), n=size[letter])
            )
            for a, b in pairwise(chain):
                found.append(Operand(unit, (a, b)))
        return found

    @cached_property
    def written(self) -> int:
        """[T, n, m]."""
        parts = []
        for state in self.states:
            shape = self.shapes[state]
            letters = tuple(f"d{d}" for d in range(len(shape)))
            total: int | None = None
            for term in self.terms[state]:
                if self._own_source(term):
                    continue
                for operand in self.known(term):
                    part = placed(self.builder, operand, (AT, *term.out))
                    total = part if total is None else added(self.builder, total, part)
            if total is None:
                total = self.builder.const(0.0)
            whole = self.values.stretched(total, (TICKS, *shape))
            order = [letters[d] for d in (*self._own(state), *self.lane)]
            parts.append(self._flat(Operand(whole, (AT, *letters)), (AT, *order), state))
        return parts[0] if len(parts) == 1 else self.builder.emit("concat", *parts, dim=1)

    def _flat(self, operand: Operand, order: tuple[Letter, ...], state: str) -> int:
        """With the dims in that order, rows and lanes each as one."""
        value = self._ordered(operand, order)
        lead = self.builder.type(value).shape[:1] if order[:1] == (AT,) else ()
        return self.builder.emit("reshape", value, shape=(*lead, self.rows[state], self.columns))

    def _ordered(self, operand: Operand, order: tuple[Letter, ...]) -> int:
        if operand.letters == order:
            return operand.value
        name = {x: chr(ord("a") + n) for n, x in enumerate(operand.letters)}
        spec = "".join(name[x] for x in operand.letters) + "->" + "".join(name[x] for x in order)
        return self.builder.emit("einsum", operand.value, spec=spec)

    # ---- the states

    @cached_property
    def start(self) -> int:
        """At the beginning of the segment: [n, m]."""
        parts = []
        for state in self.states:
            type = self.values.program.state(state).type
            leaf = self.builder.leaf("state", type, state=state)
            letters = tuple(f"d{d}" for d in range(len(type.shape)))
            order = tuple(letters[d] for d in (*self._own(state), *self.lane))
            parts.append(self._flat(Operand(leaf, letters), order, state))
        return parts[0] if len(parts) == 1 else self.builder.emit("concat", *parts, dim=0)

    @cached_property
    def scanned(self) -> tuple[int, int]:
        """The products P: [T, n, n], and the sums s: [T, n, m]."""
        builder, matrix = self.builder, self.matrix
        n = sum(r for r in self.rows.values() if isinstance(r, int))
        first = builder.emit("slice", matrix, dim=0, start=0, stop=1)
        first = builder.emit("pad", first, dim=0, before=0, after=TICKS - 1)
        right = builder.emit("concat", first, self.written, dim=2)
        found = builder.emit("matrix_scan", matrix, right, reverse=False)
        products = builder.emit("slice", found, dim=2, start=0, stop=n)
        return products, builder.emit("slice", found, dim=2, start=n, stop=n + self.columns)

    @cached_property
    def after(self) -> int:
        """All states after each tick: [T, n, m]."""
        products, sums = self.scanned
        return self.builder.emit("add", self.builder.emit("einsum", products, self.start, spec="tij,jm->tim"), sums)

    @cached_property
    def last(self) -> int:
        """After the last tick: [n, m]."""
        products, sums = (self.values.row(x, TICKS - 1) for x in self.scanned)
        return self.builder.emit("add", self.builder.emit("einsum", products, self.start, spec="ij,jm->im"), sums)

    @cached_property
    def before(self) -> int:
        begin = self.builder.emit("reshape", self.start, shape=(1, *self.builder.type(self.start).shape))
        return self.builder.emit("concat", begin, self.values.rows(self.after, 0, TICKS - 1), dim=0)

    def state(self, name: str, after: bool) -> int:
        """One state at each tick: [T, shape]."""
        return self._one(name, self.after if after else self.before, True)

    def end(self, name: str, after: bool) -> int:
        """One state after the last tick, or before it: [shape]."""
        if after:
            return self._one(name, self.last, False)
        return self.values.row(self.state(name, after=False), TICKS - 1)

    def _one(self, name: str, whole: int, ticks: bool) -> int:
        builder, shape, lead = self.builder, self.shapes[name], (TICKS,) if ticks else ()
        at: Dim = 0
        for state in self.states:
            if state == name:
                break
            at = at + self.rows[state]
        part = builder.emit("slice", whole, dim=len(lead), start=at, stop=at + self.rows[name])
        dims = (*self._own(name), *self.lane)
        part = builder.emit("reshape", part, shape=(*lead, *(shape[d] for d in dims)))
        begin: tuple[Letter, ...] = (AT,) if ticks else ()
        names: tuple[Letter, ...] = tuple(f"d{d}" for d in dims)
        order: tuple[Letter, ...] = tuple(f"d{d}" for d in range(len(shape)))
        return self._ordered(Operand(part, (*begin, *names)), (*begin, *order))


class TwoSidedScan(MatrixScan):
    """One state S <- A S B + what is written. Raises NotTwoSidedError where a tick does anything else."""

    def __init__(self, values: Values, states: tuple[str, ...], known: Callable[[Term], list[Operand]]) -> None:
        super().__init__(values, states, known)
        if len(states) != 1 or len(self.shapes[states[0]]) != 2 or self.lane:
            raise NotTwoSidedError
        maps = [t for t in self.terms[states[0]] if self._own_source(t)]
        if len(maps) != 1:
            raise NotTwoSidedError
        (self.map,) = maps
        left = {self.map.out[0], self.map.letters[0]}
        right = {self.map.out[1], self.map.letters[1]}
        if None in left | right or len(left) < 2 or len(right) < 2 or left & right:
            raise NotTwoSidedError
        self.factors: tuple[list[Factor], list[Factor]] = ([], [])
        for factor in self.map.factors:
            own = {x for x in factor.letters if x is not None}
            if own & (left | right) and not (own <= left or own <= right):
                raise NotTwoSidedError
            if own - left - right:
                raise NotTwoSidedError
            self.factors[1 if own & right else 0].append(factor)

    @property
    def fits(self) -> bool:
        n, m = self.shapes[self.states[0]]
        if not isinstance(n, int) or not isinstance(m, int) or max(n, m) > MOST_ROWS:
            return False
        return (n * n + m * m) * (n + m) <= 2 * MOST_WORK

    @cached_property
    def sides(self) -> tuple[int, int]:
        """A: [T, n, n] and B: [T, m, m]."""
        n, m = self.shapes[self.states[0]]
        out, letters = self.map.out, self.map.letters
        made = []
        for factors, names, size, scale in (
            (self.factors[0], (AT, out[0], letters[0]), n, self.map.scale),
            (self.factors[1], (AT, letters[1], out[1]), m, 1.0),
        ):
            product_ = self.values.product([self.values.factor(f) for f in factors], names, scale)
            made.append(self.values.stretched(placed(self.builder, product_, names), (TICKS, size, size)))
        return made[0], made[1]

    @cached_property
    def scanned(self) -> tuple[int, int]:
        """The products of the left sides: [T, n, n], and the sums: [T, n, m]."""
        n, m = self.shapes[self.states[0]]
        left, right = self.sides
        written = self.builder.emit("reshape", self.written, shape=(TICKS, n, m))
        sums = self.builder.emit("two_sided_scan", left, written, right, reverse=False)
        return self._products(left, False), sums

    def _products(self, steps: int, turned: bool) -> int:
        """steps[t] .. steps[0], or in the other order: [T, n, n]."""
        builder = self.builder
        if turned:
            steps = builder.emit("einsum", steps, spec="tij->tji")
        first = builder.emit("pad", self.values.rows(steps, 0, 1), dim=0, before=0, after=TICKS - 1)
        found = builder.emit("matrix_scan", steps, first, reverse=False)
        return builder.emit("einsum", found, spec="tij->tji") if turned else found

    def _with_start(self, left: int, right: int, sums: int, tick: str) -> int:
        begin = self.builder.leaf("state", self.values.program.state(self.states[0]).type, state=self.states[0])
        half = self.builder.emit("einsum", left, begin, spec=f"{tick}ij,jk->{tick}ik")
        return self.builder.emit(
            "add", self.builder.emit("einsum", half, right, spec=f"{tick}ik,{tick}km->{tick}im"), sums
        )

    @cached_property
    def right_products(self) -> int:
        return self._products(self.sides[1], True)

    @cached_property
    def after(self) -> int:
        products, sums = self.scanned
        return self._with_start(products, self.right_products, sums, "t")

    @cached_property
    def last(self) -> int:
        products, sums, right = (self.values.row(x, TICKS - 1) for x in (*self.scanned, self.right_products))
        return self._with_start(products, right, sums, "")

    @cached_property
    def before(self) -> int:
        type = self.values.program.state(self.states[0]).type
        begin = self.builder.leaf("state", type, state=self.states[0])
        begin = self.builder.emit("reshape", begin, shape=(1, *type.shape))
        return self.builder.emit("concat", begin, self.values.rows(self.after, 0, TICKS - 1), dim=0)

    def _one(self, name: str, whole: int, ticks: bool) -> int:
        return whole


class NotTwoSidedError(Exception):
    """A recurrence that is more than one product from both sides."""
