"""Symbolic dimensions: integers, or polynomials with integer coefficients over named sizes.

SymPy would do this too, but importing it costs more than a whole ``nldsl check`` may take (docs/adr/0002);
``to_sympy`` converts where formulas are printed or solved.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Union

Dim = Union[int, "Poly"]
Monomial = tuple[tuple[str, int], ...]  # (("d", 2), ("heads", 1)) is d^2*heads


Coefficient = int | Fraction


@dataclass(frozen=True)
class Poly:
    """A polynomial in normal form: sorted monomials, non-zero coefficients. Never a constant integer (that is an int).

    Powers may be negative and coefficients fractions: ``d / heads`` times ``heads`` is ``d`` again. That a size is a
    whole number is checked when its symbols get their values.
    """

    terms: tuple[tuple[Monomial, Coefficient], ...]

    def __add__(self, other: Dim) -> Dim:
        return _normal(_sum(_terms(self), _terms(other)))

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return _normal({m: -c for m, c in self.terms})

    def __sub__(self, other: Dim) -> Dim:
        return self + (-other)

    def __rsub__(self, other: Dim) -> Dim:
        return (-self) + other

    def __mul__(self, other: Dim) -> Dim:
        product: dict[Monomial, Coefficient] = {}
        for left, a in self.terms:
            for right, b in _terms(other).items():
                m = _monomial_product(left, right)
                product[m] = product.get(m, 0) + a * b
        return _normal(product)

    __rmul__ = __mul__

    def __str__(self) -> str:
        out = ""
        coefficient: Coefficient
        for monomial, coefficient in self.terms:
            factors = [name if power == 1 else f"{name}^{power}" for name, power in monomial if power > 0]
            over = [name if power == -1 else f"{name}^{-power}" for name, power in monomial if power < 0]
            size = Fraction(coefficient if coefficient > 0 else -coefficient)
            if size.numerator != 1 or not factors:
                factors.insert(0, str(size.numerator))
            if size.denominator != 1:
                over.insert(0, str(size.denominator))
            sign = "-" if coefficient < 0 else "+" if out else ""
            below = "/" + (over[0] if len(over) == 1 else "(" + "*".join(over) + ")") if over else ""
            out += (f" {sign} " if out else sign) + "*".join(factors) + below
        return out

    __repr__ = __str__


def symbol(name: str) -> Dim:
    """A size known only by its name."""
    return Poly(((((name, 1),), 1),))


def symbols_of(dim: Dim) -> set[str]:
    """The names in a size."""
    return set() if isinstance(dim, int) else {name for monomial, _ in dim.terms for name, _ in monomial}


def divide(left: Dim, right: Dim) -> Dim | None:
    """``left / right``, assumed to be exact for sizes that are symbols; None when it is not for numbers."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right if right and left % right == 0 else None
    if right == 1:
        return left
    if right == 0:
        return None
    if left == right:
        return 1
    quotient = _exact(left, right)
    return quotient if quotient is not None else symbol(f"({left})/({right})")


def floor_divide(left: Dim, right: Dim) -> Dim | None:
    """``left // right``; opaque for symbols, None for a division by zero."""
    if isinstance(left, int) and isinstance(right, int):
        return left // right if right else None
    return symbol(f"({left})//({right})")


def solve_linear(left: Dim, right: Dim, free: set[str]) -> tuple[str, Dim] | None:
    """A binding of one free name that makes ``left == right``, if one occurs linearly with coefficient +-1."""
    difference = left - right
    if isinstance(difference, int):
        return None
    for monomial, coefficient in difference.terms:
        if len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0] in free and coefficient in (1, -1):
            coefficient = int(coefficient)
            name = monomial[0][0]
            rest = difference - coefficient * symbol(name)
            if name not in symbols_of(rest):
                return name, -rest * coefficient
    return None


def substitute(dim: Dim, values: dict[str, Dim]) -> Dim:
    """The size with some of its names replaced."""
    if isinstance(dim, int) or not (symbols_of(dim) & values.keys()):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient if isinstance(coefficient, int) else Poly((((), coefficient),))
        for name, power in monomial:
            factor = values.get(name, symbol(name))
            for _ in range(abs(power)):
                quotient = divide(term, factor) if power < 0 else term * factor
                term = symbol(f"({term})/({factor})") if quotient is None else quotient
        total = total + term
    return total


def to_sympy(dim: Dim) -> Any:
    """The same polynomial over positive SymPy integers (symbols are made from names, never parsed)."""
    import sympy

    if isinstance(dim, int):
        return sympy.Integer(dim)
    total = sympy.Integer(0)
    for monomial, coefficient in dim.terms:
        term = sympy.Rational(coefficient.numerator, coefficient.denominator)
        for name, power in monomial:
            term *= sympy.Symbol(name, integer=True, positive=True) ** power
        total += term
    return total


def _terms(dim: Dim) -> dict[Monomial, Coefficient]:
    return {(): dim} if isinstance(dim, int) else dict(dim.terms)


def _sum(left: dict[Monomial, Coefficient], right: dict[Monomial, Coefficient]) -> dict[Monomial, Coefficient]:
    for monomial, coefficient in right.items():
        left[monomial] = left.get(monomial, 0) + coefficient
    return left


def _normal(terms: dict[Monomial, Coefficient]) -> Dim:
    kept = {m: int(c) if Fraction(c).denominator == 1 else c for m, c in terms.items() if c}
    if not kept:
        return 0
    if set(kept) == {()}:
        constant = kept[()]
        if isinstance(constant, int):
            return constant
    return Poly(tuple(sorted(kept.items(), key=lambda item: (-sum(p for _, p in item[0]), item[0]))))


def _monomial_product(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _exact(left: Dim, right: Dim) -> Dim | None:
    """Exact division by a single monomial."""
    divisor = list(_terms(right).items())
    if len(divisor) != 1:
        return None
    monomial, coefficient = divisor[0]
    result: dict[Monomial, Coefficient] = {}
    for m, c in _terms(left).items():
        powers = dict(m)
        for name, power in monomial:
            powers[name] = powers.get(name, 0) - power
        result[tuple(sorted((n, p) for n, p in powers.items() if p))] = Fraction(c) / Fraction(coefficient)
    return _normal(result)
