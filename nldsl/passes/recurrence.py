"""How the states of one loop depend on their past, from the algebra of the body alone.

Needs: a ``Scan`` of a schedule. Gives: a ``Recurrence``: for each state that changes inside a segment the elementwise
coefficients of all states and the writes (``passes/affine.py``), or the instruction that prevents that.

A *segment* is a run of ticks in which every clock of the loop fires at most at the last one. So an anchor is
constant, a guarded update counts only at the end, and a state that only guarded updates change is constant too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from nldsl.ir.build import Builder
from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Scan
from nldsl.ir.types import Clock
from nldsl.passes.affine import Affine, Term, heavy
from nldsl.passes.affine_parts import PartRules
from nldsl.passes.affine_rules import Abstract, Free, Other, Rules, identity
from nldsl.passes.levels import FREE, Levels, interior, levels, operands
from nldsl.passes.merge_writes import merged
from nldsl.passes.windows import Register, View, registers, sources, views, windowed

PARTS = frozenset("concat slice collect spread axis_sum".split())


@dataclass(frozen=True)
class Refusal:
    """Why a loop stays sequential: the instruction that forced it, in words, and what would lift it. ``kind``: its
    class, nonlinear or an affine one that has no parallel form here."""

    value: int
    why: str
    lift: str = ""
    kind: str = "nonlinear"


@dataclass
class Recurrence:
    """``live``: states that change inside a segment; ``constant``: the others of the loop.

    ``registers``: states that are shift registers, and ``views`` the values that are rows of them.
    ``coefficients[i, j]``: the terms (source i) of state j; ``writes[j]``: the other terms, without
    the full linear maps of states, which are ``maps[j]``. ``abstract`` holds what
    every value of the loop is, a state's update read as ``after``; ``interior`` is the value of ``when`` inside it.
    """

    program: Program
    scan: Scan
    rules: Rules
    live: tuple[str, ...]
    constant: tuple[str, ...]
    clocks: tuple[Clock, ...]
    abstract: dict[int, Abstract]
    registers: dict[str, Register] = field(default_factory=dict)
    views: dict[int, View] = field(default_factory=dict)
    coefficients: dict[tuple[str, str], tuple[Term, ...]] = field(default_factory=dict)
    writes: dict[str, tuple[Term, ...]] = field(default_factory=dict)
    maps: dict[str, tuple[Term, ...]] = field(default_factory=dict)
    level: dict[str, int] = field(default_factory=dict)  # states of one level feed one another

    def instr(self, value: int) -> Instr:
        return self.rules.body.instrs[value]

    def updates(self) -> dict[str, int]:
        return {name: value for name, value in self.program.updates if name in self.scan.states}

    def anchored(self) -> tuple[tuple[str, int], ...]:
        """The anchors of the states of the loop."""
        found = dict.fromkeys(
            (i.attr("state"), i.attr("period"))
            for v in self.scan.values
            if (i := self.program.body[v]).op == "anchor" and i.attr("state") in self.scan.states
        )
        return tuple(found)


def analyse(program: Program, scan: Scan, streams: frozenset[int], merge: bool = True) -> Recurrence | Refusal:
    """The recurrence of a loop in affine form, or why there is none. ``streams`` are values of other phases; ``merge``:
    writes that share a factor become one."""
    found = _analyse(program, scan, streams, merge, parts=False)
    if isinstance(found, Refusal) and program.body[found.value].op in PARTS:
        # linear too, but as maps of whole states: only where nothing else helps
        again = _analyse(program, scan, streams, merge, parts=True)
        return again if isinstance(again, Recurrence) or again.value != found.value else found
    return found


def _analyse(program: Program, scan: Scan, streams: frozenset[int], merge: bool, parts: bool) -> Recurrence | Refusal:
    constant = _constant(program, scan)
    held = _registers(program, scan, constant)
    live = tuple(s for s in scan.states if s not in constant and s not in held)
    updates = {name: value for name, value in program.updates if name in live}
    clocks = end_clocks(program, scan)
    axes, body = list(program.axis_names()), list(program.body)
    entering = sources(program, scan, live, held)
    level = levels(program, scan, (*live, *(n for n in held if entering[n])))
    known = streams | set(scan.values)
    seen = views(program, scan, held)
    lengths = windowed(program, scan, seen)
    given: dict[int, Abstract] = {}
    for value, view in seen.items():
        free = not entering[view.register.state]
        given[value] = Free(value) if free else Other(value, "a window of values that depend on the state")
    sizes = {a.name: a.size for a in program.axes if isinstance(a.size, int)}

    def rules_for(names: frozenset[int]) -> Rules:
        builder = Builder(axes, body)
        return PartRules(builder, known, names, lengths, sizes) if parts else Rules(builder, known, names, lengths)

    first = rules_for(frozenset())
    _interpret(first, program, scan, level, given)
    # a read that one write names is that node everywhere
    rules = rules_for(first.reads())
    inner = _interpret(rules, program, scan, level, given)
    found = Recurrence(program, scan, rules, live, constant, clocks, {}, held, seen, level=level.states)
    for name in live:
        refusal = _transition(found, name, updates[name], inner, level)
        if refusal is not None:
            return refusal
    joined = {i for pair in found.coefficients if pair[0] != pair[1] for i in pair}
    found.writes = {n: w if n in joined or not merge else merged(rules, w) for n, w in found.writes.items()}
    needed = _reachable(program, [updates[n] for n in live if n in updates])
    fixed = given | {v: a for v, a in inner.items() if v in needed}
    affine = {n: v for n, v in updates.items() if not isinstance(inner.get(v), Other)}
    fixed.update({v: rules.source("after", n, program.state(n).type.shape) for n, v in affine.items()})
    fixed.update({v: inner[v] for n, v in updates.items() if program.body[v].op == "state"})
    found.abstract = _interpret(rules, program, scan, level, fixed, outputs=True)
    return found


def _registers(program: Program, scan: Scan, constant: tuple[str, ...]) -> dict[str, Register]:
    """Shift registers, without those that what enters them depends on."""
    found = {n: r for n, r in registers(program, scan).items() if n not in constant}
    while True:
        others = tuple(s for s in scan.states if s not in constant)
        known = levels(program, scan, others).states
        updates = dict(program.updates)
        alone = Counter(known.values())
        kept = {n: r for n, r in found.items() if alone[known[n]] == 1 and updates[n] != r.newest}
        if kept == found:
            return _not_fed_by_themselves(program, found)
        found = kept


def _not_fed_by_themselves(program: Program, found: dict[str, Register]) -> dict[str, Register]:
    kept = {}
    for name, register in found.items():
        reached, stack = set[int](), [register.newest]
        while stack:
            value = stack.pop()
            if value not in reached:
                reached.add(value)
                stack.extend(operands(program.body[value]))
        reads = {i.attr("state") for v in reached if (i := program.body[v]).op == "state"}
        if name not in reads:
            kept[name] = register
    return kept


def _constant(program: Program, scan: Scan) -> tuple[str, ...]:
    """States that only clocks at the end of a segment change."""
    updates = dict(program.updates)
    found = []
    for name in scan.states:
        value = updates.get(name)
        while value is not None and (inner := interior(program.body[value])) is not None:
            value = inner
        if value is None or (program.body[value].op == "state" and program.body[value].attr("state") == name):
            found.append(name)
    return tuple(found)


def end_clocks(program: Program, scan: Scan) -> tuple[Clock, ...]:
    """The clocks that end a segment."""
    found: dict[Clock, None] = {}
    for value in scan.values:
        instr = program.body[value]
        if interior(instr) is not None:
            found[instr.attr("clock")] = None
        elif instr.op == "anchor" and instr.attr("state") in scan.states:
            found[Clock(instr.attr("period"))] = None
    for name in scan.states:
        reset = program.state(name).reset
        if reset.kind == "clock" and reset.clock is not None:
            found[reset.clock] = None
    return tuple(found)


def _interpret(
    rules: Rules, program: Program, scan: Scan, level: Levels, fixed: dict[int, Abstract], outputs: bool = False
) -> dict[int, Abstract]:
    """What each value of the loop is. ``outputs``: what is not in ``fixed`` feeds no state."""
    found: dict[int, Abstract] = {}
    for value in scan.values:
        if value in fixed:
            found[value] = fixed[value]
            continue
        instr = program.body[value]
        if instr.op == "state" and instr.attr("state") in level.states:
            found[value] = rules.source("before", instr.attr("state"), instr.type.shape)
            continue
        args = [found.get(a, Free(a)) for a in instr.args]
        if all(isinstance(a, Free) for a in args):
            found[value] = Free(value)
            continue
        inner = interior(instr)
        if inner is not None:
            found[value] = found.get(inner, Free(inner))
            continue
        product = outputs and instr.op in ("mul", "einsum")
        args = _read_by_streams(instr, args) if product else _earlier(instr, args, level)
        if instr.op == "when":
            found[value] = _start(rules, value, args)
            continue
        found[value] = rules.renamed(value, rules.apply(value, args))
    return found


def _earlier(instr: Instr, args: list[Abstract], level: Levels) -> list[Abstract]:
    """The operands, those as free streams that are known before the states of the others."""
    own = [level.values.get(a, FREE) for a in instr.args]
    top = max((n for n, a in zip(own, args, strict=True) if isinstance(a, Affine)), default=FREE)
    product = instr.op in ("mul", "div", "einsum")
    found: list[Abstract] = []
    for value, arg, at in zip(instr.args, args, own, strict=True):
        known = isinstance(arg, Other) or (product and isinstance(arg, Affine))
        found.append(Free(value) if known and at < top else arg)
    return found


def _read_by_streams(instr: Instr, args: list[Abstract]) -> list[Abstract]:
    """The operands of a product that feeds no state. A state that is contracted with whatever else, such as the second
    layer of a deep read, is read by a stream of the segment: otherwise it would be formed at every tick."""
    sizes = [heavy(a) if isinstance(a, Affine) else 0 for a in args]
    kept = sizes.index(max(sizes)) if any(sizes) else None
    if kept is not None:
        pairs = enumerate(zip(instr.args, args, strict=True))
        return [a if n == kept else Free(v) for n, (v, a) in pairs]
    if sum(not isinstance(a, Free) for a in args) > 1:
        return [Other(v, "a product of two values that depend on the state") for v in instr.args]
    return args


def _start(rules: Rules, value: int, args: list[Abstract]) -> Abstract:
    """``when`` of a clock that fires at the first tick of its period: a choice by the tick's number."""
    for arg in args:
        if isinstance(arg, Other):
            return arg
    body, instr = rules.body, rules.body.instrs[value]
    position = body.emit("clock", scale=1, period=instr.attr("clock").period)
    chosen = body.emit("eq", position, body.const(1))
    return rules.where(value, [Free(chosen), *args], choose=(chosen, *instr.args))


def _transition(found: Recurrence, name: str, update: int, inner: dict[int, Abstract], level: Levels) -> Refusal | None:
    """Split the update of a state into coefficients and writes."""
    value = inner.get(update, Free(update))
    if isinstance(value, Other) and level.values[update] < level.states[name]:
        value = Free(update)
    if isinstance(value, Other):
        return Refusal(value.value, value.why, _lift(found.instr(value.value)))
    affine = found.rules.affine(value)
    rank = len(affine.shape)
    writes, reads = [], []
    for term in affine.terms:
        if term.source is None or term.source.kind == "node":
            writes.append(term)
            continue
        source = str(term.source.key)
        if identity(term, rank) and found.program.state(source).type.shape == affine.shape:
            found.coefficients[source, name] = (*found.coefficients.get((source, name), ()), term)
        elif term.expanded():
            found.maps[name] = (*found.maps.get(name, ()), term)
        else:
            reads.append(term)
    if reads:
        writes += found.rules.named(Affine(affine.shape, tuple(reads)), -1).terms
    found.writes[name] = tuple(writes)
    return None


def _lift(instr: Instr) -> str:
    """What makes a loop affine whose update goes through this instruction."""
    if instr.op in ("mul", "einsum"):
        return "take one of the two at the start of a chunk (`at start of C`), or make it of inputs alone"
    if instr.op == "div":
        return "divide by a value at the start of a chunk (`at start of C`), or after the read instead of in the update"
    return "take what it reads of the state at the start of a chunk (`at start of C`), or from the inputs"


def _reachable(program: Program, roots: list[int]) -> set[int]:
    found: set[int] = set()
    stack = list(roots)
    while stack:
        value = stack.pop()
        if value in found:
            continue
        found.add(value)
        stack.extend(operands(program.body[value]))
    return found
