"""Rules for pointwise operations and clocks. Each function is the condition and the result of one row of the table."""

from __future__ import annotations

import math
from collections.abc import Callable

from nldsl.ir import ops
from nldsl.ir.clocks import implies
from nldsl.ir.program import Instr
from nldsl.ir.types import broadcast_shapes
from nldsl.passes.simplify_match import Match, rule

FOLDS: dict[str, Callable[..., float]] = {
    "neg": lambda x: -x,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "sqrt": math.sqrt,
    "rsqrt": lambda x: 1.0 / math.sqrt(x),
    "abs": abs,
    "sign": lambda x: (x > 0) - (x < 0),
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "arctan": math.atan,
    "relu": lambda x: x if x > 0 else 0 * x,
    "floor": math.floor,
    "to_real": float,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "maximum": max,
    "minimum": min,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}
NEGATION_DEPTH = 4


def _fold(m: Match) -> int | None:
    numbers = [m.number(a) for a in m.args]
    known = [x for x in numbers if x is not None]
    if len(known) < len(numbers):
        return None
    try:
        result = FOLDS[m.op](*known)
    except (ArithmeticError, ValueError):
        return None  # left for the run, which says NaN or infinity
    return m.full(result)


def _neutral(side: int, number: float) -> Callable[[Match], int | None]:
    """One operand is neutral: the other is the result."""
    return lambda m: m.same(m.args[1 - side]) if m.number(m.args[side]) == number else None


def _either(number: float) -> Callable[[Match], int | None]:
    def rewrite(m: Match) -> int | None:
        for side in (0, 1):
            if m.number(m.args[side]) == number:
                return m.same(m.args[1 - side])
        return None

    return rewrite


def _zero_product(m: Match) -> int | None:
    zeros = [m.number(a) == 0 for a in (m.args[:1] if m.op == "div" else m.args)]
    return m.full(0) if any(zeros) else None


def _constant_first(m: Match) -> int | None:
    if m.instr(1).op == "const" and m.instr(0).op != "const":
        return m.emit("mul", m.args[1], m.args[0])
    return None


def _scaled(m: Match, value: int) -> tuple[float, int] | None:
    """``c * x`` with a number c."""
    instr = m.of(value)
    if instr.op != "mul" or m.of(instr.args[0]).op != "const":
        return None
    return m.of(instr.args[0]).attr("value"), instr.args[1]


def _merge_constants(m: Match) -> int | None:
    inner = _scaled(m, m.args[1])
    if m.instr(0).op != "const" or inner is None:
        return None
    return m.emit("mul", m.factor(m.instr(0).attr("value") * inner[0]), inner[1])


def _hoist_constant(m: Match) -> int | None:
    # only where the product is as small as what was scaled before: there a constant may meet another one
    for side in (0, 1):
        inner = _scaled(m, m.args[side])
        if inner is None or not m.single(m.args[side]) or m.builder.type(inner[1]).shape != m.type.shape:
            continue
        other = m.args[1 - side]
        if m.of(other).op != "const":
            product = m.emit("mul", *((inner[1], other) if side == 0 else (other, inner[1])))
            return m.emit("mul", m.factor(inner[0]), product)
    return None


def _negated(m: Match, value: int, depth: int = NEGATION_DEPTH) -> int | None:
    """-value, where that costs no operation."""
    instr = m.of(value)
    if instr.op == "neg":
        return instr.args[0]
    if not depth or not m.single(value):
        return None
    if instr.op == "mul" and m.of(instr.args[0]).op == "const":
        number = m.of(instr.args[0]).attr("value")
        if number < 0:
            return m.emit("mul", m.const(-number), instr.args[1])
    if instr.op in ("mul", "div", "einsum", "sum", "axis_sum", "reshape", "broadcast"):
        for i, arg in enumerate(instr.args):
            positive = _negated(m, arg, depth - 1)
            if positive is not None:
                return m.emit(instr.op, *instr.args[:i], positive, *instr.args[i + 1 :], **dict(instr.attrs))
    return None


def _minus_negative(m: Match) -> int | None:
    positive = _negated(m, m.args[1])
    return None if positive is None else m.emit("add" if m.op == "sub" else "sub", m.args[0], positive)


def _negative_plus(m: Match) -> int | None:
    positive = _negated(m, m.args[0])
    return None if positive is None else m.emit("sub", m.args[1], positive)


def _negate(m: Match) -> int | None:
    scaled = _scaled(m, m.args[0])
    if scaled is not None:
        return m.emit("mul", m.const(-scaled[0]), scaled[1])
    if m.instr(0).op == "sub" and m.single(m.args[0]):
        return m.emit("sub", m.instr(0).args[1], m.instr(0).args[0])
    return _negated(m, m.args[0])


def _zero_minus(m: Match) -> int | None:
    if m.number(m.args[0]) != 0 or m.builder.type(m.args[1]).shape != m.type.shape:
        return None
    return m.emit("neg", m.args[1])


def _minus_itself(m: Match) -> int | None:
    return m.full(0) if m.args[0] == m.args[1] else None


def _plus_itself(m: Match) -> int | None:
    if m.args[0] != m.args[1] or m.type.kind == "int":
        return None
    return m.emit("mul", m.const(2.0), m.args[0])


def _power(m: Match) -> int | None:
    if m.instr(1).op != "const":
        return None
    base = m.args[0]
    match float(m.instr(1).attr("value")):
        case 0.0:
            return m.full(1)
        case 1.0:
            return m.same(base)
        case 2.0:
            return m.emit("mul", base, base)
        case 0.5:
            return m.emit("sqrt", base)
        case -0.5:
            return m.emit("rsqrt", base)
        case -1.0:
            return m.emit("div", m.const(1.0), base)
    return None


def _choice(m: Match) -> int | None:
    chosen = m.number(m.args[0])
    if chosen is not None:
        return m.same(m.args[1 if chosen != 0 else 2])
    return m.same(m.args[1]) if m.args[1] == m.args[2] else None


def _before_stretch(m: Match, instr: Instr) -> int | None:
    """What was stretched by ``instr`` in a way that a pointwise operation does by itself."""
    if instr.op == "broadcast":
        return instr.args[0]
    if instr.op == "reshape":
        shape = m.builder.type(instr.args[0]).shape
        longer, shorter = sorted((shape, instr.type.shape), key=len, reverse=True)
        lead = len(longer) - len(shorter)
        if longer[lead:] == shorter and all(size == 1 for size in longer[:lead]):
            return instr.args[0]
    return None


def _drop_stretch(m: Match) -> int | None:
    for i in range(len(m.args)):
        source = _before_stretch(m, m.instr(i))
        if source is None:
            continue
        args = (*m.args[:i], source, *m.args[i + 1 :])
        if broadcast_shapes([m.builder.type(a).shape for a in args]) == m.type.shape:
            return m.emit(m.op, *args)
    return None


def _stretch_later(m: Match) -> int | None:
    instrs = [m.instr(i) for i in range(len(m.args))]
    if not any(i.op == "broadcast" for i in instrs):
        return None
    args = [i.args[0] if i.op == "broadcast" else a for a, i in zip(m.args, instrs, strict=True)]
    small = broadcast_shapes([m.builder.type(a).shape for a in args])
    if ops.product(small) == ops.product(m.type.shape):
        return None
    return m.emit("broadcast", m.emit(m.op, *args), shape=m.type.shape)


def _idle(m: Match) -> int | None:
    return m.same(m.args[0]) if m.builder.type(m.args[0]).kind == "real" else None


def _always(m: Match) -> int | None:
    clock = m.attrs["clock"]
    if clock.period == 1 or implies(m.builder.guard, clock) or m.args[0] == m.args[1]:
        return m.same(m.args[0])
    numbers = [m.number(a) for a in m.args]
    return m.full(numbers[0]) if numbers[0] is not None and numbers[0] == numbers[1] else None


def _stopped(m: Match) -> int | None:
    settled = m.instr(0).op in ("const", "stop_grad", "iota", "clock") or m.number(m.args[0]) is not None
    return m.args[0] if settled or m.type.kind == "int" else None


POINTWISE_RULES = (
    rule("fold", "op(numbers) --> number", " ".join(FOLDS), _fold),
    rule("drop-stretch", "op(stretch(x), y) --> op(x, y)", " ".join(ops.POINTWISE), _drop_stretch),
    rule("stretch-later", "op(stretch(x), stretch(y)) --> stretch(op(x, y))", " ".join(ops.POINTWISE), _stretch_later),
    rule("times-zero", "0 * x, 0 / x --> 0", "mul div", _zero_product),
    rule("times-one", "1 * x --> x", "mul", _either(1)),
    rule("over-one", "x / 1 --> x", "div", _neutral(1, 1)),
    rule("plus-zero", "x + 0 --> x", "add", _either(0)),
    rule("minus-zero", "x - 0 --> x", "sub", _neutral(1, 0)),
    rule("zero-minus", "0 - x --> -x", "sub", _zero_minus),
    rule("minus-itself", "x - x --> 0", "sub", _minus_itself),
    rule("plus-itself", "x + x --> 2 * x", "add", _plus_itself),
    rule("constant-first", "x * c --> c * x", "mul", _constant_first),
    rule("merge-constants", "c * (d * x) --> (c*d) * x", "mul", _merge_constants),
    rule("hoist-constant", "(c * x) * y --> c * (x * y)", "mul", _hoist_constant),
    rule("minus-negative", "x - -y --> x + y, x + -y --> x - y", "add sub", _minus_negative),
    rule("negative-plus", "-x + y --> y - x", "add", _negative_plus),
    rule("negate", "--x --> x, -(c * x) --> (-c) * x, -(x - y) --> y - x", "neg", _negate),
    rule("power", "x^2 --> x * x, and other exponents that have an operation", "pow", _power),
    rule("choice", "where(true, x, y) --> x, where(c, x, x) --> x", "where", _choice),
    rule("to-real", "to_real(x) --> x for a real x", "to_real", _idle),
    rule("always", "when(x, y; always) --> x, when(x, x) --> x", "when", _always),
    rule("stopped", "stop_grad(c) --> c, stop_grad(stop_grad(x)) --> stop_grad(x)", "stop_grad", _stopped),
)
