"""The value of a term, to check that what is printed is what the IR computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nldsl.explain.product import is_row
from nldsl.explain.terms import (
    Call,
    Chain,
    Compare,
    Contraction,
    Diag,
    Hadamard,
    Norm2,
    Num,
    Power,
    Product,
    Sum,
    Sym,
    Term,
    Transpose,
)

Array = NDArray[Any]


def _sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


def _softmax(z: Array) -> Array:
    power = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(power / power.sum(-1, keepdims=True))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "silu": lambda z: z * _sigmoid(z),
    "silu′": lambda z: _sigmoid(z) * (1 + z * (1 - _sigmoid(z))),
    "sum": np.sum,
    "mean": np.mean,
    "inner": lambda a, b: np.sum(a * b),
    "softmax": _softmax,
    "column": lambda a: a[:, None],
    "row": lambda a: a[None, :],
    "inverse": np.linalg.inv,
    "sg": lambda a: a,
}


def evaluate(term: Term, names: Mapping[Sym, Array]) -> Array:
    """The value of a term, given those of its names."""
    return np.asarray(_value(term, names))


def _value(term: Term, names: Mapping[Sym, Array]) -> Any:
    def of(inner: Term) -> Any:
        return _value(inner, names)

    match term:
        case Num():
            return np.full(tuple(int(str(s)) for s in term.shape), term.value, dtype=np.float64)
        case Sym(name="I", kind="word"):
            return np.eye(int(str(term.shape[0])))
        case Sym():
            return names[term]
        case Sum():
            return reduce(np.add, [of(t) for t in term.terms])
        case Product():
            return term.coefficient * reduce(np.multiply, [of(t) for t in term.children])
        case Chain():
            return _chain([(of(f), is_row(f)) for f in term.factors])
        case Hadamard():
            return reduce(np.multiply, [of(f) for f in term.factors])
        case Power():
            return of(term.base) ** of(term.exponent)
        case Transpose():
            return of(term.of).T
        case Diag():
            return np.diag(of(term.of))
        case Norm2():
            return np.sum(of(term.of) ** 2)
        case Compare(relation="eq"):
            return np.asarray(of(term.left) == of(term.right), np.float64)
        case Contraction():
            return np.einsum(term.spec, *[of(a) for a in term.args])
        case Call():
            return FUNCTIONS[term.function](*[of(a) for a in term.args])
    raise AssertionError(f"no value for {term}")


def _chain(factors: list[tuple[Array, bool]]) -> Array:
    """Vectors as columns or rows of a matrix; the axes added for that are dropped at the end."""
    matrices = [(a[None, :] if row else a[:, None]) if a.ndim == 1 else a for a, row in factors]
    product = reduce(np.matmul, matrices)
    if factors[0][1]:
        product = product[0]
    return np.asarray(product[..., 0] if factors[-1][0].ndim == 1 and not factors[-1][1] else product)
