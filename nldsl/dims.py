"""Symbolic dimensions: integers, or polynomials with integer coefficients over named sizes.

SymPy would do this too, but importing it costs more than a whole ``nldsl check`` may take (docs/adr/0002);
``to_sympy`` converts where formulas are printed or solved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Union

Dim = Union[int, "Poly"]
Monomial = tuple[tuple[str, int], ...]  # (("d", 2), ("heads", 1)) is d^2*heads


@dataclass(frozen=True)
class Poly:
    """A polynomial in normal form: sorted monomials with non-zero coefficients. Never constant (that is an int)."""

    terms: tuple[tuple[Monomial, int], ...]

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
        product: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other).items():
                m = _monomial_product(left, right)
                product[m] = product.get(m, 0) + a * b
        return _normal(product)

    __rmul__ = __mul__

    def __str__(self) -> str:
        out = ""
        for monomial, coefficient in self.terms:
            factors = [name if power == 1 else f"{name}^{power}" for name, power in monomial]
            if abs(coefficient) != 1 or not factors:
                factors.insert(0, str(abs(coefficient)))
            sign = "-" if coefficient < 0 else "+" if out else ""
            out += (f" {sign} " if out else sign) + "*".join(factors)
        return out

    __repr__ = __str__


def symbol(name: str) -> Dim:
    """A size known only by its name."""
    return Poly(((((name, 1),), 1),))


def symbols_of(dim: Dim) -> set[str]:
    return set() if isinstance(dim, int) else {name for monomial, _ in dim.terms for name, _ in monomial}


def divide(left: Dim, right: Dim) -> Dim | None:
    """``left / right`` when it is exact for all sizes; an opaque quotient symbol when unknown; None when impossible."""
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
    if isinstance(left, int) and isinstance(right, int):
        return left // right if right else None
    quotient = _exact(left, right)
    return quotient if quotient is not None else symbol(f"({left})//({right})")


def solve_linear(left: Dim, right: Dim, free: set[str]) -> tuple[str, Dim] | None:
    """A binding of one free name that makes ``left == right``, if one occurs linearly with coefficient +-1."""
    difference = left - right
    if isinstance(difference, int):
        return None
    for monomial, coefficient in difference.terms:
        if len(monomial) == 1 and monomial[0][1] == 1 and monomial[0][0] in free and abs(coefficient) == 1:
            name = monomial[0][0]
            rest = difference - coefficient * symbol(name)
            if name not in symbols_of(rest):
                return name, -rest * coefficient
    return None


def substitute(dim: Dim, values: dict[str, Dim]) -> Dim:
    if isinstance(dim, int) or not (symbols_of(dim) & values.keys()):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for name, power in monomial:
            for _ in range(power):
                term = term * values.get(name, symbol(name))
        total = total + term
    return total


def to_sympy(dim: Dim) -> Any:
    """The same polynomial over positive SymPy integers (symbols are made from names, never parsed)."""
    import sympy

    if isinstance(dim, int):
        return sympy.Integer(dim)
    total = sympy.Integer(0)
    for monomial, coefficient in dim.terms:
        term = sympy.Integer(coefficient)
        for name, power in monomial:
            term *= sympy.Symbol(name, integer=True, positive=True) ** power
        total += term
    return total


def _terms(dim: Dim) -> dict[Monomial, int]:
    return {(): dim} if isinstance(dim, int) else dict(dim.terms)


def _sum(left: dict[Monomial, int], right: dict[Monomial, int]) -> dict[Monomial, int]:
    for monomial, coefficient in right.items():
        left[monomial] = left.get(monomial, 0) + coefficient
    return left


def _normal(terms: dict[Monomial, int]) -> Dim:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return Poly(tuple(sorted(kept.items(), key=lambda item: (-sum(p for _, p in item[0]), item[0]))))


def _monomial_product(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted(powers.items()))


def _exact(left: Dim, right: Dim) -> Dim | None:
    """Exact division by a single monomial."""
    divisor = list(_terms(right).items())
    if len(divisor) != 1:
        return None
    (monomial, coefficient), result = divisor[0], {}
    for m, c in _terms(left).items():
        powers = dict(m)
        for name, power in monomial:
            powers[name] = powers.get(name, 0) - power
        if c % coefficient or any(p < 0 for p in powers.values()):
            return None
        result[tuple(sorted((n, p) for n, p in powers.items() if p))] = c // coefficient
    return _normal(result)
