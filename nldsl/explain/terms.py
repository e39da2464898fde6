"""Terms: the mathematics of a tick as a reader would write it, and the few laws that keep them readable.

A term has a shape, like the IR value it stands for. Numbers and scalar factors are pulled to the front of products,
nested sums and matrix products are flat, equal factors are powers. Nothing else is rewritten: what is printed is what
the IR computes. Make terms with the functions of this module and of ``product.py``, not with the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from nldsl.dims import Dim
from nldsl.ir.types import ShapeError, broadcast_shapes

Shape = tuple[Dim, ...]
Number = int | float


@dataclass(frozen=True)
class Term:
    """Base of all terms; ``shape`` is the logical shape."""

    shape: Shape

    @cached_property
    def children(self) -> tuple[Term, ...]:
        """The terms inside this one, from left to right."""
        return ()

    @cached_property
    def weight(self) -> int:
        """How much there is to read: the number of names, numbers and functions."""
        return 1 + sum(c.weight for c in self.children)


@dataclass(frozen=True)
class Num(Term):
    """A number; with a shape, a tensor filled with it."""

    value: Number = 0


@dataclass(frozen=True)
class Sym(Term):
    """A name.

    ``kind``: state (before the tick), after (a state after the tick), anchor, input, param, value (a line of its own),
    past (a state whose value is fixed between ticks of a slower clock), word (literal text such as ``I``).
    """

    name: str = ""
    kind: str = "value"
    period: int = 0


@dataclass(frozen=True)
class Sum(Term):
    """Terms added up; a negative one is a product with a negative coefficient."""

    terms: tuple[Term, ...] = ()

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return self.terms


@dataclass(frozen=True)
class Product(Term):
    """``coefficient`` times scalar terms times ``core``, the part that has a shape (None for a scalar)."""

    coefficient: Number = 1
    scalars: tuple[Term, ...] = ()
    core: Term | None = None

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return self.scalars + (() if self.core is None else (self.core,))

    @cached_property
    def weight(self) -> int:
        return sum(c.weight for c in self.children) + (abs(self.coefficient) != 1)


@dataclass(frozen=True)
class Chain(Term):
    """A matrix product of matrices, columns (vectors) and rows (transposed vectors)."""

    factors: tuple[Term, ...] = ()

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return self.factors

    @cached_property
    def weight(self) -> int:
        return sum(c.weight for c in self.children)


@dataclass(frozen=True)
class Hadamard(Term):
    """An elementwise product."""

    factors: tuple[Term, ...] = ()

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return self.factors

    @cached_property
    def weight(self) -> int:
        return sum(c.weight for c in self.children)


@dataclass(frozen=True)
class Power(Term):
    """An elementwise power. A quotient is a power with a negative exponent until it is printed."""

    base: Term = Num(())
    exponent: Term = Num(())

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return (self.base, self.exponent)

    @cached_property
    def weight(self) -> int:
        return self.base.weight + (0 if isinstance(self.exponent, Num) else self.exponent.weight)


@dataclass(frozen=True)
class Transpose(Term):
    """The transpose of a matrix, or a vector as a row."""

    of: Term = Num(())

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return (self.of,)

    @cached_property
    def weight(self) -> int:
        return self.of.weight


@dataclass(frozen=True)
class Diag(Term):
    """The diagonal matrix of a vector."""

    of: Term = Num(())

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Norm2(Term):
    """The sum of the squares of all entries."""

    of: Term = Num(())

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return (self.of,)


@dataclass(frozen=True)
class Call(Term):
    """A function of terms; ``options`` are printed behind them (``axis = 0``)."""

    function: str = ""
    args: tuple[Term, ...] = ()
    options: tuple[str, ...] = ()

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return self.args


@dataclass(frozen=True)
class Compare(Term):
    """1 where the comparison holds, 0 elsewhere."""

    relation: str = "="
    left: Term = Num(())
    right: Term = Num(())

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return (self.left, self.right)


@dataclass(frozen=True)
class Cases(Term):
    """``rows``: (condition in words or as a term, value); the last condition is ``otherwise``."""

    rows: tuple[tuple[Term, Term], ...] = ()

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return tuple(t for row in self.rows for t in row)


@dataclass(frozen=True)
class Part(Term):
    """Some entries of a tensor: ``index`` is the text between the brackets."""

    of: Term = Num(())
    index: str = ""
    by: tuple[Term, ...] = ()

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return (self.of, *self.by)


@dataclass(frozen=True)
class Contraction(Term):
    """Any contraction that is no chain of matrix products, with its einsum specification."""

    spec: str = ""
    args: tuple[Term, ...] = ()

    @cached_property
    def children(self) -> tuple[Term, ...]:
        return self.args


def subterms(term: Term) -> Iterator[Term]:
    """The term and everything in it."""
    stack = [term]
    while stack:
        inner = stack.pop()
        yield inner
        stack.extend(inner.children)


def word(text: str, shape: Shape = ()) -> Sym:
    """Literal text such as ``I`` or ``otherwise``."""
    return Sym(shape, text, "word")


def scaled(coefficient: Number, scalars: tuple[Term, ...], core: Term | None) -> Term:
    """``coefficient * scalars * core`` without empty wrappers; the scalars are already plain factors."""
    shape = () if core is None else core.shape
    if coefficient == 0:
        return Num(shape, 0)
    if isinstance(core, Num):
        coefficient, core = coefficient * core.value, Num(core.shape, 1)
        if not scalars:
            return Num(shape, coefficient)
    if core is None and not scalars:
        return Num((), coefficient)
    if coefficient == 1 and core is None and len(scalars) == 1:
        return scalars[0]
    if coefficient == 1 and core is not None and not scalars:
        return core
    return Product(shape, coefficient, scalars, core)


def parts(term: Term) -> tuple[Number, tuple[Term, ...], Term | None]:
    """The coefficient, the scalar factors and the core of a term."""
    if isinstance(term, Product):
        return term.coefficient, term.scalars, term.core
    if isinstance(term, Num):
        return term.value, (), (Num(term.shape, 1) if term.shape else None)
    if term.shape == ():
        return 1, (term,), None
    return 1, (), term


def negate(term: Term) -> Term:
    """``-term``; a sum changes the sign of each of its terms."""
    if isinstance(term, Sum):
        return add(Num(term.shape, 0), *(negate(t) for t in term.terms))
    coefficient, scalars, core = parts(term)
    return scaled(-coefficient, scalars, core)


def add(*terms: Term) -> Term:
    """The sum: flat, numbers last, equal terms collected, the first positive term in front."""
    shape = common_shape(terms)
    collected: dict[tuple[tuple[Term, ...], Term | None], Number] = {}
    for term in terms:
        for piece in term.terms if isinstance(term, Sum) and term.shape == shape else (term,):
            coefficient, scalars, core = parts(piece)
            if isinstance(core, Num):
                core = None  # a constant tensor adds the same number everywhere
            key = (scalars, core)
            collected[key] = collected.get(key, 0) + coefficient
    constant = collected.pop(((), None), 0)
    pieces = [scaled(c, scalars, core) for (scalars, core), c in collected.items() if c]
    first = next((i for i, t in enumerate(pieces) if parts(t)[0] > 0), 0)
    pieces = [*pieces[first : first + 1], *pieces[:first], *pieces[first + 1 :]]
    if pieces and parts(pieces[0])[0] < 0 and constant > 0:
        pieces.insert(0, Num((), constant))
    elif constant:
        pieces.append(Num((), constant))
    if not pieces:
        return Num(shape, 0)
    if len(pieces) == 1 and pieces[0].shape == shape:
        return pieces[0]
    if all(isinstance(p, Num) for p in pieces):
        return Num(shape, constant)
    return Sum(shape, tuple(pieces))


def power(base: Term, exponent: Term) -> Term:
    """``base ^ exponent`` with powers of powers and of products of numbers multiplied out."""
    if not isinstance(exponent, Num):
        return Power(common_shape((base, exponent)), base, exponent)
    n = exponent.value
    if n == 1:
        return base
    if n == 0:
        return Num(base.shape, 1)
    if isinstance(base, Num) and (base.value > 0 or (isinstance(n, int) and base.value != 0)):
        return Num(base.shape, tidy(base.value**n))
    if isinstance(base, Power) and isinstance(base.exponent, Num):
        inner = base.exponent.value
        if isinstance(n, int) or not (isinstance(inner, int) and inner % 2 == 0):  # (x^2)^0.5 is |x|
            return power(base.base, Num((), tidy(inner * n)))
    if isinstance(base, Product) and n == -1:
        scalars = tuple(power(t, exponent) for t in base.scalars)
        return scaled(tidy(1 / base.coefficient), scalars, base.core and power(base.core, exponent))
    if isinstance(base, Call) and base.function in ("column", "row"):
        return Call(base.shape, base.function, (power(base.args[0], exponent),))
    if isinstance(base, Hadamard) and n == -1:
        return Hadamard(base.shape, tuple(power(t, exponent) for t in base.factors))
    return Power(base.shape, base, Num((), n))


def merged(factors: tuple[Term, ...]) -> tuple[Term, ...]:
    """The same product with the powers of each base added up; the order is that of first appearance."""
    exponents: dict[Term, Number] = {}
    for factor in factors:
        base: Term = factor
        n: Number = 1
        if isinstance(factor, Power) and isinstance(factor.exponent, Num):
            base, n = factor.base, factor.exponent.value
        exponents[base] = tidy(exponents.get(base, 0) + n)
    return tuple(power(base, Num((), n)) for base, n in exponents.items() if n)


def tidy(value: Number) -> Number:
    """An integer where the value is one."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def common_shape(terms: tuple[Term, ...]) -> Shape:
    """The shape all of them broadcast to."""
    try:
        return broadcast_shapes([t.shape for t in terms])
    except ShapeError:  # the IR is typed, so this is a term whose shape was not tracked
        return max((t.shape for t in terms), key=len)
