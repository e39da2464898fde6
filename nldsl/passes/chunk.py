"""A sequential loop as a loop over segments.

    Scan(states, values, exports)  -->  ChunkLoop(body over the axis time, carry, outputs)

Needs: a scheduled program. Guarantees: the same streams and states up to rounding, whatever the chunk size, the tails
and the splits into calls. A loop whose recurrence is not affine, or has no factored form, is left as it is.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.ops import LEAVES
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Scan
from nldsl.ir.types import TIME, Clock
from nldsl.passes.affine import Affine, Term, heavy
from nldsl.passes.affine_rules import Abstract, Free, Node, Other
from nldsl.passes.chunk_decay import groups
from nldsl.passes.chunk_decay_scans import decay_of
from nldsl.passes.chunk_matrix import MatrixScan, NotTwoSidedError, TwoSidedScan
from nldsl.passes.chunk_read import Reads
from nldsl.passes.chunk_solve import NotTriangularError, Solver
from nldsl.passes.chunk_values import Values
from nldsl.passes.common_factors import factored
from nldsl.passes.contract import Operand
from nldsl.passes.flatten_affine import TooManyTermsError
from nldsl.passes.levels import interior
from nldsl.passes.recurrence import Recurrence, Refusal, analyse
from nldsl.passes.recurrence_class import classify
from nldsl.passes.simplify import simplify_body
from nldsl.passes.simplify_scans import SCAN_RULES


def chunk_scan(
    program: Program, scan: Scan, size: int, streams: frozenset[int], merge: bool = True, serial: bool = False
) -> ChunkLoop | Refusal:
    """The loop over segments of at most ``size`` ticks, or why there is none. ``streams``: what other phases give;
    ``merge``: writes that share a factor become one; ``serial``: for segments that are done one after the other, each
    in one piece."""
    if any(program.state(s).shared for s in scan.states):
        why = "a state that the whole batch shares: its update reads every sequence at each tick"
        return Refusal(scan.values[0], why, "give each sequence a state of its own (no `shared`)", "shared")
    recurrence = analyse(program, scan, streams, merge)
    if isinstance(recurrence, Refusal):
        return recurrence
    refusal = _full_map(recurrence)
    for every in (False, True):
        body = _Body(recurrence, serial)
        if not body.scan(every):
            assert refusal is not None
            return _small(refusal)
        try:
            return _loop(recurrence, body, size)
        except NotTriangularError as problem:
            refusal = Refusal(problem.value, problem.why, "read the state from one side only", "affine")
    assert refusal is not None
    return _small(refusal)


def _small(refusal: Refusal) -> Refusal:
    return replace(refusal, lift=f"{refusal.lift}, or mix fewer numbers of the state with one another")


def _groups(recurrence: Recurrence) -> list[tuple[str, ...]]:
    """The live states that feed one another, those known first in front."""
    found: dict[int, list[str]] = {}
    for state in recurrence.live:
        found.setdefault(recurrence.level[state], []).append(state)
    return [tuple(found[n]) for n in sorted(found)]


def _full_map(recurrence: Recurrence) -> Refusal | None:
    """The first full linear map of a state, which no decay with low rank is."""
    for name, terms in recurrence.maps.items():
        source = terms[0].source
        assert source is not None
        update = recurrence.updates()[name]
        why = f"{name} is updated with a full linear map of {source.key}"
        return Refusal(update, why, "use a decay, or a low-rank product", "general affine")
    return None


def _loop(recurrence: Recurrence, body: _Body, size: int) -> ChunkLoop:
    scan = recurrence.scan
    carry = tuple((name, body.carry(name)) for name in scan.states)
    outputs = tuple((v, body.output(v)) for v in scan.exports)
    loop = ChunkLoop(
        scan,
        tuple(body.values.builder.instrs),
        carry,
        outputs,
        recurrence.clocks,
        recurrence.anchored(),
        size,
        (*body.solver.lanes, *body.values.windows.lanes),
        str(classify(recurrence, tuple(body.reads.scans))),
        mixed=tuple(body.reads.scans),
        serial=body.serial,
    )
    return without_unused(_simplified(loop, recurrence.program, body.values.builder.axes))


def _simplified(loop: ChunkLoop, program: Program, axes: list[str]) -> ChunkLoop:
    """The loop with a simplified body, and products of a common factor done once."""
    sizes = {a.name: a.size for a in (*program.axes, *loop.lanes) if a.size is not None} | {TIME: TICKS}
    roots = [v for _, v in (*loop.carry, *loop.outputs)]
    body, simple = simplify_body(loop.body, roots, axes, sizes, more=SCAN_RULES if loop.serial else ())
    body, moved = factored(body, [simple[r] for r in roots], axes)
    carry = tuple((name, moved[simple[v]]) for name, v in loop.carry)
    return replace(loop, body=body, carry=carry, outputs=tuple((g, moved[simple[v]]) for g, v in loop.outputs))


def without_unused(loop: ChunkLoop) -> ChunkLoop:
    """The loop without the instructions and axes that nothing needs."""
    needed = sorted(reachable(loop.body, [v for _, v in (*loop.carry, *loop.outputs)]))
    place = {v: n for n, v in enumerate(needed)}
    body = tuple(replace(loop.body[v], args=tuple(place[a] for a in loop.body[v].args)) for v in needed)
    used = {a for i in body for a in i.type.axes} | {i.attr("axis") for i in body if i.op in ("spread", "collect")}
    return replace(
        loop,
        body=body,
        carry=tuple((name, place[v]) for name, v in loop.carry),
        outputs=tuple((given, place[v]) for given, v in loop.outputs),
        lanes=tuple(a for a in loop.lanes if a.name in used),
    )


class _Body:
    """Makes the values of a segment that leave it."""

    def __init__(self, recurrence: Recurrence, serial: bool = False) -> None:
        self.recurrence = recurrence
        self.serial = serial
        self.program = recurrence.program
        self.values = Values(recurrence, self.stream)
        self.builder = self.values.builder
        decays = {s: d for g in groups(recurrence) for d in [decay_of(self.values, g, serial)] for s in g}
        self.reads = Reads(self.values, decays)
        self.solver = Solver(self.values, self.reads, ahead=not serial)
        self.made: dict[int, int] = {}
        self.last: dict[tuple[int, Clock | None], int] = {}
        self.ends: dict[tuple[str, bool], int] = {}
        self.guarded: dict[int, tuple[Clock, ...]] = {}

    def scan(self, every: bool) -> bool:
        """Make the states with full maps known by scans, or ``every`` state that is small enough.

        False if one with maps is not small enough."""
        for states in _groups(self.recurrence):
            needed = any(self.recurrence.maps.get(s) for s in states)
            if not needed and not every:
                continue
            scan = self._scan_of(states)
            if scan is not None:
                self.reads.scans.update(dict.fromkeys(states, scan))
            elif needed:
                return False
        if self.reads.scans:
            self._fed_by_scans()
        return True

    def _scan_of(self, states: tuple[str, ...]) -> MatrixScan | None:
        """The cheapest scan that makes these states."""
        for kind in (TwoSidedScan, MatrixScan):
            try:
                scan = kind(self.values, states, self._known)
            except (NotTwoSidedError, TooManyTermsError):
                continue
            if scan.fits:
                return scan
        return None

    def _fed_by_scans(self) -> None:
        """What a state gets of a scanned one is a stream that is written into it, not part of its decay."""
        known, rules = self.recurrence, self.recurrence.rules
        coefficients, writes = dict(known.coefficients), dict(known.writes)
        for (source, target), terms in known.coefficients.items():
            if source in self.reads.scans and target not in self.reads.scans:
                del coefficients[source, target]
                shape = self.program.state(target).type.shape
                rules.nodes.append(Node(Affine(shape, terms), -1))
                (node,) = rules.source("node", len(rules.nodes) - 1, shape).terms
                writes[target] = (*writes[target], node)
        self.recurrence = replace(known, coefficients=coefficients, writes=writes)
        self.values.recurrence = self.recurrence
        self.reads.writes = writes
        found = groups(self.recurrence)
        self.reads.decays = {s: d for g in found for d in [decay_of(self.values, g, self.serial)] for s in g}

    def _known(self, term: Term) -> list[Operand]:
        self.solver.need(Affine((), (term,)))
        return self.reads.term(term, self.solver.nodes)

    # ---- streams

    def output(self, value: int) -> int:
        """A value of the per-token body at the ticks of the segment."""
        found = self.stream(value)
        for clock in self.clocks(value):
            found = self._last_replaced(found, value, clock)
        return found

    def _last_replaced(self, stream: int, value: int, clock: Clock) -> int:
        """The stream with what the clock changes at the last tick."""
        builder, v = self.builder, self.values
        if TIME not in builder.type(stream).axes:
            whole = builder.emit("broadcast", stream, shape=(TICKS, *builder.type(stream).shape))
        else:
            whole = v.collected(stream)
        fired = self.at_end(value, clock)
        last = builder.emit("when", fired, v.row(whole, TICKS - 1), clock=clock)
        last = builder.emit("reshape", last, shape=(1, *builder.type(last).shape))
        return v.spread(builder.emit("concat", v.rows(whole, 0, TICKS - 1), last, dim=0))

    def stream(self, value: int) -> int:
        """The same, guarded updates left out."""
        if value not in self.made:
            if value in self.recurrence.views:
                self.made[value] = self.values.view(value)
            else:
                self.made[value] = self._stream(value, self.abstract(value))
        return self.made[value]

    def abstract(self, value: int) -> Abstract:
        return self.recurrence.abstract.get(value, Free(value))

    def _stream(self, value: int, known: Abstract) -> int:
        if isinstance(known, Free):
            return self.values.per_tick(known.value)
        instr = self.program.body[value]
        inner = interior(instr)
        if inner is not None:
            return self.stream(inner)
        if isinstance(known, Other) or (instr.args and not self._heavy(instr.args) and instr.op != "when"):
            args = [self.stream(a) for a in instr.args]
            if instr.op == "when":
                return self.values.choose(instr, args)
            return self.values.windows.emit(instr.op, args, dict(instr.attrs), instr.name, instr.span)
        self.solver.need(known)
        return self.values.spread(self.reads.value(known, self.solver.nodes))

    def _heavy(self, args: tuple[int, ...]) -> bool:
        """Whether an operand is a whole state, or a product that adds dims to a read."""
        return any(isinstance(known, Affine) and heavy(known) for known in map(self.abstract, args))

    # ---- the end of the segment

    def carry(self, name: str) -> int:
        update = self.recurrence.updates().get(name)
        found = self.end(name)
        if update is None:
            return found
        for clock in self.clocks(update):
            found = self.builder.emit("when", self.at_end(update, clock), found, clock=clock)
        return found

    def end(self, name: str, after: bool = True) -> int:
        """A state after the last tick (or before it), guarded updates left out."""
        if (name, after) not in self.ends:
            self.ends[name, after] = self._end(name, after)
        return self.ends[name, after]

    def _end(self, name: str, after: bool) -> int:
        if name in self.recurrence.constant:
            return self.reads.state_value(name)
        if name in self.recurrence.registers:
            register = self.recurrence.registers[name]
            seen = self.values.seen(register)
            start = TICKS if after else TICKS - 1
            return self.builder.emit("slice", seen, dim=0, start=start, stop=start + register.size)
        if name in self.reads.scans:
            return self.reads.scans[name].end(name, after)
        for j in self.reads.decays[name].members:
            for write in self.recurrence.writes[j]:
                self.solver.need(Affine((), (write,)))
        return self.reads.end(name, self.solver.nodes, after)

    def clocks(self, value: int) -> tuple[Clock, ...]:
        """The clocks whose guarded updates a value of the same tick sees."""
        if value not in self.guarded:
            instr = self.program.body[value]
            found: dict[Clock, None] = {}
            if value in self.values.inside:
                for arg in instr.args:
                    found.update(dict.fromkeys(self.clocks(arg)))
                if interior(instr) is not None and self.values.touched(value):
                    found[instr.attr("clock")] = None
            self.guarded[value] = tuple(found)
        return self.guarded[value]

    def at_end(self, value: int, clock: Clock | None) -> int:
        """A value of the per-token body at the last tick, where it is needed only if ``clock`` fires there."""
        key = value, clock
        if key not in self.last:
            outer, self.builder.guard = self.builder.guard, clock
            self.last[key] = self._at_end(value, clock, self.program.body[value])
            self.builder.guard = outer
        return self.last[key]

    def _at_end(self, value: int, clock: Clock | None, instr: Instr) -> int:
        for name, update in self.recurrence.updates().items():
            own = value == self._interior_value(update) and name not in self.recurrence.constant
            if own and instr.op != "state" and not self.clocks(value):
                self.builder.guard = None
                return self.end(name)
        if instr.op == "state" and value in self.values.inside:
            self.builder.guard = None
            return self.end(instr.attr("state"), after=False)
        if (
            value not in self.values.inside
            or instr.op in LEAVES
            or (instr.op == "when" and not self.values.touched(value))
        ):
            self.builder.guard = None
            return self._row(self.values.per_tick(value))
        if instr.op == "when" and instr.attr("clock") == clock:
            return self.at_end(instr.args[0], clock)
        args = [self.at_end(a, clock) for a in instr.args]
        self.builder.guard = clock
        return self.builder.emit(instr.op, *args, name=instr.name, span=instr.span, **dict(instr.attrs))

    def _interior_value(self, value: int) -> int:
        while (inner := interior(self.program.body[value])) is not None:
            value = inner
        return value

    def _row(self, value: int) -> int:
        if TIME not in self.builder.type(value).axes:
            return value
        return self.values.row(self.values.collected(value), TICKS - 1)
