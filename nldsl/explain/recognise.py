"""Functions of the language that lowering has spelled out: means, ``unit``, ``softmax``, ``logsumexp``.

They are recognised after the lines are known, because their parts (a length, a sum of exponentials) often serve
derivatives as well and then have lines of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from nldsl.explain.product import hadamard, times
from nldsl.explain.terms import (
    Call,
    Chain,
    Diag,
    Norm2,
    Num,
    Power,
    Product,
    Sum,
    Sym,
    Term,
    add,
    negate,
    parts,
    power,
    scaled,
)
from nldsl.ir.ops import product

Bodies = Mapping[Sym, Term]
_UNIT_EPSILON = 1e-6


def averaged(term: Term) -> Term:
    """``1/n sum(x) --> mean(x)`` where x has n entries, in each term of a sum."""
    if isinstance(term, Sum):
        return add(*(averaged(t) for t in term.terms))
    if not isinstance(term, Product) or isinstance(term.coefficient, int):
        return term
    for position, factor in enumerate(term.scalars):
        inside = _summed(factor)
        entries = 0 if inside is None else product(inside.shape)
        if inside is None or not isinstance(entries, int) or entries < 2:
            continue
        factor_left = term.coefficient * entries
        if abs(factor_left - round(factor_left)) < 1e-9 and 1 <= abs(round(factor_left)) <= 2:
            rest = (*term.scalars[:position], Call((), "mean", (inside,)), *term.scalars[position + 1 :])
            return scaled(round(factor_left), rest, term.core)
    return term


def _summed(term: Term) -> Term | None:
    """What a sum of all entries is the sum of."""
    if isinstance(term, Norm2):
        return power(term.of, Num((), 2))
    if isinstance(term, Call) and term.function == "sum" and not term.options:
        return term.args[0]
    if isinstance(term, Call) and term.function == "inner":
        return hadamard(*term.args)
    return None


def recognised(term: Term, bodies: Bodies) -> Term:
    """The outermost operation of a term as a function of the language, if it is one."""
    for rule in (_unit, _softmax, _logsumexp):
        found = rule(term, bodies)
        if found is not None:
            return found
    return term


def _body(term: Term, bodies: Bodies) -> Term:
    return bodies.get(term, term) if isinstance(term, Sym) else term


def _unit(term: Term, bodies: Bodies) -> Term | None:
    """``x / sqrt(|x|^2 + 1e-6)``."""
    if not isinstance(term, Product) or term.core is None:
        return None
    for position, factor in enumerate(term.scalars):
        length = _body(factor, bodies)
        if not isinstance(length, Power) or length.exponent != Num((), -0.5) or not isinstance(length.base, Sum):
            continue
        if set(length.base.terms) == {Norm2((), term.core), Num((), _UNIT_EPSILON)}:
            rest = term.scalars[:position] + term.scalars[position + 1 :]
            return scaled(term.coefficient, rest, Call(term.shape, "unit", (term.core,)))
    return None


def _softmax(term: Term, bodies: Bodies) -> Term | None:
    """``exp(x - max(x)) / sum(exp(x - max(x)))``, of a vector or of each row of a matrix."""
    if isinstance(term, Product) and term.core is not None:
        for position, factor in enumerate(term.scalars):
            argument = _shifted_exponential(term.core, bodies)
            if argument is not None and _is_reciprocal_sum(factor, term.core, bodies):
                rest = term.scalars[:position] + term.scalars[position + 1 :]
                return scaled(term.coefficient, rest, Call(term.shape, "softmax", (argument,)))
    if isinstance(term, Chain) and len(term.factors) == 2 and isinstance(term.factors[0], Diag):
        argument = _shifted_exponential(term.factors[1], bodies)
        if argument is not None and _is_reciprocal_sum(term.factors[0].of, term.factors[1], bodies):
            return Call(term.shape, "softmax", (argument,))
    return None


def _is_reciprocal_sum(term: Term, of: Term, bodies: Bodies) -> bool:
    term = _body(term, bodies)
    if not isinstance(term, Power) or term.exponent != Num((), -1):
        return False
    total = _body(term.base, bodies)
    return isinstance(total, Call) and total.function == "sum" and total.args == (of,)


def _shifted_exponential(term: Term, bodies: Bodies) -> Term | None:
    """The x of ``exp(x - max(x))``."""
    term = _body(term, bodies)
    if not isinstance(term, Call) or term.function != "exp":
        return None
    shifted = _body(term.args[0], bodies)
    if not isinstance(shifted, Sum):
        return None
    for position, piece in enumerate(shifted.terms):
        top = _largest(negate(piece), bodies)
        rest = add(*(t for i, t in enumerate(shifted.terms) if i != position))
        if top is not None and rest in (top, _body(top, bodies)):
            return top
    return None


def _largest(term: Term, bodies: Bodies) -> Term | None:
    """The x of ``max(x)``, kept from the derivative and stretched as it may be."""
    term = _body(term, bodies)
    while isinstance(term, Call) and term.function in ("sg", "column") and len(term.args) == 1:
        term = _body(term.args[0], bodies)
    return term.args[0] if isinstance(term, Call) and term.function == "max" and len(term.args) == 1 else None


def _logsumexp(term: Term, bodies: Bodies) -> Term | None:
    """``log(sum(exp(x - max(x)))) + max(x)`` within a sum."""
    if not isinstance(term, Sum):
        return None
    for piece in term.terms:
        coefficient, scalars, core = parts(piece)
        bare = core if core is not None else scalars[0] if len(scalars) == 1 else None
        argument = _log_total(bare, bodies)
        if argument is None or bare is None:
            continue
        for other in term.terms:
            if other is not piece and parts(other)[0] == coefficient:
                top = _largest(scaled(1, *parts(other)[1:]), bodies)
                if top == argument:
                    rest = [t for t in term.terms if t is not piece and t is not other]
                    call = Call(bare.shape, "logsumexp", (argument,))
                    return add(*rest, times(Num((), coefficient), call))
    return None


def _log_total(term: Term | None, bodies: Bodies) -> Term | None:
    term = None if term is None else _body(term, bodies)
    if not isinstance(term, Call) or term.function != "log":
        return None
    total = _body(term.args[0], bodies)
    if not isinstance(total, Call) or total.function != "sum":
        return None
    return _shifted_exponential(total.args[0], bodies)
