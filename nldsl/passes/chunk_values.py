"""The free values of a segment: the per-token body with the mapped axis ``time``, and the same with time as a dim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nldsl.dims import Dim
from nldsl.ir.build import Builder
from nldsl.ir.chunk import TICKS
from nldsl.ir.program import Instr
from nldsl.ir.types import TIME, Type
from nldsl.passes.affine import Factor, Letters
from nldsl.passes.affine_rules import Free
from nldsl.passes.chunk_window import Windows
from nldsl.passes.contract import Letter, Operand, placed
from nldsl.passes.levels import interior
from nldsl.passes.recurrence import Recurrence
from nldsl.passes.windows import Register

AT, FROM = "t", "s"  # the tick of a read, the tick of a write


class Values:
    """Copies values of the per-token body into the body of a segment, each once."""

    def __init__(self, recurrence: Recurrence, stream: Callable[[int], int]) -> None:
        self.recurrence = recurrence
        self.stream = stream  # makes values that depend on states known before those they are free for
        self.program = recurrence.program
        self.source = recurrence.rules.body
        self.builder = Builder([a.name for a in self.program.axes])
        self.windows = Windows(self.builder)
        self.inside = set(recurrence.scan.values)
        self.made: dict[int, int] = {}
        self.varies: dict[int, bool] = {}
        self.carried: list[bool] = []

    # ---- of each tick

    def per_tick(self, value: int) -> int:
        """A free value, with the axis ``time`` if it varies inside the segment."""
        if value not in self.made:
            free = isinstance(self.recurrence.abstract.get(value, Free(value)), Free)
            self.made[value] = self._copy(value, self.source.instrs[value]) if free else self.stream(value)
        return self.made[value]

    def _copy(self, value: int, instr: Instr) -> int:
        builder = self.builder
        if value in self.recurrence.views:
            return self.view(value)
        if instr.op == "iota":
            return self.windows.emit("iota", (), dict(instr.attrs), instr.name, instr.span)
        if instr.op in ("param", "const"):
            return builder.leaf(instr.op, instr.type, instr.name, instr.span, **dict(instr.attrs))
        if instr.op in ("state", "anchor") and (value in self.inside or self.held(instr.attr("state"))):
            return builder.leaf(instr.op, instr.type, instr.name, instr.span, **dict(instr.attrs))
        if value < len(self.program.body) and value not in self.inside and not self._number(value):
            axes = builder.order((*instr.type.axes, TIME)) if self.varying(value) else instr.type.axes
            if self.recurrence.views and self._counts(value):
                return self._counted(instr)
            return builder.leaf("given", replace(instr.type, axes=axes), instr.name, instr.span, value=value)
        if instr.op == "clock":
            return self.windows.clock(dict(instr.attrs))
        inner = interior(instr)
        if inner is not None and self.touched(value):
            return self.per_tick(inner)
        args = [self.per_tick(a) for a in instr.args]
        if instr.op == "when":
            return self.choose(instr, args)
        return self.windows.emit(instr.op, args, dict(instr.attrs), instr.name, instr.span)

    def _number(self, value: int) -> bool:
        """Whether a value of another phase is a number in every entry: it is made here, so that what is multiplied with
        zero, or added to it, can be left out."""
        instr = self.source.instrs[value]
        return instr.op == "const" or (instr.op in ("broadcast", "reshape") and self._number(instr.args[0]))

    def _counts(self, value: int) -> bool:
        """Whether a value of another phase is made from the number of the tick alone, such as the mask of a window."""
        instr = self.source.instrs[value]
        if instr.op in ("clock", "iota", "const"):
            return True
        return instr.op in ("add", "sub", "lt", "le", "gt", "ge") and all(self._counts(a) for a in instr.args)

    def _counted(self, instr: Instr) -> int:
        if instr.op == "clock":
            return self.windows.clock(dict(instr.attrs))
        args = [self.per_tick(a) for a in instr.args]
        return self.windows.emit(instr.op, args, dict(instr.attrs), instr.name, instr.span)

    def view(self, value: int) -> int:
        """Rows of a shift register, at each tick."""
        view = self.recurrence.views[value]
        return self.windows.view(self.seen(view.register), view.start, view.length)

    def seen(self, register: Register) -> int:
        """What a register holds at the beginning of the segment, then what enters it: [size + T, ..]."""
        builder, type = self.builder, self.program.state(register.state).type
        new = self.per_tick(register.newest)
        rows = self.collected(new) if TIME in builder.type(new).axes else new
        shape = (TICKS, *type.shape[1:])
        if TIME in builder.type(new).axes:
            rows = builder.emit("reshape", rows, shape=shape)
        else:
            rows = builder.emit("broadcast", rows, shape=shape)
        return builder.emit("concat", builder.leaf("state", type, state=register.state), rows, dim=0)

    def choose(self, instr: Instr, args: list[int]) -> int:
        """``when`` as a choice tick by tick."""
        clock = instr.attr("clock")
        position = self.builder.leaf("clock", Type((), (TIME,), "int"), scale=1, period=clock.period)
        fires = self.builder.emit("eq", position, self.builder.const(1 if clock.start else clock.period))
        return self.builder.emit("where", fires, *args, name=instr.name, span=instr.span)

    def touched(self, value: int) -> bool:
        """Whether a ``when`` is more than a choice between values that do not depend on the states of the loop."""
        stack, seen = list(self.source.instrs[value].args), set[int]()
        while stack:
            at = stack.pop()
            if at in seen or at not in self.inside:
                continue
            seen.add(at)
            if self.source.instrs[at].op in ("state", "anchor"):
                return True
            stack.extend(self.source.instrs[at].args)
        return False

    def held(self, name: str) -> bool:
        """Whether no tick changes that state."""
        update = dict(self.program.updates).get(name)
        if self.program.state(name).reset.kind == "clock":
            return False
        if update is None:
            return True
        instr = self.program.body[update]
        return instr.op == "state" and instr.attr("state") == name

    def varying(self, value: int) -> bool:
        """Whether a value of the per-token body differs from tick to tick."""
        if value not in self.varies:
            instr = self.program.body[value]
            if instr.op in ("input", "clock", "when"):
                known = True
            elif instr.op in ("state", "anchor"):
                known = not self.held(instr.attr("state"))
            else:
                known = any(self.varying(a) for a in instr.args)
            self.varies[value] = known
        return self.varies[value]

    # ---- of the whole segment

    def segment(self, value: int) -> Operand:
        """A value of the segment's body with its tick as the first dim (letter ``AT``), if it varies."""
        letters: tuple[Letter | None, ...] = tuple(range(-1, -1 - len(self.builder.type(value).shape), -1))
        if TIME not in self.builder.type(value).axes:
            return Operand(value, letters)
        return Operand(self.collected(value), (AT, *letters))

    def collected(self, value: int) -> int:
        """With time as the first dim: ``value`` has the axis."""
        instr = self.builder.instrs[value]
        if instr.op == "spread" and instr.attr("axis") == TIME:
            return instr.args[0]
        return self.builder.emit("collect", value, axis=TIME, size=TICKS)

    def factor(self, factor: Factor, tick: str = AT) -> Operand:
        value = self.per_tick(factor.value)
        if TIME not in self.builder.type(value).axes:
            return Operand(value, factor.letters)
        return Operand(self.collected(value), (tick, *factor.letters))

    def spread(self, collected: int) -> int:
        return self.builder.emit("spread", collected, axis=TIME)

    def over_time(self, operand: Operand, letters: Letters, shape: tuple[Dim, ...]) -> int:
        """The operand as [T, shape]."""
        value = placed(self.builder, operand, (AT, *letters))
        return self.stretched(value, (TICKS, *shape))

    def stretched(self, value: int, shape: tuple[Dim, ...]) -> int:
        if self.builder.type(value).shape == shape:
            return value
        return self.builder.emit("broadcast", value, shape=shape)

    def rows(self, value: int, start: Dim, stop: Dim) -> int:
        return self.builder.emit("slice", value, dim=0, start=start, stop=stop)

    def row(self, value: int, tick: Dim) -> int:
        """One tick of [T, ..]."""
        kept = self.rows(value, tick, tick + 1)
        return self.builder.emit("reshape", kept, shape=self.builder.type(value).shape[1:])

    def delayed(self, value: int) -> int:
        """[T, ..] moved by one tick: the first is zero."""
        return self.builder.emit("pad", self.rows(value, 0, TICKS - 1), dim=0, before=1, after=0)

    def product(self, operands: list[Operand], out: tuple[Letter, ...], scale: float = 1.0) -> Operand:
        return self.windows.product(operands, out, scale)

    def depends_on_carry(self, value: int) -> bool:
        """Whether a value of the segment's body needs states or anchors."""
        for known in range(len(self.carried), value + 1):  # operands come before what uses them
            instr = self.builder.instrs[known]
            self.carried.append(instr.op in ("state", "anchor") or any(self.carried[a] for a in instr.args))
        return self.carried[value]
