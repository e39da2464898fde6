"""Simplification: the program as a person would have written it.

Needs: a verified program. Guarantees: the same meaning up to rounding, except that ``0 * x`` is 0 also where x is not
finite; no instruction that nothing needs; no rule of ``RULES`` applies any more, or ``rounds`` were done. Values may
have fewer axes than before (a derivative that turned out to be a constant). While derivatives are still operations,
only what nothing needs is removed: a rule that replaces ``x`` by an equal value would change what ``grad(loss, x)`` is.

    body --> body with every instruction made anew, each replaced by the first rule that matches it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.ir.program import Instr, Program
from nldsl.passes.base import rebuild, with_bodies
from nldsl.passes.simplify_diagonal import DIAGONAL_RULES
from nldsl.passes.simplify_match import MAX_DEPTH, Match, Rule
from nldsl.passes.simplify_parts import PART_RULES
from nldsl.passes.simplify_pointwise import POINTWISE_RULES
from nldsl.passes.simplify_shapes import SHAPE_RULES
from nldsl.source import Span

RULES: tuple[Rule, ...] = (*POINTWISE_RULES, *SHAPE_RULES, *PART_RULES, *DIAGONAL_RULES)


@dataclass(frozen=True)
class Simplify:
    """Applies ``RULES``, without those named in ``disabled``, until nothing changes."""

    name: ClassVar[str] = "simplify"
    rounds: int = 12
    disabled: frozenset[str] = frozenset()

    def apply(self, program: Program) -> Program:
        rules = [rule for rule in RULES if rule.name not in self.disabled]
        table = {op: tuple(r for r in rules if op in r.ops) for op in ops.ALL_OPS}
        program = without_dead(program)
        if any(instr.op == "grad" for instr in (*program.body, *program.init)):
            return program
        for _ in range(self.rounds):
            before = program
            program = without_dead(_one_round(program, table))
            if (program.body, program.init) == (before.body, before.init):
                break
        return program


def simplify_body(
    body: tuple[Instr, ...],
    roots: Sequence[int],
    axes: Sequence[str],
    sizes: dict[str, Dim],
    disabled: Set[str] = frozenset(),
    rounds: int = 12,
    more: tuple[Rule, ...] = (),
) -> tuple[tuple[Instr, ...], dict[int, int]]:
    """A body alone, and the new number of every value of it that is still there (of the roots in any case). ``more``:
    rules besides the usual ones."""
    table = {op: tuple(r for r in (*RULES, *more) if op in r.ops and r.name not in disabled) for op in ops.ALL_OPS}
    body, number = _live(body, roots)
    for _ in range(rounds):
        builder = Builder(list(axes))
        made = rebuild(body, builder, _Round(body, [number[r] for r in roots], table, sizes))
        after, alive = _live(tuple(builder.instrs), [made[number[r]] for r in roots])
        number = {old: alive[made[new]] for old, new in number.items() if made[new] in alive}
        if after == body:
            break
        body = after
    return body, number


def _one_round(program: Program, table: dict[str, tuple[Rule, ...]]) -> Program:
    sizes = {axis.name: axis.size for axis in program.axes if axis.size is not None}
    axes = list(program.axis_names())
    body, init = Builder(axes), Builder(axes)
    named = (*program.updates, *program.outputs, *program.losses, *program.probes)
    body_values = rebuild(program.body, body, _Round(program.body, [v for _, v in named], table, sizes))
    init_values = rebuild(program.init, init, _Round(program.init, [s.init for s in program.states], table, sizes))
    return with_bodies(program, body, body_values, init, init_values)


class _Round:
    """The rewrite of one body."""

    def __init__(
        self, body: tuple[Instr, ...], roots: list[int], table: dict[str, tuple[Rule, ...]], sizes: dict[str, Dim]
    ) -> None:
        self.table = table
        self.sizes = sizes
        self.old_uses = Counter(a for instr in body for a in instr.args)
        self.old_uses.update(roots)
        self.done = 0
        self.uses: Counter[int] = Counter()  # of values of the new body, as far as it is made

    def __call__(self, builder: Builder, instr: Instr, args: tuple[int, ...]) -> int:
        if instr.op == "anchor" and instr.attr("period") == 1:  # the state at the beginning of the tick itself
            value = builder.leaf("state", instr.type, instr.name, instr.span, state=instr.attr("state"))
        elif instr.op in ops.LEAVES or instr.op in ops.SEGMENT_LEAVES:
            value = builder.leaf(instr.op, instr.type, instr.name, instr.span, **dict(instr.attrs))
        else:
            value = self.emit(builder, instr.op, args, dict(instr.attrs), instr.name, instr.span)
        self.uses[value] += self.old_uses[self.done]
        self.done += 1
        return value

    def emit(
        self,
        builder: Builder,
        op: str,
        args: tuple[int, ...],
        attrs: dict[str, Any],
        name: str,
        span: Span,
        depth: int = 0,
    ) -> int:
        """The value of an operation after the first rule that matches; rules emit through here too."""
        if depth < MAX_DEPTH:
            made = ops.infer(op, [builder.type(a) for a in args], attrs, builder.order)
            match = Match(builder, self, op, args, attrs, made, span, depth)
            for rule in self.table[op]:
                value = rule.rewrite(match)
                if value is not None:
                    return _named(builder, value, name)
        return builder.emit(op, *args, name=name, span=span, **attrs)


def _named(builder: Builder, value: int, name: str) -> int:
    if name and not builder.instrs[value].name and builder.instrs[value].op != "const":
        builder.instrs[value] = replace(builder.instrs[value], name=name)
    return value


def without_dead(program: Program) -> Program:
    """Without instructions that nothing needs, and without updates of a state with itself."""
    updates = tuple((name, value) for name, value in program.updates if not _keeps(program.body[value], name))
    named = (*updates, *program.outputs, *program.losses, *program.probes)
    body, body_values = _live(program.body, (value for _, value in named))
    init, init_values = _live(program.init, (state.init for state in program.states))

    def renumber(pairs: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        return tuple((name, body_values[value]) for name, value in pairs)

    return replace(
        program,
        body=body,
        init=init,
        states=tuple(replace(s, init=init_values[s.init]) for s in program.states),
        updates=renumber(updates),
        outputs=renumber(program.outputs),
        losses=renumber(program.losses),
        probes=renumber(program.probes),
    )


def _keeps(instr: Instr, name: str) -> bool:
    return instr.op == "state" and bool(instr.attr("state") == name)


def _live(body: tuple[Instr, ...], roots: Iterable[int]) -> tuple[tuple[Instr, ...], dict[int, int]]:
    """The instructions that ``roots`` need, and the new number of each."""
    live = set(roots)
    for value in range(len(body) - 1, -1, -1):
        if value in live:
            live.update(body[value].args)
    number = {value: n for n, value in enumerate(sorted(live))}
    kept = (replace(body[v], args=tuple(number[a] for a in body[v].args)) for v in sorted(live))
    return tuple(kept), number
