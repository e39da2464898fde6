"""One IR operation as a term: the table that says what each op looks like in mathematics."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from nldsl.explain.product import chain, contract, divide, inner, times
from nldsl.explain.terms import (
    Call,
    Cases,
    Chain,
    Compare,
    Diag,
    Hadamard,
    Norm2,
    Num,
    Part,
    Power,
    Product,
    Shape,
    Sum,
    Sym,
    Term,
    add,
    negate,
    parts,
    power,
    scaled,
    subterms,
    tidy,
    word,
)
from nldsl.ir.ops import COMPARISONS, UNARY, product, split_spec
from nldsl.ir.program import Instr
from nldsl.ir.types import Clock

TICK = word("t")


def clock_words(clock: Clock | None) -> str:
    """When a clock ticks."""
    if clock is None:
        return "every tick"
    return f"at the first of every {clock.period} ticks" if clock.start else f"every {clock.period} ticks"


Maker = Callable[[Instr, list[Term]], Term]


def operation(instr: Instr, args: list[Term]) -> Term:
    """The term of an instruction that is not a leaf."""
    maker = _MAKERS.get(instr.op)
    if maker is not None:
        return maker(instr, args)
    if instr.op == "eq" and _is_identity(args):
        return word("I", instr.type.shape)
    if instr.op in COMPARISONS and len(args) == 2 and not instr.op.startswith("logical"):
        return Compare(instr.type.shape, instr.op, args[0], args[1])
    options = tuple(f"{key} = {_shown(value)}" for key, value in instr.attrs) if instr.op not in UNARY else ()
    return Call(instr.type.shape, instr.op, tuple(args), options)


def _is_identity(args: list[Term]) -> bool:
    left, right = args
    column = isinstance(left, Call) and left.function == "column" and left.args == (right,)
    return column and isinstance(right, Call) and right.function == "iota"


def _shown(value: Any) -> str:
    return "[" + ", ".join(str(v) for v in value) + "]" if isinstance(value, tuple) else str(value)


def _sum(instr: Instr, args: list[Term]) -> Term:
    (term,) = args
    dims = instr.attr("dims")
    coefficient, scalars, core = parts(term)
    if core is None or not dims:
        return term
    if len(dims) == len(core.shape):
        return times(scaled(coefficient, scalars, None), _total(core))
    if isinstance(core, Chain) and isinstance(core.factors[-1], Diag) and dims == (1,):
        return times(scaled(coefficient, scalars, None), chain(*core.factors[:-1], core.factors[-1].of))
    call = Call(instr.type.shape, "sum", (core,), (f"axis = {_shown(dims if len(dims) > 1 else dims[0])}",))
    return scaled(coefficient, scalars, call)


def _total(core: Term) -> Term:
    """The sum of all entries: norms and inner products where it is one."""
    if isinstance(core, Power) and core.exponent == Num((), 2):
        return Norm2((), core.base)
    if isinstance(core, Num):
        entries = product(core.shape)
        return Num((), core.value * entries) if isinstance(entries, int) else Call((), "sum", (core,))
    if isinstance(core, Hadamard) and len(core.factors) == 2:
        return inner(*core.factors)
    return Call((), "sum", (core,))


def _max(instr: Instr, args: list[Term]) -> Term:
    dims = instr.attr("dims")
    whole = len(dims) == len(args[0].shape)
    return Call(instr.type.shape, "max", tuple(args), () if whole else (f"axis = {_shown(dims)}",))


def _reshape(instr: Instr, args: list[Term]) -> Term:
    (term,), shape = args, instr.type.shape
    coefficient, scalars, core = parts(term)
    if core is None or isinstance(core, Num):
        return scaled(coefficient, scalars, Num(shape, 1) if shape else None)
    old = core.shape
    if isinstance(core, Call) and core.function in ("column", "row") and core.args[0].shape == shape:
        return scaled(coefficient, scalars, core.args[0])
    if old == shape:
        return term
    if isinstance(core, Part) and old == (1, *shape) and core.index.partition(",")[0].count(":") == 1:
        first, comma, rest = core.index.partition(",")
        return scaled(coefficient, scalars, replace(core, shape=shape, index=first.partition(":")[0] + comma + rest))
    if len(old) == 1 and shape == (*old, 1):
        return scaled(coefficient, scalars, Call(shape, "column", (core,)))
    if len(old) == 1 and shape == (1, *old):
        return scaled(coefficient, scalars, Call(shape, "row", (core,)))
    if shape == () and isinstance(core, Part) and old == (1,):
        return scaled(coefficient, (*scalars, replace(core, shape=())), None)
    if all(d == 1 for d in old) and shape == ():
        return scaled(coefficient, (*scalars, Part((), core, ", ".join("0" for _ in old))), None)
    return scaled(coefficient, scalars, Call(shape, "reshape", (core,), (_shown(shape),)))


def _broadcast(instr: Instr, args: list[Term]) -> Term:
    (term,), shape = args, instr.type.shape
    coefficient, scalars, core = parts(term)
    if core is None or isinstance(core, Num):
        return scaled(coefficient, scalars, Num(shape, 1))
    if core.shape == shape:
        return term
    if len(core.shape) == 1 and len(shape) == 2:
        return scaled(coefficient, scalars, Call(shape, "row", (core,)))
    return scaled(coefficient, scalars, Call(shape, "broadcast", (core,), (_shown(shape),)))


def _einsum(instr: Instr, args: list[Term]) -> Term:
    ones = [Sym(a.shape, "1", "word") if isinstance(a, Num) and a.value == 1 and len(a.shape) == 1 else a for a in args]
    return _window_sum(instr.attr("spec"), ones) or contract(instr.attr("spec"), ones)


def _window_sum(spec: str, args: list[Term]) -> Term | None:
    """A contraction over the places of a window is a sum over them: ``Σ_i u[i] k[i]ᵀ``."""
    inputs, output = split_spec(spec)
    for letters, arg in zip(inputs, args, strict=True):
        core = parts(arg)[2]
        index = core.function.removeprefix("all_") if isinstance(core, Call) else ""
        if not index.startswith("i") or not isinstance(core, Call) or core.function == index or letters[0] in output:
            continue
        place = letters[0]
        if any(place in x[1:] for x in inputs):
            continue
        rest = [x.removeprefix(place) for x in inputs]
        inner = [_at_place(a, index) if x.startswith(place) else a for x, a in zip(inputs, args, strict=True)]
        found = contract(",".join(rest) + "->" + output, inner)
        coefficient, scalars, term = parts(found)
        body = scaled(1, scalars, term)
        return times(Num((), coefficient), Call(found.shape, f"Σ_{index}", (body,)))
    return None


def _at_place(term: Term, index: str) -> Term:
    """One place of a tensor whose first axis is that of a window."""
    coefficient, scalars, core = parts(term)
    assert core is not None
    if isinstance(core, Call) and core.function == f"all_{index}":
        place = core.args[0]
    elif isinstance(core, Call) and core.function == "window":
        place = Part(core.shape[1:], core.args[0], index)
    else:
        place = Part(core.shape[1:], core, index)
    return times(scaled(coefficient, scalars, None), place)


def _where(instr: Instr, args: list[Term]) -> Term:
    condition, yes, no = args
    zero = isinstance(no, Num) and no.value == 0
    if zero and _is_window_mask(condition):
        return yes  # said in words where windows are explained
    if zero and isinstance(condition, Compare):
        return times(condition, yes)
    return Cases(instr.type.shape, ((Call(condition.shape, "if", (condition,)), yes), (word("otherwise"), no)))


def _is_window_mask(condition: Term) -> bool:
    """``[iota ≥ n − t][i]``: the place in the window holds a value."""
    if not (isinstance(condition, Part) and isinstance(condition.of, Compare) and condition.of.relation == "ge"):
        return False
    place, first = condition.of.left, condition.of.right
    return isinstance(place, Call) and place.function == "iota" and any(t == TICK for t in subterms(first))


def _when(instr: Instr, args: list[Term]) -> Term:
    new, old = args
    return Cases(instr.type.shape, ((word(clock_words(instr.attr("clock"))), new), (word("otherwise"), old)))


def over_time(shape: Shape, function: str, of: Term, options: tuple[str, ...]) -> Term:
    """A function of a stream; ``prev(prev(x))`` is ``prev(x, 2)``."""
    if function == "prev":
        inner = isinstance(of, Call) and of.function == "prev"
        return _past(of.args[0], int((*of.options, "1")[0]) + 1) if inner and isinstance(of, Call) else _past(of, 1)
    coefficient, scalars, core = parts(of)
    if function.startswith("Σ") and coefficient != 1 and not isinstance(of, Num):
        return times(Num((), coefficient), Call(shape, function, (scaled(1, scalars, core),), options))
    return Call(shape, function, (of,), options)


def _past(term: Term, ticks: int) -> Term:
    if ticks == 0:
        return term
    return Call(term.shape, "prev", (term,), (str(ticks),) if ticks > 1 else ())


def _row_of(term: Term) -> Term | None:
    """What a tensor of one row holds."""
    if isinstance(term, Call) and term.function == "row":
        return term.args[0]
    if isinstance(term, Product) and isinstance(term.core, Num) and term.core.shape == (1,):
        return scaled(term.coefficient, term.scalars, None)
    if isinstance(term, Call) and term.function == "reshape" and term.shape == (1, *term.args[0].shape):
        return term.args[0]
    return None


def _concat(instr: Instr, args: list[Term]) -> Term:
    dim = instr.attr("dim")
    if all(isinstance(a, Num) for a in args):
        return Call(instr.type.shape, "", tuple(args))
    newest = _row_of(args[-1])
    if dim == 0 and newest is not None:
        places = [_row_of(a) for a in args]
        if places == [_past(newest, n) for n in range(len(args) - 1, -1, -1)]:
            return Call(instr.type.shape, "window", (newest,), (str(len(args)),))
    return Call(instr.type.shape, "concat", tuple(args), (f"axis = {dim}",) if dim else ())


def _slice(instr: Instr, args: list[Term]) -> Term:
    dim, start, stop = instr.attr("dim"), instr.attr("start"), instr.attr("stop")
    place = str(start) if stop - start == 1 and len(args[0].shape) == 1 else f"{start}:{stop}"
    index = ", ".join([":"] * dim + [place])
    coefficient, scalars, core = parts(args[0])
    assert core is not None
    return scaled(coefficient, scalars, Part(instr.type.shape, core, index))


def _solve(args: list[Term]) -> Term:
    return chain(Call(args[0].shape, "inverse", (args[0],)), args[1])


def _maximum(name: str) -> Maker:
    return lambda instr, args: Call(instr.type.shape, name, tuple(args))


def index_of(axis: str) -> str:
    """The letter for a place along a mapped axis: i for places of a window, otherwise the name of the axis."""
    name = re.sub(r"_\d+$", "", axis.rsplit(".", 1)[-1])
    return "i" + name.removeprefix("window") if name.startswith("window") else name


def _axis_sum(instr: Instr, args: list[Term]) -> Term:
    coefficient, scalars, core = parts(args[0])
    inside = scaled(1, scalars, core)
    return (
        scaled(coefficient, (), None)
        if isinstance(inside, Num)
        else times(Num((), coefficient), Call(instr.type.shape, f"Σ_{index_of(instr.attr('axis'))}", (inside,)))
    )


def _lane(instr: Instr, args: list[Term]) -> Term:
    coefficient, scalars, core = parts(args[0])
    assert core is not None
    index = index_of(instr.attr("axis"))
    if isinstance(core, Call) and core.function == "window":
        return scaled(coefficient, scalars, Part(instr.type.shape, core.args[0], index))
    if _counts_back(core):
        return scaled(coefficient, scalars, Sym((), index, "word"))
    if isinstance(core, Part) and any(_counts_back(by) for by in core.by):
        core = core.of
    return scaled(coefficient, scalars, Part(instr.type.shape, core, index))


def _counts_back(term: Term) -> bool:
    """n - 1, ..., 1, 0: the places of a window as numbers."""
    found = [t.core for t in term.terms if isinstance(t, Product)] if isinstance(term, Sum) else []
    return any(isinstance(core, Call) and core.function == "iota" for core in found)


def _clock(instr: Instr) -> Term:
    scale, period = instr.attr("scale"), instr.attr("period")
    tick: Term = TICK
    if scale != 1:
        tick = Call((), "ceil", (divide(tick, Num((), scale)),))
    return Call((), "clock", (), (str(period),)) if period else tick


_MAKERS: dict[str, Maker] = {
    "const": lambda instr, args: Num((), tidy(instr.attr("value"))),
    "iota": lambda instr, args: Call(instr.type.shape, "iota", (), (str(instr.attr("n")),)),
    "clock": lambda instr, args: _clock(instr),
    "neg": lambda instr, args: negate(args[0]),
    "add": lambda instr, args: add(*args),
    "sub": lambda instr, args: add(args[0], negate(args[1])),
    "mul": lambda instr, args: times(*args),
    "div": lambda instr, args: divide(*args),
    "pow": lambda instr, args: power(*args),
    "sqrt": lambda instr, args: power(args[0], Num((), 0.5)),
    "rsqrt": lambda instr, args: power(args[0], Num((), -0.5)),
    "to_real": lambda instr, args: args[0],
    "maximum": _maximum("max"),
    "minimum": _maximum("min"),
    "where": _where,
    "when": _when,
    "sum": _sum,
    "max": _max,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "einsum": _einsum,
    "concat": _concat,
    "slice": _slice,
    "take": lambda instr, args: Part(instr.type.shape, args[0], "", (args[1],)),
    "one_hot": lambda instr, args: Call(instr.type.shape, "one_hot", tuple(args)),
    "solve": lambda instr, args: _solve(args),
    "spread": _lane,
    "collect": lambda instr, args: Call(instr.type.shape, f"all_{index_of(instr.attr('axis'))}", tuple(args)),
    "axis_sum": _axis_sum,
    "stop_grad": lambda instr, args: Call(instr.type.shape, "sg", tuple(args)),
    "fixed": lambda instr, args: args[0],
    "grad": lambda instr, args: Call(instr.type.shape, "grad", (args[0], args[1 + instr.attr("index")])),
}
