"""The nodes of a recurrence for all ticks of a segment at once.

A node u is what a tick writes; it depends on reads of the state, that is on the nodes of earlier ticks. With L the
products of reads and writes (strictly lower triangular in time) and r what does not depend on nodes,

    u = r + L u        -->        u = (1 - L)^-1 r        r = offsets + f Z(start)

Where L does not depend on states, (1 - L)^-1 is applied to the offsets and to f before the state is known, so that only
a product with the state stays in the loop over segments: ``ahead``. Where nothing is done ahead of the loop anyway, one
system with the right side r is less work, and its backward pass even more so: a right side of half the columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.dims import Dim
from nldsl.ir.chunk import TICKS
from nldsl.ir.graphs import components
from nldsl.ir.ops import product
from nldsl.ir.program import Axis
from nldsl.passes.affine import Affine, Letters, Term, substitute
from nldsl.passes.chunk_read import Reads
from nldsl.passes.chunk_values import AT, FROM, Values
from nldsl.passes.contract import Letter, Operand, added, negative, placed


class NotTriangularError(Exception):
    """A node depends on nodes in a way that is not one system per tick pair."""

    def __init__(self, value: int, why: str) -> None:
        super().__init__(why)
        self.value = value
        self.why = why


@dataclass(frozen=True)
class System:
    """Nodes to be solved together; ``letters`` are the dims that all of them have."""

    nodes: tuple[int, ...]
    letters: tuple[int | None, ...]
    shape: tuple[Dim, ...]


class Solver:
    """``nodes``: number of a node -> its values [T, shape], filled on demand."""

    def __init__(self, values: Values, reads: Reads, ahead: bool = True) -> None:
        self.values = values
        self.ahead = ahead
        self.builder = values.builder
        self.reads = reads
        self.rules = values.recurrence.rules
        self.nodes: dict[int, int] = {}
        self.solves = 0
        self.lanes: list[Axis] = []  # the axes made for systems that differ between lanes

    def need(self, affine: Affine) -> None:
        """Make all nodes known that a value is computed from."""
        wanted = [n for t in affine.terms for n in self._needs(t)]
        edges: dict[int, list[int]] = {}
        while wanted:
            number = wanted.pop()
            if number in edges or number in self.nodes:
                continue
            edges[number] = [n for t in self.rules.nodes[number].affine.terms for n in self._needs(t)]
            wanted.extend(edges[number])
        for component in components({n: [m for m in needs if m in edges] for n, needs in edges.items()}):
            if len(component) > 1 or component[0] in edges[component[0]]:
                self.solve(tuple(sorted(component)))
            else:
                (number,) = component
                self.nodes[number] = self.reads.value(self.rules.nodes[number].affine, self.nodes)

    def _needs(self, term: Term) -> list[int]:
        if term.source is None:
            return []
        if term.source.kind == "node":
            assert isinstance(term.source.key, int)
            return [term.source.key]
        if term.source.key in self.reads.scans:
            return []
        found = []
        for j in self.reads.sources(term):
            for write in self.reads.writes[j]:
                if write.source is not None:
                    assert isinstance(write.source.key, int)
                    found.append(write.source.key)
        return found

    # ---- one system

    def solve(self, members: tuple[int, ...]) -> None:
        system = self._system(members)
        terms = {
            n: [self._named(n, self.reads.placed(t), system) for t in self.rules.nodes[n].affine.terms] for n in members
        }
        blocks = {(n, m): self._block(terms[n], n, m, system) for n in members for m in members}
        lanes = tuple(
            x for x in system.letters if x is not None and any(x in o.letters for b in blocks.values() for o in b)
        )
        matrix = self._matrix(blocks, system, lanes)
        known = frozenset(members)
        start: list[tuple[int, Term, str, Operand]] = []
        offsets: dict[int, list[tuple[Term, Operand]]] = {n: [] for n in members}
        for n in members:
            for term in terms[n]:
                if term.source is None or (term.source.kind == "node" and term.source.key not in known):
                    offsets[n] += [(term, part) for part in self.reads.term(term, self.nodes)]
                elif term.source.kind != "node":
                    offsets[n] += [(term, part) for part in self.reads.from_writes(term, self.nodes, known)]
                    for j, operands in self.reads.initial(term):
                        out: tuple[Letter, ...] = (AT, *dict.fromkeys(x for x in term.letters if x is not None))
                        row = self.values.product(operands, out, term.scale)
                        start.append((n, term, j, row))
        ahead = self.ahead and not lanes and not self.values.depends_on_carry(matrix)
        early = all(not self.values.depends_on_carry(p.value) for parts in offsets.values() for _, p in parts)
        if ahead and early and self._separable(start, system):
            self._solve_ahead(system, matrix, offsets, start)
            return
        for n, term, j, row in start:
            out = (AT, *(x for x in term.out if x is not None))
            part = self.values.product([row, self.reads.state(j, term.letters)], out)
            offsets[n].append((term, part))
        right = {n: self.reads.sum(self.rules.nodes[n].affine, offsets[n]) for n in members}
        self._finish(system, self._solved(system, matrix, right, lanes, ahead))

    def _system(self, members: tuple[int, ...]) -> System:
        shapes = {self.rules.nodes[n].affine.shape for n in members}
        if len(shapes) > 1:
            raise NotTriangularError(self.rules.nodes[members[0]].value, "reads of different shapes feed one another")
        (shape,) = shapes
        return System(members, self.rules.sizes.letters(shape), shape)

    def _named(self, node: int, term: Term, system: System) -> Term:
        """A term with the system's letters; checks that it keeps lanes apart."""
        mapping = {x: y for x, y in zip(term.out, system.letters, strict=True) if x is not None and y is not None}
        inner = term.source is not None and (term.source.kind != "node" or term.source.key in system.nodes)
        if inner and len(mapping) != sum(y is not None for y in system.letters):
            raise NotTriangularError(self.rules.nodes[node].value, "a read is spread over more dims than it has")
        return substitute(term, mapping)

    def _block(self, terms: list[Term], n: int, m: int, system: System) -> list[Operand]:
        """How node m enters node n: parts of [T, T, lanes] (tick of n, tick of m)."""
        found = []
        out: tuple[Letter, ...] = (AT, FROM, *(x for x in system.letters if x is not None))
        for term in terms:
            if term.source is None:
                continue
            if term.source.kind == "node":
                if term.source.key == m:
                    found.append(self._same_tick(term, n, system))
                continue
            for j in self.reads.sources(term):
                for write in self.reads.writes[j]:
                    if write.source is None or write.source.key != m:
                        continue
                    matched = self.reads.matched(term, write)
                    if matched.letters != system.letters:
                        raise NotTriangularError(
                            self.rules.nodes[n].value, "reads of both sides of the state feed writes"
                        )
                    operands, scale = self.reads.coupling(term, j, matched, below=len(system.nodes) == 1)
                    found.append(self.values.product(operands, out, scale))
        return found

    def _same_tick(self, term: Term, n: int, system: System) -> Operand:
        if term.letters != tuple(x for x in term.out):
            raise NotTriangularError(self.rules.nodes[n].value, "a write of the same tick is read across its dims")
        builder = self.builder
        operands = [self.values.factor(f) for f in term.factors]
        out: tuple[Letter, ...] = (AT, *(x for x in system.letters if x is not None))
        weight = self.values.product(operands, out, term.scale)
        unit = builder.emit("one_hot", builder.emit("iota", n=TICKS), n=TICKS)
        return self.values.product([weight, Operand(unit, (AT, FROM))], (AT, FROM, *out[1:]))

    def _matrix(self, blocks: dict[tuple[int, int], list[Operand]], system: System, lanes: tuple[int, ...]) -> int:
        """1 - L as [T * W, T * W] (ticks outside, nodes inside), lanes in front; only its lower part is used."""
        builder, count = self.builder, len(system.nodes)
        order: tuple[Letter, ...] = (*lanes, AT, FROM)
        sizes = tuple(self.rules.sizes.of[x] for x in lanes)
        rows = []
        for n in system.nodes:
            row = []
            for m in system.nodes:
                total: int | None = None
                for part in blocks[n, m]:
                    value = placed(builder, part, order)
                    total = value if total is None else added(builder, total, value)
                if total is None:
                    total = builder.const(0.0)
                total = self.values.stretched(negative(builder, total), (*sizes, TICKS, TICKS))
                if count == 1:
                    return total
                row.append(builder.emit("reshape", total, shape=(*sizes, TICKS, 1, TICKS, 1)))
            rows.append(builder.emit("concat", *row, dim=len(sizes) + 3))
        whole = builder.emit("concat", *rows, dim=len(sizes) + 1)
        return builder.emit("reshape", whole, shape=(*sizes, TICKS * count, TICKS * count))

    def _separable(self, start: list[tuple[int, Term, str, Operand]], system: System) -> bool:
        """Whether what multiplies the initial states does not differ between lanes."""
        for _, term, _, row in start:
            own = {x for x in system.letters if x is not None}
            if own & set(row.letters) or self.values.depends_on_carry(row.value):
                return False
            if len(set(term.letters)) != len(term.letters):
                return False
        return True

    def _solve_ahead(
        self,
        system: System,
        matrix: int,
        offsets: dict[int, list[tuple[Term, Operand]]],
        start: list[tuple[int, Term, str, Operand]],
    ) -> None:
        builder, values = self.builder, self.values
        columns: list[int] = []
        widths: list[Dim] = []
        if any(offsets.values()):
            right = {n: self.reads.sum(self.rules.nodes[n].affine, offsets[n]) for n in system.nodes}
            columns.append(self._stacked(system, right, system.shape))
            widths.append(product(system.shape))
        sides: dict[tuple[str, Letters], dict[int, int]] = {}
        for n, term, j, row in start:
            lanes = tuple(x if x in term.out else None for x in term.letters)
            letters = _summed(term.letters, lanes)
            sizes = tuple(self.rules.sizes.of[x] for x in letters)
            value = values.stretched(placed(builder, row, (AT, *letters)), (TICKS, *sizes))
            side = sides.setdefault((j, lanes), {})
            side[n] = added(builder, side[n], value) if n in side else value
        for (j, lanes), side in sides.items():
            shape = self._side_shape(j, lanes)
            columns.append(self._stacked(system, side, shape))
            widths.append(product(shape))
        self.solves += 1
        right_side = columns[0] if len(columns) == 1 else builder.emit("concat", *columns, dim=1)
        solved = builder.emit("solve_triangular", matrix, right_side, lower=True, unit=True)
        parts: list[int] = []
        at: Dim = 0
        for width in widths:
            parts.append(builder.emit("slice", solved, dim=1, start=at, stop=at + width))
            at = at + width
        total: dict[int, int] = {}
        if len(parts) > len(sides):
            total = self._unstacked(system, parts[0], system.shape)
        for (j, lanes), part in zip(sides, parts[len(parts) - len(sides) :], strict=True):
            for n, rows in self._unstacked(system, part, self._side_shape(j, lanes)).items():
                found = self._applied(rows, j, lanes, system)
                total[n] = added(builder, total[n], found) if n in total else found
        self.nodes.update(total)

    def _side_shape(self, j: str, lanes: Letters) -> tuple[Dim, ...]:
        shape = self.values.program.state(j).type.shape
        return tuple(s for s, x in zip(shape, lanes, strict=True) if x is None and s != 1)

    def _applied(self, rows: int, j: str, lanes: Letters, system: System) -> int:
        """[T, summed dims] times the state at the beginning, of which ``lanes`` are the other dims: [T, shape]."""
        shape = self.values.program.state(j).type.shape
        letters: list[Letter | None] = list(lanes)
        for d, size in enumerate(shape):
            if lanes[d] is None and size != 1:
                letters[d] = f"d{d}"
        read = Operand(rows, (AT, *(x for x in letters if isinstance(x, str))))
        out: tuple[Letter, ...] = (AT, *(x for x in system.letters if x is not None))
        found = self.values.product([read, Operand(self.reads.state_value(j), tuple(letters))], out)
        return self.values.stretched(placed(self.builder, found, (AT, *system.letters)), (TICKS, *system.shape))

    def _stacked(self, system: System, parts: dict[int, int], shape: tuple[Dim, ...]) -> int:
        """[T, shape] of each node as [T * W, columns]."""
        builder, width = self.builder, product(shape)
        if len(system.nodes) == 1:
            return builder.emit("reshape", parts[system.nodes[0]], shape=(TICKS, width))
        rows = []
        for n in system.nodes:
            value = parts.get(n)
            if value is None:
                value = self.values.stretched(builder.const(0.0), (TICKS, *shape))
            rows.append(builder.emit("reshape", value, shape=(TICKS, 1, width)))
        whole = builder.emit("concat", *rows, dim=1)
        return builder.emit("reshape", whole, shape=(TICKS * len(system.nodes), width))

    def _unstacked(self, system: System, value: int, shape: tuple[Dim, ...]) -> dict[int, int]:
        builder, count = self.builder, len(system.nodes)
        if count == 1:
            return {system.nodes[0]: builder.emit("reshape", value, shape=(TICKS, *shape))}
        whole = builder.emit("reshape", value, shape=(TICKS, count, product(shape)))
        found = {}
        for at, n in enumerate(system.nodes):
            part = builder.emit("slice", whole, dim=1, start=at, stop=at + 1)
            found[n] = builder.emit("reshape", part, shape=(TICKS, *shape))
        return found

    def _solved(
        self, system: System, matrix: int, right: dict[int, int], lanes: tuple[int, ...], ahead: bool
    ) -> dict[int, int]:
        """The system solved for right sides [T, shape], lane by lane if the matrix differs between lanes."""
        builder = self.builder
        self.solves += 1
        if ahead:  # the matrix is known before the right side: invert it outside the loop
            count = TICKS * len(system.nodes)
            unit = builder.emit("to_real", builder.emit("one_hot", builder.emit("iota", n=count), n=count))
            inverse = builder.emit("solve_triangular", matrix, unit, lower=True, unit=True)
            stacked = self._stacked(system, right, system.shape)
            solved = builder.emit("einsum", inverse, stacked, spec="ts,sc->tc")
            return self._unstacked(system, solved, system.shape)
        if not lanes:
            solved = builder.emit(
                "solve_triangular", matrix, self._stacked(system, right, system.shape), lower=True, unit=True
            )
            return self._unstacked(system, solved, system.shape)
        axes = [f"lane{self.solves}_{n}" for n in range(len(lanes))]
        builder.axes.extend(axes)
        self.lanes += [Axis(a, self.rules.sizes.of[x]) for a, x in zip(axes, lanes, strict=True)]
        rest = tuple(x for x in system.letters if x not in lanes)
        sizes = tuple(self.rules.sizes.of[x] for x in lanes)
        shape = tuple(s for s, x in zip(system.shape, system.letters, strict=True) if x in rest)
        for axis in axes:
            matrix = builder.emit("spread", matrix, axis=axis)
        moved = {}
        for n, value in right.items():
            own = placed(builder, Operand(value, (AT, *system.letters)), (*lanes, AT, *rest))
            for axis in axes:
                own = builder.emit("spread", own, axis=axis)
            moved[n] = own
        inner = System(system.nodes, rest, shape)
        stacked = self._stacked(inner, moved, shape)
        solved = builder.emit("solve_triangular", matrix, stacked, lower=True, unit=True)
        found = {}
        for n, part in self._unstacked(inner, solved, shape).items():
            value = part
            for axis, size in zip(reversed(axes), reversed(sizes), strict=True):
                value = builder.emit("collect", value, axis=axis, size=size)
            found[n] = placed(builder, Operand(value, (*lanes, AT, *rest)), (AT, *system.letters))
        return found

    def _finish(self, system: System, found: dict[int, int]) -> None:
        assert set(found) == set(system.nodes)
        self.nodes.update(found)


def _summed(letters: Letters, lanes: Letters) -> tuple[int, ...]:
    return tuple(x for x, lane in zip(letters, lanes, strict=True) if x is not None and lane is None)
