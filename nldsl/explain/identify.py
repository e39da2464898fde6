"""Known functions behind elementwise arithmetic: ``z ⊙ sigmoid(z) --> silu(z)``, and derivatives of activations.

Reverse mode leaves the derivative of an activation spelled out. Terms in one value ``z`` are compared with a table of
functions at fixed points: both are analytic on the intervals that hold the points, so agreeing at all of them to
rounding is agreement for what can be written in so few symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from nldsl.explain.product import hadamard, times
from nldsl.explain.terms import (
    Call,
    Compare,
    Hadamard,
    Num,
    Number,
    Power,
    Product,
    Shape,
    Sum,
    Sym,
    Term,
    add,
    parts,
    scaled,
    tidy,
)

_POINTS = (-2.3, -1.1, -0.37, 0.23, 0.71, 1.3, 2.9)
_TOLERANCE = 1e-9


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def _slope(f: Callable[[float], float], z: float) -> float:
    """The derivative by a central difference of high order: exact to about 1e-12 for the functions below."""
    h = 1e-2
    weights = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    return sum(w * (f(z + (i + 1) * h) - f(z - (i + 1) * h)) for i, w in enumerate(weights)) / h


_ELEMENTARY: dict[str, Callable[[float], float]] = {
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "abs": abs,
    "sign": lambda z: math.copysign(1.0, z) if z else 0.0,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "sigmoid": _sigmoid,
    "softplus": lambda z: math.log1p(math.exp(z)),
    "relu": lambda z: max(z, 0.0),
    "erf": math.erf,
    "silu": lambda z: z * _sigmoid(z),
    "gelu": lambda z: 0.5 * z * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "gelu_erf": lambda z: 0.5 * z * (1 + math.erf(z / math.sqrt(2))),
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
# Longer names first: a function is preferred to the derivative of its integral.
_FUNCTIONS = ("silu", "gelu", "gelu_erf", "sigmoid", "tanh", "relu", "softplus")
_SLOPES: tuple[str, ...] = ("silu", "gelu", "gelu_erf", "sigmoid", "tanh")


_NAMES = (*_FUNCTIONS, *(name + "′" for name in _SLOPES), *(name + "″" for name in _SLOPES))
_ELEMENTARY |= {name + "′": partial(_slope, _ELEMENTARY[name]) for name in _SLOPES}
_ELEMENTARY |= {name + "″": partial(_slope, _ELEMENTARY[name + "′"]) for name in _SLOPES}


def _table() -> list[tuple[str, tuple[float, ...]]]:
    return [(name, tuple(_ELEMENTARY[name](z) for z in _POINTS)) for name in _NAMES]


def fold(term: Term) -> Term:
    """The term with every part that is a known function of one value written as that function."""
    for inner in _arguments(term):
        folded = _fold_about(term, inner)
        if folded.weight < term.weight:
            return fold(folded)
    return term


def is_elementwise(term: Term) -> bool:
    """Whether a term is arithmetic on the entries of tensors of its own shape, with more than a name."""
    if isinstance(term, Sum | Hadamard) or (isinstance(term, Power) and isinstance(term.exponent, Num)):
        return all(c.shape in ((), term.shape) for c in term.children)
    if isinstance(term, Product):
        return term.core is None or is_elementwise(term.core) or isinstance(term.core, Sym)
    return isinstance(term, Call) and term.function in _ELEMENTARY and len(term.args) == 1


def elementwise_leaves(term: Term) -> set[Term]:
    """What elementwise operations make a term of; numbers left out."""
    if isinstance(term, Num):
        return set()
    return set().union(*(elementwise_leaves(c) for c in term.children)) if is_elementwise(term) else {term}


def _arguments(term: Term) -> list[Term]:
    """What elementwise functions and comparisons in a term are applied to, without duplicates."""
    found: dict[Term, None] = {}
    stack = [term]
    while stack:
        inner = stack.pop()
        if isinstance(inner, Call) and inner.function in _ELEMENTARY and len(inner.args) == 1:
            found.update(dict.fromkeys(t for t in _variables(inner.args[0]) if t.shape == term.shape))
        if isinstance(inner, Compare):
            found.update(dict.fromkeys(t for t in _variables(inner.left) if t.shape == term.shape))
        if isinstance(inner, Sum | Product | Hadamard | Power | Call):
            stack.extend(inner.children)
    return list(found)


def _variables(term: Term) -> list[Term]:
    if isinstance(term, Num):
        return []
    if isinstance(term, Sum | Product | Hadamard) or (isinstance(term, Power) and isinstance(term.exponent, Num)):
        return [t for c in term.children for t in _variables(c)]
    return [term]


def _fold_about(term: Term, inner: Term) -> Term:
    """Collect the terms of a sum by what multiplies their part in ``inner``, and name that part if it is known."""
    groups: dict[Term, list[Term]] = {}
    for piece in term.terms if isinstance(term, Sum) else (term,):
        rest, function = _split(piece, inner, term.shape)
        groups.setdefault(rest, []).append(function)
    pieces = []
    for rest, functions in groups.items():
        known = _known(add(*functions), inner)
        pieces += [times(rest, known)] if known is not None else [times(f, rest) for f in functions]
    return add(*pieces)


def _split(piece: Term, inner: Term, shape: Shape) -> tuple[Term, Term]:
    """(what does not depend on ``inner``, what depends on nothing else)."""
    coefficient, scalars, core = parts(piece)
    factors = core.factors if isinstance(core, Hadamard) else () if core is None else (core,)
    if core is None:
        factors, scalars = scalars, ()
    inside = [f for f in factors if value_at(f, inner, _POINTS[0]) is not None]
    outside = [f for f in factors if f not in inside]
    one = Num(shape, 1)
    function = one if not inside else _multiply(inside)
    rest = times(scaled(1, scalars, None), one if not outside else _multiply(outside))
    return rest, times(Num((), coefficient), function)


def _multiply(factors: list[Term]) -> Term:
    if all(f.shape for f in factors):
        return hadamard(*factors)
    result = factors[0]
    for factor in factors[1:]:
        result = times(result, factor)
    return result


def _known(term: Term, inner: Term) -> Term | None:
    """``c * f(inner)`` for a function of the table; None when there is none that is shorter."""
    _, scalars, core = parts(term)
    bare = scalars[0] if core is None and len(scalars) == 1 else core
    if (isinstance(bare, Call) and bare.args == (inner,)) or not _arguments(term):
        return None
    values = [value_at(term, inner, z) for z in _POINTS]
    if any(v is None for v in values):
        return None
    seen = [float(v) for v in values if v is not None]
    for name, expected in _table():
        scale = max(abs(e) for e in expected)
        top = max(range(len(expected)), key=lambda i: abs(expected[i]))
        factor = seen[top] / expected[top]
        close = all(
            abs(s - factor * e) <= _TOLERANCE * scale * abs(factor) for s, e in zip(seen, expected, strict=True)
        )
        if factor and close:
            call = Call(inner.shape, name, (inner,))
            rounded = float(f"{factor:.9g}")
            return times(Num((), tidy(rounded)), call)
    return None


def value_at(term: Term, inner: Term, z: float) -> float | None:
    """The value of an elementwise term where ``inner`` is ``z``; None if it depends on something else."""
    if term == inner:
        return z
    if isinstance(term, Num):
        return float(term.value)
    values = [value_at(c, inner, z) for c in term.children]
    known = [v for v in values if v is not None]
    if len(known) < len(values) or not values:
        return None
    try:
        return _evaluate(term, known)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None


def _evaluate(term: Term, values: list[float]) -> float | None:
    if isinstance(term, Sum):
        return math.fsum(values)
    if isinstance(term, Product):
        return float(term.coefficient) * math.prod(values)
    if isinstance(term, Hadamard):
        return math.prod(values)
    if isinstance(term, Power):
        result: Number | complex = values[0] ** values[1]
        return None if isinstance(result, complex) else float(result)
    if isinstance(term, Compare) and term.relation in _COMPARISONS:
        return float(_COMPARISONS[term.relation](values[0], values[1]))
    if isinstance(term, Call) and term.function in _ELEMENTARY and len(values) == 1:
        return _ELEMENTARY[term.function](values[0])
    if isinstance(term, Call) and term.function in ("max", "min") and len(values) == 2:
        return max(values) if term.function == "max" else min(values)
    return None
