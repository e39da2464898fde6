"""Reads of the states of a segment once the writes are known, and the states at its end.

read(t) = f(t) . P(t, start) . Z(start)  +  sum over writes w and ticks s:  P(t, s) (f(t) . k_w(s)) u_w(s)
"""

from __future__ import annotations

from nldsl.ir.chunk import TICKS
from nldsl.passes.affine import Affine, Term, refreshed, substitute
from nldsl.passes.chunk_decay import Decay
from nldsl.passes.chunk_decayed import DECAYED, behind_decay
from nldsl.passes.chunk_matrix import MatrixScan
from nldsl.passes.chunk_stack import stacked, tiled
from nldsl.passes.chunk_values import AT, FROM, Values
from nldsl.passes.contract import Letter, Operand, added, placed


class Reads:
    """Products of one read and one write, with the decay between them."""

    def __init__(self, values: Values, decays: dict[str, Decay]) -> None:
        self.values = values
        self.builder = values.builder
        self.decays = decays
        self.writes = values.recurrence.writes
        self.sizes = values.recurrence.rules.sizes
        self.prefixes: dict[tuple[str, bool], int] = {}
        self.scans: dict[
            str, MatrixScan
        ] = {}  # gives the states of all ticks where products of reads and writes cannot

    def sources(self, term: Term) -> list[str]:
        """The states whose writes a read of one state sees."""
        assert term.source is not None
        state = str(term.source.key)
        return [j for j in self.decays[state].members if self.decays[state].reaches(state, j)]

    def placed(self, term: Term) -> Term:
        """A read before the tick as one behind the decay, where it is one (``chunk_decayed.py``)."""
        if term.source is None or term.source.kind != "before" or self._by_states(term):
            return term
        state = str(term.source.key)
        if not self.decays[state].single:
            return term
        return behind_decay(term, self.values.recurrence.coefficients.get((state, state), ()))

    def initial(self, term: Term) -> list[tuple[str, list[Operand]]]:
        """For each state that the read sees: its factors and the decay since the beginning, without the state."""
        assert term.source is not None
        state, since = str(term.source.key), term.source.kind != "before"
        decay = self.decays[state]
        found = []
        for j in self.sources(term):
            operands = [self.values.factor(f) for f in term.factors]
            start = decay.start(state, j, since)
            if start is not None:
                operands.append(Operand(start, decay.letters(term.letters, AT)))
            found.append((j, operands))
        return found

    def state(self, name: str, letters: tuple[int | None, ...]) -> Operand:
        """A state at the beginning of the segment."""
        return Operand(self.state_value(name), letters)

    def state_value(self, name: str) -> int:
        type = self.values.program.state(name).type
        return self.builder.leaf("state", type, state=name)

    def matched(self, read: Term, write: Term) -> Term:
        """The write with the letters of the state dims that the read uses."""
        write = refreshed(write, self.sizes)
        pairs = zip(write.out, read.letters, strict=True)
        return substitute(write, {x: y for x, y in pairs if x is not None and y is not None})

    def coupling(self, read: Term, j: str, write: Term, below: bool = False) -> tuple[list[Operand], float]:
        """Read at ``AT``, decay, and the free factors of the matched write into state j at ``FROM``; and a scale.

        ``below``: only entries of earlier ticks are looked at, others need not be zero."""
        assert read.source is not None
        state, kind = str(read.source.key), read.source.kind
        decay = self.decays[state]
        reading = [self.values.factor(f, AT) for f in read.factors]
        writing = [self.values.factor(f, FROM) for f in write.factors]
        scale = read.scale * write.scale
        for letter, place in zip(read.letters, write.out, strict=True):
            seen = {x for o in (*reading, *writing) for x in o.letters} | set(write.letters)
            if letter is not None and place is None and letter not in read.out and letter not in seen:
                size = self.sizes.of[letter]
                assert isinstance(size, int)
                scale *= size  # the write is constant along a dim that the read sums
        gram = self._gram(read, write, decay, reading, writing, below)
        if gram is not None:
            return gram, scale
        table = Operand(self._between(decay, state, j, kind, below), decay.letters(read.letters, AT, FROM))
        return [*reading, table, *writing], scale

    def _between(self, decay: Decay, state: str, j: str, kind: str, below: bool = False) -> int:
        """The decay from the tick of a write to that of a read."""
        table = decay.between(state, j, kind != "before")
        return decay.strict(table) if kind == DECAYED and not below else table

    def _gram(
        self, read: Term, write: Term, decay: Decay, reading: list[Operand], writing: list[Operand], below: bool
    ) -> list[Operand] | None:
        """``decay_gram`` where the decay differs only along dims that the read sums and the unknown does not have."""
        assert read.source is not None
        along = {read.letters[d] for d in decay.dims}
        summed = tuple(x for x in read.letters if x is not None and x not in read.out and x not in write.letters)
        if not along or not decay.single or not along <= set(summed):
            return None
        builder, values, sizes = self.builder, self.values, tuple(self.sizes.of[x] for x in summed)
        if any(not isinstance(s, int) for s in sizes):
            return None
        for operand in (*reading, *writing):
            dims = set(operand.letters) - {AT, FROM, None}
            if dims & set(summed) and not dims <= set(summed):
                return None

        def key(operands: list[Operand], tick: str) -> tuple[int, list[Operand]]:
            own = [o for o in operands if set(o.letters) <= {*summed, tick, None}]
            rest = [o for o in operands if not set(o.letters) <= {*summed, tick, None}]
            product = placed(builder, values.product(own, (tick, *summed)), (tick, *summed))
            flat = values.stretched(product, (TICKS, *sizes))
            return self._flat(flat, len(summed)), rest

        q, left = key(reading, AT)
        k, right = key(writing, FROM)
        steps = Operand(decay.steps, decay.letters(read.letters, AT))
        a = self._flat(values.stretched(placed(builder, steps, (AT, *summed)), (TICKS, *sizes)), len(summed))
        if read.source.kind != "before":
            gram = builder.emit("decay_gram", q, a, k)
            gram = decay.strict(gram) if read.source.kind == DECAYED and not below else gram
        else:  # what t reads is what t - 1 held: shift the queries back, the result forward
            ahead = builder.emit("pad", values.rows(q, 1, TICKS), dim=0, before=0, after=1)
            gram = values.delayed(builder.emit("decay_gram", ahead, a, k))
        return [*left, Operand(gram, (AT, FROM)), *right]

    def _flat(self, value: int, dims: int) -> int:
        if dims == 1:
            return value
        total = 1
        for size in self.builder.type(value).shape[1:]:
            assert isinstance(size, int)
            total *= size
        return self.builder.emit("reshape", value, shape=(TICKS, total))

    def from_writes(self, read: Term, nodes: dict[int, int], skip: frozenset[int] = frozenset()) -> list[Operand]:
        """The parts of a read from writes whose nodes are known ([T, dims] each); not those of the nodes ``skip``."""
        out: tuple[Letter, ...] = (AT, *(x for x in read.out if x is not None))
        found = []
        for j in self.sources(read):
            writes = [w for w in self.writes[j] if w.source is None or w.source.key not in skip]
            joined = self._from_stack(read, j, [self.matched(read, w) for w in writes], nodes)
            if joined is not None:
                found.append(joined)
                continue
            for write in writes:
                matched = self.matched(read, write)
                operands, scale = self.coupling(read, j, matched)
                if matched.source is not None:
                    assert isinstance(matched.source.key, int)
                    operands.append(Operand(nodes[matched.source.key], (FROM, *matched.letters)))
                found.append(self.values.product(operands, out, scale))
        return found

    def _from_stack(self, read: Term, j: str, writes: list[Term], nodes: dict[int, int]) -> Operand | None:
        """The same for several writes into one state at once, where the decay is a number."""
        assert read.source is not None
        state = str(read.source.key)
        lanes = tuple(x for x in read.letters if x is not None and x in read.out)
        if self.decays[state].dims or set(lanes) != {x for x in read.out if x is not None}:
            return None
        stack = stacked(self.values, writes, nodes, lanes, self.sizes.of)
        if stack is None:
            return None
        table = tiled(self.values, self._between(self.decays[state], state, j, read.source.kind), stack.count, 1)
        reading = [self.values.factor(f, AT) for f in read.factors]
        operands = [*reading, Operand(table, (AT, FROM)), stack.keys, stack.lanes]
        return self.values.product(operands, (AT, *(x for x in read.out if x is not None)), read.scale)

    def from_start(self, read: Term) -> list[Operand]:
        """The parts of a read from the states at the beginning of the segment."""
        out: tuple[Letter, ...] = (AT, *(x for x in read.out if x is not None))
        return [
            self.values.product([*operands, self.state(j, read.letters)], out, read.scale)
            for j, operands in self.initial(read)
        ]

    def term(self, term: Term, nodes: dict[int, int]) -> list[Operand]:
        """A term of a known affine value, in parts that are to be added."""
        term = self.placed(term)
        if term.source is not None and term.source.kind != "node":
            if self._by_states(term):
                return [self._read_of_states(term, nodes)]
            return [*self.from_start(term), *self.from_writes(term, nodes)]
        operands = [self.values.factor(f) for f in term.factors]
        if term.source is not None:
            assert isinstance(term.source.key, int)
            operands.append(Operand(nodes[term.source.key], (AT, *term.letters)))
        out: tuple[Letter, ...] = (AT, *(x for x in term.out if x is not None))
        return [self.values.product(operands, out, term.scale)]

    def sum(self, affine: Affine, parts: list[tuple[Term, Operand]]) -> int:
        """Parts of terms of ``affine`` added up: [T, shape]."""
        total: int | None = None
        for term, part in parts:
            total = self._add(total, part, (AT, *term.out))
        if total is None:
            total = self.builder.const(0.0)
        return self.values.stretched(total, (TICKS, *affine.shape))

    def _by_states(self, term: Term) -> bool:
        """Whether reading the state of every tick costs less than products of ticks with ticks: where a decay or a
        write differs along a dim that the read sums and along one that it keeps, and where the read sums nothing and
        each entry has a decay of its own."""
        assert term.source is not None
        if term.source.key in self.scans:
            return True
        decay = self.decays[str(term.source.key)]
        if decay.forgets:
            return True
        groups = [{term.letters[d] for d in decay.dims}]
        for write in self.writes[str(term.source.key)]:
            names = dict(zip(write.out, term.letters, strict=True))
            groups += [{names.get(x) for x in f.letters} for f in write.factors]
        kept = {x for x in term.out if x is not None}
        summed = {x for x in term.letters if x is not None} - kept
        if decay.single and decay.dims and not summed:
            return True
        return decay.single and any(g & kept and g & summed for g in groups)

    def _read_of_states(self, term: Term, nodes: dict[int, int]) -> Operand:
        assert term.source is not None
        states = self.states(str(term.source.key), term.source.kind == "after", nodes)
        operands = [self.values.factor(f) for f in term.factors]
        out: tuple[Letter, ...] = (AT, *(x for x in term.out if x is not None))
        return self.values.product([*operands, Operand(states, (AT, *term.letters))], out, term.scale)

    def states(self, name: str, after: bool, nodes: dict[int, int]) -> int:
        """A state without group at all ticks: [T, shape]."""
        if (name, after) in self.prefixes:
            return self.prefixes[name, after]
        if name in self.scans:
            self.prefixes[name, after] = self.scans[name].state(name, after)
            return self.prefixes[name, after]
        builder, values, decay = self.builder, self.values, self.decays[name]
        shape = values.program.state(name).type.shape
        written = self.sum(Affine(shape, ()), [(t, p) for t in self.writes[name] for p in self.term(t, nodes)])
        letters = tuple(range(-1, -1 - len(shape), -1))
        if decay.forgets:
            self.prefixes[name, after] = written if after else self._moved(name, written)
            return self.prefixes[name, after]
        if decay.trivial:
            found = builder.emit("cumsum", written, dim=0, reverse=False)
        else:
            steps = placed(builder, Operand(decay.steps, decay.letters(letters, AT)), (AT, *letters))
            found = builder.emit("linear_scan", steps, written)
        if not after:
            found = values.delayed(found)
        initial = [self.state(name, letters)]
        start = decay.start(name, name, after)
        if start is not None:
            initial.append(Operand(start, decay.letters(letters, AT)))
        began = placed(builder, values.product(initial, (AT, *letters)), (AT, *letters))
        self.prefixes[name, after] = builder.emit("add", found, began)
        return self.prefixes[name, after]

    def _moved(self, name: str, written: int) -> int:
        """[T, shape] one tick later, from the state at the beginning."""
        first = self.state_value(name)
        first = self.builder.emit("reshape", first, shape=(1, *self.builder.type(first).shape))
        return self.builder.emit("concat", first, self.values.rows(written, 0, TICKS - 1), dim=0)

    def value(self, affine: Affine, nodes: dict[int, int]) -> int:
        """An affine value at all ticks: [T, shape]."""
        return self.sum(affine, [(t, part) for t in affine.terms for part in self.term(t, nodes)])

    def end(self, name: str, nodes: dict[int, int], after: bool) -> int:
        """The state after the last tick of the segment, or before it."""
        decay, builder = self.decays[name], self.builder
        shape = self.values.program.state(name).type.shape
        letters = self.sizes.letters(shape)
        out = tuple(x for x in letters if x is not None)
        total: int | None = None
        whole = Term(letters, letters=letters)
        for j in decay.members:
            if not decay.reaches(name, j):
                continue
            operands = [self.state(j, letters)]
            factor = decay.whole(name, j, after)
            if factor is not None:
                operands.append(Operand(factor, decay.letters(letters)))
            total = self._add(total, self.values.product(operands, out), letters)
            weight = decay.end(name, j, after)
            matches = [self.matched(whole, w) for w in self.writes[j]]
            stack = None if decay.dims else stacked(self.values, matches, nodes, self._lanes(matches), self.sizes.of)
            if stack is not None:
                operands = [stack.keys, stack.lanes]
                if weight is not None:
                    operands.append(Operand(tiled(self.values, weight, stack.count, 0), (FROM,)))
                total = self._add(total, self.values.product(operands, out), letters)
                continue
            for matched in matches:
                operands = [self.values.factor(f, FROM) for f in matched.factors]
                scale = matched.scale
                if matched.source is not None:
                    assert isinstance(matched.source.key, int)
                    operands.append(Operand(nodes[matched.source.key], (FROM, *matched.letters)))
                if weight is None and not any(FROM in o.letters for o in operands):
                    weight = builder.emit("broadcast", builder.const(1.0), shape=(TICKS,))
                if weight is not None:
                    operands.append(Operand(weight, decay.letters(letters, FROM)))
                total = self._add(total, self.values.product(operands, out, scale), letters)
        assert total is not None
        return self.values.stretched(total, shape)

    @staticmethod
    def _lanes(writes: list[Term]) -> tuple[int, ...]:
        """The dims of the unknown of a state, or its first dim."""
        for write in writes:
            if write.source is not None:
                return tuple(x for x in write.letters if x is not None)
        first = [x for w in writes for x in w.out if x is not None]
        return tuple(first[:1])

    def _add(self, total: int | None, part: Operand, letters: tuple[Letter | None, ...]) -> int:
        value = placed(self.builder, part, letters)
        return value if total is None else added(self.builder, total, value)
