"""A loop over segments as code: two functions, one that cuts the ticks into runs of equal segments, one for a run.

In the function of a run, what needs no state is computed for all segments of the run at once (the axis ``segment``),
then a loop carries the states from segment to segment, then what is left is computed for all segments at once again.
``T`` is the number of ticks of a segment there, ``N`` the number of segments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nldsl.backends.torch.body import Writer, write_tick
from nldsl.backends.torch.layout import Layout
from nldsl.backends.torch.names import short_names
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ATOM, INDENT, Code, Expr
from nldsl.backends.torch.tick import Variables, fold, variables, write_resets
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.ops import LEAVES
from nldsl.ir.program import Axis, Instr, Program
from nldsl.ir.stages import FINISH, PREPARE, SEGMENT, STEP, stages
from nldsl.ir.types import TIME, Clock, Type


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


@dataclass
class Call:
    """What a run takes, inside and outside: streams in pieces, and values that are the same for all segments."""

    streams: list[tuple[Expr, Expr]] = field(default_factory=list)
    others: list[tuple[Expr, Expr]] = field(default_factory=list)


def write_chunk_loop(
    run: Scope, driver: Scope, scope: Scope, held: Variables, phase: ChunkLoop
) -> tuple[list[str], list[str]]:
    """Write the two functions of a loop. Gives the targets and the arguments of a call of ``driver`` in ``scope``."""
    program = scope.layout.program
    axes = (Axis(SEGMENT, None), *program.axes, *phase.lanes)
    run.layout = SegmentLayout(replace(program, axes=axes))
    for name in ("N", "T"):
        run.names.new(name)
    run.given |= {"T": "T", "N": "N"}
    inner = variables(run, program, phase.states)
    writer = _RunWriter(run, phase, inner, program)
    call = writer.take_operands(scope)
    outputs = writer.write()
    state_names = [e.text for e in inner.all()]
    passed = [inside.text for inside, _ in (*call.streams, *call.others)]
    run.arguments = ["t", "T", "N", *state_names, *passed]
    run.tensors = [*inner.all(), *(inside for inside, _ in (*call.streams, *call.others))]

    _write_driver(driver, run, phase, state_names, call, outputs)
    outer = [*(held.states[s] for s in inner.states), *(held.anchors[a] for a in inner.anchors)]
    targets = [e.text for e in outer]
    for value, expr in outputs:
        type = scope.layout.with_axis(Type(expr.type.shape, _without(expr.type.axes), expr.type.kind), TIME)
        name = scope.names.new(program.body[value].name or expr.text)
        scope.env[value] = Expr(name, type, low=expr.low)
        targets.append(name)
    arguments = ["t", *(e.text for e in outer), *(outside.text for _, outside in (*call.streams, *call.others))]
    if not call.streams:
        arguments.append(scope.need("T"))
    return targets, arguments


def _without(axes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(a for a in axes if a != SEGMENT)


def _dim(type: Type, axis: str) -> int:
    return type.axes.index(axis)


def _outer(driver: Scope, type: Type) -> int:
    """Where time is outside the function of a run."""
    return _dim(driver.layout.with_axis(Type((), _without(type.axes))), TIME)


def _clock_pair(clock: Clock) -> str:
    return f"({clock.period}, {1 % clock.period if clock.start else 0})"


def _write_driver(
    driver: Scope, run: Scope, phase: ChunkLoop, states: list[str], call: Call, outputs: list[tuple[int, Expr]]
) -> None:
    code = driver.code
    for name in (*states, "t", "T", *(inside.text for inside, _ in (*call.streams, *call.others))):
        driver.names.new(name)
    driver.arguments = ["t", *states, *(inside.text for inside, _ in (*call.streams, *call.others))]
    if call.streams:
        first = call.streams[0][0]
        code.add(f"T = {first.text}.shape[{_outer(driver, first.type)}]")
    else:
        driver.arguments.append("T")
    pairs = [_clock_pair(c) for c in phase.clocks]
    clocks = f"({', '.join(pairs)}{',' if len(pairs) == 1 else ''})"
    code.add(f"runs = scan_runs(t, T, {phase.size}, {clocks})")
    sizes = driver.names.new("sizes")
    if call.streams:
        code.add(f"{sizes} = [ticks * segments for ticks, segments in runs]")
    parts = [(driver.names.new(f"{e.text}_parts"), e) for _, e in outputs]
    for name, _ in parts:
        code.add(f"{name} = []")
    pieces, cut = [], []
    for inside, _ in call.streams:
        dim = _outer(driver, inside.type)
        pieces.append(driver.names.new(f"{inside.text}_part"))
        cut.append(f"{inside.text}.split({sizes}, {dim})")
    if cut:
        code.add(f"for (ticks, segments), {', '.join(pieces)} in zip(")
        for text in ("runs", *cut):
            code.add(f"{INDENT}{text},")
        code.add("):")
    else:
        code.add("for ticks, segments in runs:")
    inside_code = Code()
    arguments = ["t", "ticks", "segments", *states]
    for piece, (inside, _) in zip(pieces, call.streams, strict=True):
        dim, last = _outer(driver, inside.type), _dim(inside.type, TIME)
        moved = f"movedim(({dim}, {dim + 1}), (0, {last}))" if dim else f"movedim(1, {last})"
        moved = "" if (dim, last) == (0, 1) else f".{moved}.contiguous()"
        arguments.append(f"{piece}.unflatten({dim}, (segments, ticks)){moved}")
    arguments += [inside.text for inside, _ in call.others]
    results = [driver.names.new(f"{e.text}_new") for _, e in outputs]
    targets = [*states, *results]
    inside_code.add(f"{', '.join(targets)} = {run.name}(")
    for text in arguments:
        inside_code.add(f"{INDENT}{text},")
    inside_code.add(")")
    inside_code.add("t += ticks * segments")
    for (name, expr), result in zip(parts, results, strict=True):
        dim, last = _outer(driver, expr.type), _dim(expr.type, TIME)
        moved = f"movedim((0, {last}), ({dim}, {dim + 1}))" if dim else f"movedim({last}, 1)"
        moved = "" if (dim, last) == (0, 1) else f".{moved}"
        inside_code.add(f"{name}.append({result}{moved}.flatten({dim}, {dim + 1}))")
    code.extend(inside_code)
    joined = [f"torch.cat({name}, {_outer(driver, e.type)})" for name, e in parts]
    code.add(f"return {', '.join([*states, *joined])}")


class _RunWriter:
    """Writes the function of a run."""

    def __init__(self, run: Scope, phase: ChunkLoop, inner: Variables, program: Program) -> None:
        self.run = run
        self.phase = phase
        self.inner = inner
        self.held = self._packed()
        self.program = program
        self.body: Sequence[Instr] = phase.body
        self.stage = stages(phase)
        self.uses = Counter(a for v, i in enumerate(self.body) if self.stage[v] is not None for a in i.args)
        self.roots = [v for _, v in (*phase.carry, *phase.outputs)]

    def _packed(self) -> Variables:
        """What the loop holds: packs instead of their states."""
        states, anchors = dict(self.inner.states), dict(self.inner.anchors)
        for pack in self.phase.packs:
            first = self.inner.states[pack.states[0]]
            type = self.run.layout.with_axis(first.type, pack.axis)
            name = pack.states[0].rpartition(".")[2]
            for state in pack.states:
                del states[state]
            states[pack.name] = Expr(self.run.names.new(f"{name}_pack"), type)
            for state, period in self.inner.anchors:
                if state == pack.states[0]:
                    anchors[pack.name, period] = Expr(self.run.names.new(f"{name}_pack_at_{period}"), type)
            anchors = {key: e for key, e in anchors.items() if key[0] not in pack.states}
        return Variables(states, anchors)

    def _pack_lines(self, inside: bool) -> None:
        """Put the states of packs side by side, or apart again."""
        for pack in self.phase.packs:
            whole = [(self.held.states[pack.name], [self.inner.states[s] for s in pack.states])]
            for (name, period), anchor in self.held.anchors.items():
                if name == pack.name:
                    whole.append((anchor, [self.inner.anchors[s, period] for s in pack.states]))
            for together, apart in whole:
                dim = _dim(together.type, pack.axis)
                names = ", ".join(e.text for e in apart)
                if inside:
                    self.run.code.add(f"{together.text} = torch.stack([{names}], {dim})")
                else:
                    self.run.code.add(f"{names} = {together.text}.unbind({dim})")

    def leaves(self, op: str) -> list[int]:
        return [v for v, i in enumerate(self.body) if i.op == op and self.stage[v] is not None]

    # -- the arguments

    def take_operands(self, scope: Scope) -> Call:
        """Bind the leaves that come from outside."""
        call, run, known = Call(), self.run, dict[tuple[str, Type], Expr]()
        for value in self.leaves("given"):
            source = self.body[value].attr("value")
            outside, hint = scope.env[source], self.program.body[source].name
            self._take(call, value, outside, hint or outside.text, known)
        names = [self.body[v].attr("param") for v in self.leaves("param")]
        for state in self.phase.states:
            if self.program.state(state).reset.kind == "clock":
                names += [i.attr("param") for i in self.program.init if i.op == "param"]
        short = short_names(dict.fromkeys(names))
        for param in dict.fromkeys(names):
            outside = scope.params[param]
            inside = replace(outside, text=run.names.new(short[param]), strength=ATOM)
            run.params[param] = inside
            call.others.append((inside, outside))
        for value in self.leaves("param"):
            run.env[value] = run.params[self.body[value].attr("param")]
        for value in self.leaves("state"):
            name = self.body[value].attr("state")
            if name not in self.held.states:
                body = self.program.body
                source = next(v for v, i in enumerate(body) if i.op == "state" and i.attr("state") == name)
                self._take(call, value, scope.env[source], name, known)
        return call

    def _take(self, call: Call, value: int, outside: Expr, hint: str, known: dict[tuple[str, Type], Expr]) -> None:
        run = self.run
        if outside.is_literal:
            run.env[value] = outside
            return
        key = outside.text, outside.type  # views may share a text
        if key not in known:
            if outside.form == "bool":
                outside = replace(outside, text=f"{outside.text}.to(torch.get_default_dtype())", form="tensor")
            type = outside.type
            if TIME in type.axes:
                type = run.layout.with_axis(type, SEGMENT)
            inside = Expr(run.names.new(hint), type, low=outside.low)
            (call.streams if TIME in type.axes else call.others).append((inside, outside))
            known[key] = inside
        run.env[value] = known[key]

    # -- the function

    def write(self) -> list[tuple[int, Expr]]:
        """The lines; what leaves the run, with the axes ``time`` and ``segment``."""
        run = self.run
        self._clocks()
        self._values(PREPARE, [v for v in range(len(self.body)) if self.stage[v] == PREPARE])
        before = dict(run.env)
        moved = self._loop(before)
        run.env = before
        run.env.update(moved)
        self._values(FINISH, [v for v in range(len(self.body)) if self.stage[v] == FINISH])
        outputs = []
        for value, inside in self.phase.outputs:
            expr = run.env[inside]
            type = run.layout.with_axis(expr.type, TIME, SEGMENT)
            wanted = self.program.body[value].type
            type = run.layout.with_axis(type, *wanted.axes)
            full = run.stretched(expr, replace(type, shape=wanted.shape))
            outputs.append((value, run.simple(full, self.program.body[value].name or "y")))
        texts = [*(e.text for e in self.inner.all()), *(e.text for _, e in outputs)]
        run.code.add(f"return {', '.join(texts)}")
        return outputs

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

    def _writer(self, kept: set[int]) -> Writer:
        uses = self.uses.copy()
        uses.update([*kept] * 2)
        return Writer(self.run, self.body, uses, at_once=True)

    def _values(self, stage: int, values: list[int]) -> None:
        kept = {v for v in values if v in self.roots}
        if stage == PREPARE:
            kept |= {a for v, i in enumerate(self.body) if self.stage[v] not in (None, PREPARE) for a in i.args}
        writer = self._writer(kept)
        for value in values:
            instr = self.body[value]
            if instr.op not in LEAVES or instr.op in ("const", "iota"):
                writer.value(value)

    def _crossing(self, source: int | None, target: int) -> list[int]:
        """Values of one stage that another one uses."""
        used = {a for v, i in enumerate(self.body) if self.stage[v] == target for a in i.args}
        if target == STEP:
            used |= {v for _, v in self.phase.carry}
        else:
            used |= {v for _, v in self.phase.outputs}
        return sorted(v for v in used if self.stage[v] == source)

    def _loop(self, before: dict[int, Expr]) -> dict[int, Expr]:
        """The loop over segments; what FINISH needs of it, stacked."""
        run, inner = self.run, self.held
        self._pack_lines(inside=True)
        streams: list[tuple[Expr, Expr]] = []
        for value in self._crossing(PREPARE, STEP):
            every = before[value]
            if SEGMENT not in every.type.axes:
                continue
            every = before[value] = run.simple(run.tensor(every), "x")
            type = replace(every.type, axes=_without(every.type.axes))
            one = replace(every, text=run.names.new(f"{every.text}_now"), type=type)
            streams.append((every, one))
            run.env[value] = one
        outside, run.code = run.code, Code()
        self._anchors()
        for value in self.leaves("state"):
            name = self.body[value].attr("state")
            if name in inner.states:
                run.env[value] = inner.states[name]
        for value in self.leaves("anchor"):
            key = self.body[value].attr("state"), self.body[value].attr("period")
            run.env[value] = inner.anchors[key]
        late = self._crossing(STEP, FINISH)
        early = [v for v in late if self.body[v].op in ("state", "anchor")]
        lists: dict[int, str] = {}
        for value in early:
            self._append(value, lists)
        run.code.add("t += T")
        values = [v for v in range(len(self.body)) if self.stage[v] == STEP and v not in run.env]
        carried = [v for _, v in self.phase.carry]
        write_tick(run, self.body, values, [*carried, *late])
        for value in late:
            if value not in early:
                self._append(value, lists)
        self._update()
        inside, run.code = run.code, outside
        for name in lists.values():
            run.code.add(f"{name} = []")
        self._head(streams)
        run.code.extend(inside)
        self._pack_lines(inside=False)
        moved = {}
        for value, name in lists.items():
            expr = run.env[value]
            type = run.layout.with_axis(expr.type, SEGMENT)
            text = f"torch.stack({name}, {_dim(type, SEGMENT)})"
            moved[value] = run.bind(replace(expr, text=text, type=type), name.removesuffix("_list"))
        return moved

    def _append(self, value: int, lists: dict[int, str]) -> None:
        run = self.run
        expr = run.env[value] = run.simple(run.tensor(run.env[value]), "x")
        lists[value] = run.names.new(f"{expr.text}_list")
        run.code.add(f"{lists[value]}.append({expr.text})")

    def _anchors(self) -> None:
        for period in dict.fromkeys(p for _, p in self.held.anchors):
            due = [(s, e) for (s, p), e in self.held.anchors.items() if p == period]
            if period > 1:
                self.run.code.add(f"if t % {period} == 0:")
            for state, anchor in due:
                indent = INDENT if period > 1 else ""
                self.run.code.add(f"{indent}{anchor.text} = {self.held.states[state].text}")

    def _update(self) -> None:
        run, names, texts = self.run, [], []
        for name, value in self.phase.carry:
            variable = self.held.states[name]
            new = run.stretched(run.env[value], variable.type)
            text = f"{new.at(ATOM)}.to({run.need('dtype')})" if new.low else new.text
            if text != variable.text:
                names.append(variable.text)
                texts.append(text)
        fold(run.code, names, texts)
        if names:
            run.code.add(f"{', '.join(names)} = {', '.join(texts)}")
        alone = {n: e for n, e in self.held.states.items() if n in self.inner.states}
        write_resets(run, self.program, Variables(alone, self.held.anchors))

    def _head(self, streams: list[tuple[Expr, Expr]]) -> None:
        code = self.run.code
        if not streams:
            code.add("for _ in range(N):")
            return
        unbound = [f"{every.text}.unbind({_dim(every.type, SEGMENT)})" for every, _ in streams]
        names = ", ".join(one.text for _, one in streams)
        if len(unbound) == 1:
            code.add(f"for {names} in {unbound[0]}:")
            return
        code.add(f"for {names} in zip(")
        for text in unbound:
            code.add(f"{INDENT}{text},")
        code.add("):")
