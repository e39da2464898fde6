"""What the way back of a loop over segments reads instead of computing it again.

    BackwardLoop(body: forward values again, cotangents)  -->  BackwardLoop(body: kept(value) for some of them)

A value of the forward body that is kept costs writing and reading its entries; one that is not costs what leads to it
and to nothing else. What is kept is the cheapest cut between the leaves of the body and what needs a cotangent: so a
product is kept and not the cheap pointwise work on it, and nothing that something else still needs to have computed.

Needs: a derived backward pass. Guarantees: the same values; every ``kept`` is a value of the loop's body, computed in
every segment in which it is read. None where nothing is worth it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from nldsl.dims import Dim, substitute
from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import TICKS, Kept
from nldsl.ir.demand import reachable
from nldsl.ir.ops import split_spec
from nldsl.ir.program import Instr, Program
from nldsl.ir.triangular import Triangles, both, needs, share, terms, zeros
from nldsl.ir.types import Clock
from nldsl.passes.cost_schedule import LEAVES, VIEWS, Sizes, entries_of, operations_of
from nldsl.passes.cost_segment import ENTRY, START
from nldsl.passes.min_cut import MinCut

KEPT = 120.0  # operations of a contraction in the time that one entry takes to be written and read again


def keeping(loop: BackwardLoop, program: Program) -> BackwardLoop | None:
    """The way back that reads what is dear to compute again, whose ``loop`` keeps it, or None."""
    lanes = {a.name: a.size if a.size is None else _long(a.size, loop) for a in loop.loop.lanes}
    sizes = Sizes(program, lanes, loop.loop.size)
    chosen = _Choice(loop, sizes).kept()
    if not chosen:
        return None
    found = _with_kept(loop, chosen)
    inside = {value: value for value in chosen.values()}
    return replace(found, loop=replace(loop.loop, kept=kept_for(found, inside)))


def _long(size: Dim, loop: BackwardLoop) -> Dim:
    """A size in a segment of full length."""
    return substitute(size, {str(TICKS): loop.loop.size})


def kept_for(loop: BackwardLoop, inside: Mapping[int, int]) -> tuple[Kept, ...]:
    """What the way back reads. ``inside``: where a body has the values that it reads."""
    roots = _roots(loop)
    need = needs(loop.body, roots, zeros(loop.body))
    leaves = {i.attr("value"): v for v, i in enumerate(loop.body) if i.op == "kept" and v in need}
    return tuple(
        Kept(value, inside[value], loop.body[v].type, tuple(sorted(need[v].items())))
        for value, v in sorted(leaves.items())
    )


def _roots(loop: BackwardLoop) -> list[int]:
    return [v for _, v in (*loop.carry, *loop.outputs, *loop.sums)]


def _with_kept(loop: BackwardLoop, kept: dict[int, int]) -> BackwardLoop:
    """The loop with leaves for ``kept`` values (here: value of the forward body), and without what led to them."""
    here, there = zeros(loop.body), zeros(loop.loop.body)
    body = [_leaf(i, kept[v], both([here[v], there[kept[v]]])) if v in kept else i for v, i in enumerate(loop.body)]
    roots = _roots(loop)
    number: dict[int, int] = {}
    found: list[Instr] = []
    for v in sorted(reachable(body, roots)):
        number[v] = len(found)
        found.append(replace(body[v], args=tuple(number[a] for a in body[v].args)))
    return replace(
        loop,
        body=tuple(found),
        carry=tuple((key, number[v]) for key, v in loop.carry),
        outputs=tuple((value, number[v]) for value, v in loop.outputs),
        sums=tuple((leaf, number[v]) for leaf, v in loop.sums),
        forward=tuple((number[v], there) for v, there in loop.forward if v in number),
    )


def _leaf(instr: Instr, value: int, zero: Triangles) -> Instr:
    attrs = (("value", value), ("zero", tuple(sorted(zero.items()))))
    return Instr("kept", (), attrs, instr.type, None, instr.name, instr.span)


class _Choice:
    """A graph with two nodes for each value: whether it is needed, and whether it is computed."""

    def __init__(self, loop: BackwardLoop, sizes: Sizes) -> None:
        self.loop, self.sizes = loop, sizes
        self.growing = {a.name for a in loop.loop.lanes if not isinstance(a.size, int)}  # with the segment
        self.body = loop.body
        self.roots = _roots(loop)
        self.needed = reachable(self.body, self.roots)
        self.zero = zeros(self.body)
        self.need = needs(self.body, self.roots, self.zero)
        self.users: dict[int, list[int]] = {}
        for v in sorted(self.needed):
            for a in self.body[v].args:
                self.users.setdefault(a, []).append(v)

    def kept(self) -> dict[int, int]:
        """Values of the body, and which values of the forward body they are."""
        own = self._without_cotangents()
        there = {here: value for here, value in self.loop.forward if here in own}
        prices = {v: price for v in sorted(own) if v in there and (price := self._price(v, there[v])) is not None}
        if not prices:
            return {}
        cut = MinCut()
        computed, wanted = ({v: cut.node() for v in sorted(own)} for _ in range(2))
        for v in sorted(own):
            cost = self._cost(v)
            if cost is None:
                return {}
            cut.edge(computed[v], cut.SINK, cost)
            cut.edge(wanted[v], computed[v], prices.get(v, inf))
            for a in self.body[v].args:
                cut.edge(computed[v], wanted[a], inf)
            if v in self.roots or any(u not in own for u in self.users.get(v, ())):
                cut.edge(cut.SOURCE, wanted[v], inf)
        side = cut.source_side()
        return {v: there[v] for v in prices if side[wanted[v]] and not side[computed[v]]}

    def _without_cotangents(self) -> set[int]:
        found: set[int] = set()
        for v in sorted(self.needed):
            instr = self.body[v]
            if instr.op not in ("cotangent", "cotangent_of") and all(a in found for a in instr.args):
                found.add(v)
        return found

    def _often(self, guard: Clock | None) -> float:
        return 1.0 if guard is None else min(1.0, self.sizes.ticks / guard.period)

    def _cost(self, value: int) -> float | None:
        """Of computing it again; None where a size is known only by its name."""
        instr = self.body[value]
        if instr.op in LEAVES or instr.op in VIEWS:
            return 0.0
        operations, moved = operations_of(self.body, instr, self.sizes), entries_of(self.body, instr, self.sizes)
        if not isinstance(operations, int) or not isinstance(moved, int):
            return None
        part = share(terms(instr, self.zero, self.need[value])) if instr.op == "einsum" else 1.0
        return self._often(instr.guard) * (operations * part + moved * ENTRY + START)

    def _price(self, here: int, there: int) -> float | None:
        """Of keeping it; None where that cannot be."""
        instr, first = self.body[here], self.loop.loop.body[there]
        if instr.type != first.type or instr.type.kind != "real" or not instr.args or instr.op in VIEWS:
            return None
        if (instr.op == "einsum" and len(instr.args) == 1 and _moves(instr)) or self.growing & {*instr.type.axes}:
            return None
        if first.guard is not None and not self._read_only_at(here, first.guard):
            return None
        entries = self.sizes.entries(instr.type)
        return self._often(first.guard) * (entries * KEPT + START) if isinstance(entries, int) else None

    def _read_only_at(self, value: int, clock: Clock) -> bool:
        """Whether nothing reads the value in a segment at whose end the clock does not fire."""

        def fits(user: Instr) -> bool:
            chosen = user.op == "when" and user.attr("clock") == clock and user.args[1] != value
            return chosen or user.guard == clock

        return value not in self.roots and all(fits(self.body[u]) for u in self.users.get(value, ()))


def _moves(instr: Instr) -> bool:
    """Whether an einsum of one operand sums nothing."""
    inputs, output = split_spec(instr.attr("spec"))
    return {*inputs[0]} <= {*output}
