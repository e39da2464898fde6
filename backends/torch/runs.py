"""The function of a run: N segments of T ticks, forward or backward.

What needs nothing that the loop carries is computed for all segments of the run at once (the axis ``segment``), then a
loop carries states, or their cotangents, from segment to segment, then what is left is computed for all at once again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nldsl.backends.torch.body import Writer, write_tick
from nldsl.backends.torch.layout import Layout
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ATOM, Code, Expr
from nldsl.ir.backward import Leaf
from nldsl.ir.ops import LEAVES, SEGMENT_LEAVES
from nldsl.ir.program import Instr, Program
from nldsl.ir.stages import FINISH, PREPARE, SEGMENT, STEP
from nldsl.ir.types import TIME, Type


@dataclass(frozen=True)
class SegmentLayout(Layout):
    """``program`` has the axis ``segment`` and the lanes of the loop among its axes.

    The segment comes first, so that one of them lies in one piece; time comes last, next to the logical dims, so that
    products of the values of all ticks are plain matrix products.
    """

    def order(self, names: tuple[str, ...]) -> tuple[str, ...]:
        known = super().order(tuple(a for a in names if a not in (TIME, SEGMENT)))
        return (*(a for a in (SEGMENT,) if a in names), *known, *(a for a in (TIME,) if a in names))

    def axis_size(self, axis: str) -> str:
        return "N" if axis == SEGMENT else super().axis_size(axis)


@dataclass(frozen=True)
class Argument:
    """A tensor that a run takes besides the states: its variable inside, the expression outside. ``stream``: it comes
    in pieces, with the axes ``segment`` and ``time``; otherwise it is the same for all segments."""

    inside: Expr
    outside: Expr
    stream: bool


@dataclass
class Operands:
    """The arguments of a loop, and which of them (or which number) each leaf is."""

    arguments: list[Argument] = field(default_factory=list)
    leaves: dict[Leaf, Expr] = field(default_factory=dict)

    @property
    def streams(self) -> list[Argument]:
        return [a for a in self.arguments if a.stream]

    @property
    def others(self) -> list[Argument]:
        return [a for a in self.arguments if not a.stream]


def leaf_of(instr: Instr) -> Leaf | None:
    """The leaf under which an instruction's value comes from outside."""
    for op, attr in (("given", "value"), ("param", "param"), ("state", "state")):
        if instr.op == op:
            return op, instr.attr(attr)
    return None


def axis_dim(type: Type, axis: str) -> int:
    """Which dim of a tensor an axis is."""
    return type.axes.index(axis)


def without_segment(axes: tuple[str, ...]) -> tuple[str, ...]:
    """The axes that a value has outside the function of a run."""
    return tuple(a for a in axes if a != SEGMENT)


class RunWriter(ABC):
    """Writes the function of a run."""

    reverse = False

    def __init__(
        self,
        run: Scope,
        program: Program,
        body: Sequence[Instr],
        stage: Sequence[int | None],
        carried: Sequence[int],
        results: Sequence[int],
    ) -> None:
        self.run = run
        self.program = program
        self.body = body
        self.stage = stage
        self.carried = list(carried)
        self.results = list(results)
        self.uses = Counter(a for v, i in enumerate(body) if stage[v] is not None for a in i.args)
        self.lists: dict[str, str] = {}  # variables that are kept in each round, and in which list

    @abstractmethod
    def begin(self) -> dict[int, Expr]:
        """The first lines of a round; the leaves that are known only there."""

    @abstractmethod
    def end(self) -> None:
        """The last lines of a round: what is carried on."""

    def leaves(self, op: str) -> list[int]:
        return [v for v, i in enumerate(self.body) if i.op == op and self.stage[v] is not None]

    def write_stages(self) -> None:
        """The lines of the three stages; then the environment has all results."""
        run = self.run
        self._clocks()
        self._values(PREPARE)
        before = dict(run.env)
        moved = self._loop(before)
        run.env = before
        run.env.update(moved)
        self._values(FINISH)

    def _clocks(self) -> None:
        run = self.run
        ticks = ""
        for value in self.leaves("clock"):
            instr = self.body[value]
            if not ticks:
                text = f"torch.arange(t + 1, t + N * T + 1, device={run.need('device')}).unflatten(0, (N, T))"
                ticks = run.bind(Expr(text, Type((), (SEGMENT, TIME), "int")), "ticks").text
            text, scale, period = ticks, instr.attr("scale"), instr.attr("period")
            text = f"{text} // {scale}" if scale != 1 else text
            text = f"({text} - 1) % {period} + 1" if period else text
            run.env[value] = Expr(text, Type((), run.layout.order((TIME, SEGMENT)), "int"), 0)

    def _values(self, stage: int) -> None:
        values = [v for v in range(len(self.body)) if self.stage[v] == stage]
        kept = {v for v in values if v in self.results or v in self.carried}
        if stage == PREPARE:
            kept |= {a for v, i in enumerate(self.body) if self.stage[v] not in (None, PREPARE) for a in i.args}
        uses = self.uses.copy()
        uses.update([*kept] * 2)
        writer = Writer(self.run, self.body, uses, at_once=True)
        for value in values:
            op = self.body[value].op
            if op in ("const", "iota") or op not in LEAVES | SEGMENT_LEAVES:
                writer.value(value)

    def _crossing(self, source: int, target: int) -> list[int]:
        """Values of one stage that another one uses."""
        used = {a for v, i in enumerate(self.body) if self.stage[v] == target for a in i.args}
        used |= set(self.carried if target == STEP else self.results)
        return sorted(v for v in used if self.stage[v] == source)

    def _loop(self, before: dict[int, Expr]) -> dict[int, Expr]:
        """The loop over segments; what FINISH needs of it, stacked."""
        run = self.run
        streams: list[tuple[Expr, Expr]] = []
        for value in self._crossing(PREPARE, STEP):
            every = before[value]
            if SEGMENT not in every.type.axes:
                continue
            every = before[value] = run.simple(run.tensor(every), "x")
            known = next((one for e, one in streams if e.text == every.text and e.type == every.type), None)
            if known is None:
                type = replace(every.type, axes=without_segment(every.type.axes))
                known = replace(every, text=run.names.new(f"{every.text}_now"), type=type)
                streams.append((every, known))
            run.env[value] = known
        outside, run.code = run.code, Code()
        leaves = self.begin()
        run.env.update(leaves)
        late = self._crossing(STEP, FINISH)
        kept: dict[int, str] = {v: self.keep(v) for v in late if v in leaves}
        self.advance()
        values = [v for v in range(len(self.body)) if self.stage[v] == STEP and v not in run.env]
        write_tick(run, self.body, values, [*self.carried, *late])
        kept |= {v: self.keep(v) for v in late if v not in leaves}
        ends = {v: run.env[v] for v in late}
        self.end()
        inside, run.code = run.code, outside
        for name in self.lists.values():
            run.code.add(f"{name} = []")
        self._head(streams)
        run.code.extend(inside)
        moved = {}
        for value, name in kept.items():
            type = run.layout.with_axis(ends[value].type, SEGMENT)
            items = f"{name}[::-1]" if self.reverse else name
            text = f"torch.stack({items}, {axis_dim(type, SEGMENT)})"
            moved[value] = run.bind(replace(ends[value], text=text, type=type), name.removesuffix("_list"))
        return moved

    def advance(self) -> None:
        """Count the ticks of the segment where the loop goes forward."""
        self.run.code.add("t += T")

    def keep(self, value: int) -> str:
        """Append a value to its list."""
        run = self.run
        expr = run.env[value] = run.simple(run.tensor(run.env[value]), "x")
        return self.keep_variable(expr.text)

    def keep_variable(self, name: str) -> str:
        if name not in self.lists:
            self.lists[name] = self.run.names.new(f"{name}_list")
            self.run.code.add(f"{self.lists[name]}.append({name})")
        return self.lists[name]

    def carry_on(self, pairs: Sequence[tuple[Expr, int]]) -> tuple[list[str], list[str]]:
        """Variables of the loop and the texts of their new values."""
        run, names, texts = self.run, [], []
        for variable, value in pairs:
            new = run.stretched(run.env[value], variable.type)
            text = f"{new.at(ATOM)}.to({run.need('dtype')})" if new.low else new.text
            if text != variable.text:
                names.append(variable.text)
                texts.append(text)
        return names, texts

    def _head(self, streams: list[tuple[Expr, Expr]]) -> None:
        code = self.run.code
        if not streams:
            code.add("for _ in range(N):")
            return
        unbound = [f"{every.text}.unbind({axis_dim(every.type, SEGMENT)})" for every, _ in streams]
        if self.reverse:
            unbound = [f"reversed({text})" for text in unbound]
        names = ", ".join(one.text for _, one in streams)
        if len(unbound) == 1:
            code.add(f"for {names} in {unbound[0]}:")
            return
        code.add(f"for {names} in zip(")
        for text in unbound:
            code.add(f"    {text},")
        code.add("):")
