"""The derivative of each operation: the cotangent of an operand from the cotangent of the result.

A rule sees the logical shape only; axes and guards are the business of ``vjp.py``. A pointwise rule may return the
shape of the result: it is summed to the operand's. An operation without a row has derivative zero. At ties ``max``
splits its cotangent evenly over all largest entries, ``maximum`` and ``minimum`` give each operand one half; ``abs``
and ``relu`` have slope 0 at 0.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.program import Instr
from nldsl.ir.types import BATCH
from nldsl.passes.vjp_matrix import MATRIX_RULES
from nldsl.passes.vjp_site import Site
from nldsl.passes.vjp_time import TIME_RULES
from nldsl.passes.vjp_windows import WINDOW_RULES

Rule = Callable[[Site], int]
IndexedRule = Callable[[Site, int], int]


def differentiable(instr: Instr) -> bool:
    """Whether a derivative may pass through this instruction."""
    return instr.type.kind == "real" and (instr.op in _BY_OPERAND or instr.op in _BY_INDEX)


def rule_of(instr: Instr, i: int) -> IndexedRule | None:
    """The rule for operand ``i``; None if its derivative is zero."""
    if instr.op in _BY_INDEX:
        return _BY_INDEX[instr.op]
    if instr.op == "mul" and i == 1 and instr.args[0] == instr.args[1]:
        return None  # the rule of the first operand counts both
    rule = _BY_OPERAND.get(instr.op, (None,) * len(instr.args))[i]
    return None if rule is None else lambda site, _: rule(site)


# ---------------------------------------------------------------- pointwise


def _times(slope: Rule) -> tuple[Rule | None, ...]:
    """The row of a unary operation from its slope."""
    return (lambda s: s.mul(s.cotangent, slope(s)),)


def _one_minus(s: Site, value: int) -> int:
    return s.emit("sub", s.const(1.0), value)


def _erf(s: Site) -> int:
    x = s.arg(0)
    return s.scaled(s.emit("exp", s.emit("neg", s.mul(x, x))), 2 / sqrt(pi))


def _mul_left(s: Site) -> int:
    # x * x reaches x twice; both halves at once, so that chains of squares do not grow
    if s.instr.args[0] == s.instr.args[1]:
        return s.mul(s.cotangent, s.scaled(s.arg(0), 2.0))
    return s.mul(s.cotangent, s.arg(1))


def _mul_right(s: Site) -> int:
    return s.mul(s.cotangent, s.arg(0))


def _pow_base(s: Site) -> int:
    exponent = s.builder.instrs[s.instr.args[1]]
    if exponent.op == "const":
        n = float(exponent.attr("value"))
        if n in (0.0, 1.0):
            return s.scaled(s.cotangent, n)
        power = s.arg(0) if n == 2.0 else s.emit("pow", s.arg(0), s.const(n - 1.0))
        return s.mul(s.cotangent, s.scaled(power, n))
    power = s.emit("pow", s.arg(0), s.emit("sub", s.arg(1), s.const(1.0)))
    return s.mul(s.cotangent, s.mul(s.arg(1), power))


def _pow_exponent(s: Site) -> int:
    # the logarithm of a base that is not positive is never formed: its own derivatives would be NaN
    base = s.emit("where", s.emit("gt", s.arg(0), s.const(0.0)), s.arg(0), s.const(1.0))
    return s.mul(s.cotangent, s.mul(s.out, s.emit("log", base)))


def _choose(winner: str, mine: int, other: int) -> Rule:
    def rule(s: Site) -> int:
        a, b = s.arg(mine), s.arg(other)
        won = s.emit("where", s.emit(winner, a, b), s.cotangent, s.const(0.0))
        return s.emit("where", s.emit("eq", a, b), s.scaled(s.cotangent, 0.5), won)

    return rule


# ---------------------------------------------------------------- contraction and algebra


def _einsum(s: Site, i: int) -> int:
    inputs, output = ops.split_spec(s.attr("spec"))
    letters, shape = inputs[i], s.arg_shape(i)
    size = dict(zip(letters, shape, strict=True))
    unique = "".join(dict.fromkeys(letters))
    others = [j for j in range(len(inputs)) if j != i]
    terms = [output, *(inputs[j] for j in others)]
    known = "".join(x for x in unique if any(x in term for term in terms))
    result = s.cotangent
    if others or known != output:
        result = s.emit("einsum", result, *(s.arg(j) for j in others), spec=",".join(terms) + "->" + known)
    if known != unique:  # letters of this operand alone: it was summed over them
        result = s.reshaped(result, tuple(size[x] if x in known else 1 for x in unique))
        result = s.stretched(result, tuple(size[x] for x in unique))
    return result if unique == letters else _onto_diagonal(s, result, letters, shape)


def _onto_diagonal(s: Site, value: int, letters: str, shape: tuple[Dim, ...]) -> int:
    """``value`` over the unique letters put where repeated ones agree: "ij" to "iij" by an identity matrix."""
    fresh = iter(chr(c) for c in range(ord("a"), ord("z") + 1) if chr(c) not in letters)
    terms, args, target = ["".join(dict.fromkeys(letters))], [value], ""
    for letter, size in zip(letters, shape, strict=True):
        if letter not in target:
            target += letter
            continue
        other = next(fresh)
        terms.append(letter + other)
        args.append(s.emit("one_hot", s.emit("iota", n=size), n=size))
        target += other
    return s.emit("einsum", *args, spec=",".join(terms) + "->" + target)


def _solve_right(s: Site) -> int:
    return s.emit("solve", s.emit("einsum", s.arg(0), spec="ij->ji"), s.cotangent)


def _solve_matrix(s: Site) -> int:
    spec = "i,j->ij" if len(s.shape) == 1 else "ik,jk->ij"
    return s.emit("neg", s.emit("einsum", _solve_right(s), s.out, spec=spec))


# ---------------------------------------------------------------- reductions and shapes


def _kept(s: Site) -> tuple[Dim, ...]:
    """The operand's shape with the reduced dims of length 1."""
    return tuple(1 if d in s.attr("dims") else size for d, size in enumerate(s.arg_shape(0)))


def _sum(s: Site) -> int:
    return s.stretched(s.emit("reshape", s.cotangent, shape=_kept(s)), s.arg_shape(0))


def _max(s: Site) -> int:
    largest = s.emit("eq", s.arg(0), s.emit("reshape", s.out, shape=_kept(s)))
    share = s.emit("div", s.cotangent, s.emit("sum", largest, dims=s.attr("dims")))
    return s.mul(largest, s.emit("reshape", share, shape=_kept(s)))


def _concat(s: Site, i: int) -> int:
    dim = s.attr("dim")
    start = sum((s.arg_shape(j)[dim] for j in range(i)), 0)
    return s.emit("slice", s.cotangent, dim=dim, start=start, stop=start + s.arg_shape(i)[dim])


def _slice(s: Site) -> int:
    dim, size = s.attr("dim"), s.arg_shape(0)[s.attr("dim")]
    return s.emit("pad", s.cotangent, dim=dim, before=s.attr("start"), after=size - s.attr("stop"))


def _pad(s: Site) -> int:
    dim, before = s.attr("dim"), s.attr("before")
    return s.emit("slice", s.cotangent, dim=dim, start=before, stop=before + s.arg_shape(0)[dim])


# ---------------------------------------------------------------- axes


def _spread(s: Site) -> int:
    axis, size = s.attr("axis"), s.arg_shape(0)[0]
    if axis not in s.lanes and axis not in s.builder.type(s.instr.args[0]).axes:
        return s.emit("collect", s.cotangent, axis=axis, size=size)
    # every lane has a tensor of its own, of which it used the row with its own number
    row = s.emit("spread", s.emit("one_hot", s.emit("iota", n=size), n=size), axis=axis)
    letters = "abcdefghjklmnopqrstuvwxyz"[: len(s.shape)]
    return s.emit("einsum", row, s.cotangent, spec=f"i,{letters}->i{letters}")


def _collect(s: Site) -> int:
    if s.attr("axis") in s.builder.type(s.instr.args[0]).axes:
        return s.emit("spread", s.cotangent, axis=s.attr("axis"))
    return s.emit("sum", s.cotangent, dims=(0,))


def _batch_mean(s: Site) -> int:
    if BATCH not in s.builder.type(s.instr.args[0]).axes:
        return s.cotangent
    return s.emit("div", s.cotangent, s.emit("axis_sum", s.const(1.0), axis=BATCH))


_SAME: tuple[Rule | None, ...] = (lambda s: s.cotangent,)

_BY_OPERAND: dict[str, tuple[Rule | None, ...]] = {
    "neg": (lambda s: s.emit("neg", s.cotangent),),
    "exp": _times(lambda s: s.out),
    "log": (lambda s: s.emit("div", s.cotangent, s.arg(0)),),
    "log1p": (lambda s: s.emit("div", s.cotangent, s.emit("add", s.const(1.0), s.arg(0))),),
    "expm1": _times(lambda s: s.emit("exp", s.arg(0))),
    "sqrt": (lambda s: s.emit("div", s.scaled(s.cotangent, 0.5), s.out),),
    "rsqrt": _times(lambda s: s.scaled(s.mul(s.out, s.mul(s.out, s.out)), -0.5)),
    "abs": _times(lambda s: s.emit("sign", s.arg(0))),
    "sin": _times(lambda s: s.emit("cos", s.arg(0))),
    "cos": _times(lambda s: s.emit("neg", s.emit("sin", s.arg(0)))),
    "tanh": _times(lambda s: _one_minus(s, s.mul(s.out, s.out))),
    "arctan": (lambda s: s.emit("div", s.cotangent, s.emit("add", s.const(1.0), s.mul(s.arg(0), s.arg(0)))),),
    "sigmoid": _times(lambda s: s.mul(s.out, _one_minus(s, s.out))),
    "softplus": _times(lambda s: s.emit("sigmoid", s.arg(0))),
    "relu": (lambda s: s.emit("where", s.emit("gt", s.arg(0), s.const(0.0)), s.cotangent, s.const(0.0)),),
    "erf": _times(_erf),
    "to_real": _SAME,
    "add": (lambda s: s.cotangent, lambda s: s.cotangent),
    "sub": (lambda s: s.cotangent, lambda s: s.emit("neg", s.cotangent)),
    "mul": (_mul_left, _mul_right),
    "div": (
        lambda s: s.emit("div", s.cotangent, s.arg(1)),
        lambda s: s.emit("neg", s.mul(s.cotangent, s.emit("div", s.out, s.arg(1)))),
    ),
    "pow": (_pow_base, _pow_exponent),
    "maximum": (_choose("gt", 0, 1), _choose("gt", 1, 0)),
    "minimum": (_choose("lt", 0, 1), _choose("lt", 1, 0)),
    "mod": (
        lambda s: s.cotangent,
        lambda s: s.emit("neg", s.mul(s.cotangent, s.emit("floor", s.emit("div", s.arg(0), s.arg(1))))),
    ),
    "where": (
        None,
        lambda s: s.emit("where", s.arg(0), s.cotangent, s.const(0.0)),
        lambda s: s.emit("where", s.arg(0), s.const(0.0), s.cotangent),
    ),
    "when": _SAME * 2,  # done in vjp.py: it depends on the guards
    "sum": (_sum,),
    "max": (_max,),
    "cumsum": (lambda s: s.emit("cumsum", s.cotangent, dim=s.attr("dim"), reverse=not s.attr("reverse")),),
    "reshape": (lambda s: s.emit("reshape", s.cotangent, shape=s.arg_shape(0)),),
    "broadcast": _SAME,
    "slice": (_slice,),
    "pad": (_pad,),
    "take": (lambda s: s.emit("scatter_add", s.cotangent, s.arg(1), n=s.arg_shape(0)[0]), None),
    "scatter_add": (lambda s: s.emit("take", s.cotangent, s.arg(1)), None),
    "solve": (_solve_matrix, _solve_right),
    "spread": (_spread,),
    "collect": (_collect,),
    "axis_sum": _SAME,
    "batch_mean": (_batch_mean,),
    **TIME_RULES,
    **WINDOW_RULES,
    **MATRIX_RULES,
}
_BY_INDEX: dict[str, IndexedRule] = {"einsum": _einsum, "concat": _concat}
