"""Instructions as lines: for all ticks at once (``write_values``), or for one tick (``write_tick``).

Both take the values to write and find their operands in the scope, so that they serve any body. A value that is used
once, has no name and is short is written where it is used; all others get a variable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nldsl.backends.torch import ops
from nldsl.backends.torch.groups import Group, by_clock
from nldsl.backends.torch.layout import view
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ATOM, COMPARE, UNARY, Code, Expr, call
from nldsl.ir.ops import COMPARISONS, POINTWISE, infer, mixes, split_spec
from nldsl.ir.program import Instr
from nldsl.ir.types import TIME, Clock, Type

SHORT, LONG = 52, 80
IN_PLACE = POINTWISE | {
    "einsum",
    "sum",
    "max",
    "reshape",
    "broadcast",
    "slice",
    "spread",
    "collect",
    "stop_grad",
    "batch_mean",
}
HINTS = {"einsum": "product", "sum": "total", "max": "largest", "concat": "joined", "clock": "clock", "when": "held"}


@dataclass
class Writer:
    """Writes values of one body into one scope."""

    scope: Scope
    body: Sequence[Instr]
    uses: Counter[int]
    at_once: bool

    def value(self, value: int) -> None:
        """Write one value, unless it is known."""
        scope, instr = self.scope, self.body[value]
        if value in scope.env:
            return
        expr = self.expression(value, instr)
        if not expr.is_literal and not expr.text.isidentifier() and not self._in_place(value, instr, expr):
            scope.place(instr.span)
            expr = scope.bind(expr, self.name_of(value))
        scope.env[value] = expr

    def expression(self, value: int, instr: Instr) -> Expr:
        if instr.op == "const":
            return literal(instr.attr("value"))
        if instr.op == "clock":
            return self._clock(instr)
        scope = self.scope
        args = [scope.env[a] for a in instr.args]
        wide, product = self.is_wide(value, instr, args), _is_product(instr, args)
        last = not wide and not product and _made_of_wide(instr, args)  # rounded when it is computed, not before
        if wide and not product:
            args = args if _adds(instr) else self._widened(instr, args)
        elif not last:
            args = [scope.narrowed(a) for a in args]
        before, scope.kind = scope.kind, "wide" if wide else scope.kind
        try:
            found = self._when(instr, args) if instr.op == "when" else self._operation(instr, args)
        finally:
            scope.kind = before
        if last and found.form == "tensor":
            return scope.narrowed(replace(found, wide=True))
        if not wide or found.form != "tensor":
            return found
        return scope.widened(found) if product else replace(found, low=False, wide=not scope.within)

    def _operation(self, instr: Instr, args: list[Expr]) -> Expr:
        out = infer(instr.op, [a.type for a in args], dict(instr.attrs), self.scope.layout.order)
        return ops.write(self.scope, instr, args, out)

    def _widened(self, instr: Instr, args: list[Expr]) -> list[Expr]:
        """The operands of an operation that gives at least float32. One that is, and has dims, makes PyTorch compute in
        its type."""
        first = 1 if instr.op == "where" else 0  # of the operands that are numbers
        tensors = [n for n, a in enumerate(args) if n >= first and a.form == "tensor" and not a.is_int]
        large = [n for n in tensors if args[n].type.axes or args[n].type.shape]
        if instr.op != "einsum" and (large or len(tensors) == 1):
            if any(args[n].wide for n in large):
                return args
            tensors = (large or tensors)[:1]
        return [
            self.scope.widened(a, once=self.uses[v] == 1) if n in tensors else a
            for n, (a, v) in enumerate(zip(args, instr.args, strict=True))
        ]

    def is_wide(self, value: int, instr: Instr, args: Sequence[Expr]) -> bool:
        """Whether a value is at least float32: a gate, or, in a single tick that is no loop, what a gate does."""
        layout = self.scope.layout
        if value in layout.wide and self.body is layout.program.body:
            return True
        with_gate = not self.at_once and any(a.wide for a in args)
        return with_gate and (instr.op in POINTWISE | {"when", "einsum"}) and not _is_product(instr, args)

    def hint(self, instr: Instr) -> str:
        return instr.name or HINTS.get(instr.op) or ("mask" if instr.op in COMPARISONS else "x")

    def name_of(self, value: int) -> str:
        """What to call a value: after what the program does with it, or says it is."""
        known = self.scope.layout.roles if self.body is self.scope.layout.program.body else {}
        return known.get(value) or self.hint(self.body[value])

    def _in_place(self, value: int, instr: Instr, expr: Expr) -> bool:
        # a product may yet be joined with what it is added to
        most = LONG if expr.parts and expr.parts.right and not self.scope.layout.autocast else SHORT
        return self.uses[value] == 1 and instr.op in IN_PLACE and not instr.name and len(expr.text) <= most

    def _clock(self, instr: Instr) -> Expr:
        scope, scale, period = self.scope, instr.attr("scale"), instr.attr("period")
        text = scope.need("ticks") if self.at_once else "t"
        if scale != 1:
            text += f" // {scale}"
        if period:
            text = f"(({text}) - 1) % {period} + 1" if scale != 1 else f"({text} - 1) % {period} + 1"
        if self.at_once:
            return Expr(text, Type((), (TIME,), "int"), ATOM if text.isidentifier() else COMPARE)
        return Expr(
            call("torch.full", "()", text, "dtype=torch.int64", f"device={scope.need('device')}"), Type((), (), "int")
        )

    def _when(self, instr: Instr, args: list[Expr]) -> Expr:
        """Only for all ticks at once, or where the clock fires at each tick that matters."""
        clock: Clock = instr.attr("clock")
        if not self.at_once or clock.period == 1:
            return args[0]
        fires = self.scope.vectors.get(clock)
        if fires is None:
            ticks = self.scope.need("ticks")
            text = f"({ticks} - 1) % {clock.period} == 0" if clock.start else f"{ticks} % {clock.period} == 0"
            name = f"at_start_of_{clock.period}" if clock.start else f"every_{clock.period}"
            fires = self.scope.bind(Expr(text, Type((), (TIME,)), COMPARE, "bool"), name)
            self.scope.vectors[clock] = fires
        axes = self.scope.layout.order((TIME, *args[0].type.axes, *args[1].type.axes))
        out = Type(instr.type.shape, axes, instr.type.kind)
        new, old = (self.scope.real(a) if out.kind == "real" else a for a in args)
        if new.is_literal and old.is_literal:
            new = self.scope.tensor(new)
        return Expr(call("torch.where", *(view(e, out) for e in (fires, new, old))), out)


def _made_of_wide(instr: Instr, args: Sequence[Expr]) -> bool:
    """Whether an operation has no operand in half precision, but for parameters and numbers."""
    if instr.op not in POINTWISE or instr.op == "where":
        return False
    varying = [a for a in args if not a.is_literal and TIME in a.type.axes]
    return bool(varying) and all(a.wide for a in varying)


def _adds(instr: Instr) -> bool:
    """Whether an operation is written as a sum in the type that it is told: of a tensor, or of two that lie alike."""
    if instr.op != "einsum":
        return instr.op == "sum" and bool(instr.attr("dims"))
    letters, output = split_spec(instr.attr("spec"))
    return len(letters) == 2 and letters[0] == letters[1] != output and letters[0].startswith(output)


def _is_product(instr: Instr, args: Sequence[Expr]) -> bool:
    return instr.op == "einsum" and mixes(instr, [a.type for a in args])


def literal(value: float) -> Expr:
    """A number as it is written in Python."""
    kind = "int" if isinstance(value, int) else "real"
    text = repr(float(value)) if kind == "real" else repr(int(value))
    if text.lstrip("-") in ("inf", "nan"):
        return Expr(f'float("{text}")', Type(), form="literal")
    return Expr(text, Type((), (), kind), UNARY if text.startswith("-") else ATOM, "literal")


def count_uses(body: Sequence[Instr], values: Iterable[int], kept: Iterable[int]) -> Counter[int]:
    """How often each value is used by ``values``; what is kept has at least two uses, so that it gets a variable."""
    uses = Counter(arg for value in values for arg in body[value].args)
    uses.update([*kept] * 2)
    return uses


def write_values(scope: Scope, body: Sequence[Instr], values: Sequence[int], kept: Iterable[int]) -> None:
    """Write values for all ticks at once. Those ``kept`` are used elsewhere."""
    writer = Writer(scope, body, count_uses(body, values, kept), at_once=True)
    for value in values:
        writer.value(value)


def write_tick(scope: Scope, body: Sequence[Instr], values: Sequence[int], kept: Sequence[int]) -> None:
    """Write values for the tick ``t``: what is needed on a slower clock only stands in an ``if``."""
    writer = Writer(scope, body, count_uses(body, values, kept), at_once=False)
    for group in by_clock(body, values, kept):
        if group.clock is None:
            for value in group.members:
                writer.value(value)
        else:
            _write_block(writer, group.clock, group)


def _write_block(writer: Writer, clock: Clock, group: Group) -> None:
    """``name = old`` for each ``when``, then ``if`` the clock fires the rest, with ``name = new``."""
    scope, body = writer.scope, writer.body
    outside, inside = scope.code, Code(depth=0)
    place = scope.last_place
    for value in group.members:
        instr = body[value]
        scope.code = inside
        if value not in group.selects:
            writer.value(value)
            continue
        new, old = (scope.env[a] for a in instr.args)
        wide = writer.is_wide(value, instr, [new, old])
        change = scope.widened if wide else scope.narrowed
        new, scope.code = change(new), outside
        old = change(old)
        axes = scope.layout.order((*new.type.axes, *old.type.axes))
        out = Type(instr.type.shape, axes, instr.type.kind)
        name = scope.names.new(writer.name_of(value))
        scope.last_place = place
        held = scope.stretched(old, out)
        outside.add(f"{name} = {held.text}")
        scope.code = inside
        inside.add(f"{name} = {scope.stretched(new, out).text}")
        scope.env[value] = Expr(name, out, low=held.low or new.low, wide=wide and not scope.within)
    scope.code = outside
    if any(not line.lstrip().startswith("#") for line in inside.lines):  # else everything is written where it is used
        outside.add(f"if {fires(clock)}:")
        outside.extend(inside)
    scope.last_place = ""


def fires(clock: Clock) -> str:
    """Whether a clock fires at the tick ``t``."""
    return f"(t - 1) % {clock.period} == 0" if clock.start else f"t % {clock.period} == 0"


def at_tick(expr: Expr) -> Expr:
    """The type of a stream's value at one tick."""
    axes = tuple(a for a in expr.type.axes if a != TIME)
    return replace(expr, type=replace(expr.type, axes=axes), parts=None)
