"""Putting the body of a line where its name stands, by the laws that made the terms in the first place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from nldsl.explain.identify import fold
from nldsl.explain.product import chain, times, transpose
from nldsl.explain.terms import (
    Call,
    Cases,
    Chain,
    Compare,
    Contraction,
    Diag,
    Hadamard,
    Norm2,
    Part,
    Power,
    Product,
    Sum,
    Sym,
    Term,
    Transpose,
    add,
    power,
    scaled,
)


def substitute(term: Term, bodies: Mapping[Sym, Term]) -> Term:
    """The term with these names replaced."""
    if isinstance(term, Sym):
        return bodies.get(term, term)
    new = tuple(substitute(c, bodies) for c in term.children)
    return term if new == term.children else remade(term, new)


def remade(term: Term, new: tuple[Term, ...]) -> Term:
    """The term with other terms inside."""
    if isinstance(term, Sum):
        return add(*new)
    if isinstance(term, Product):
        result: Term = scaled(term.coefficient, (), None)
        for factor in new:
            result = times(result, factor)
        return result
    if isinstance(term, Chain):
        return chain(*new)
    if isinstance(term, Hadamard):
        product = new[0]
        for factor in new[1:]:
            product = times(product, factor)
        return fold(product)
    if isinstance(term, Power):
        return power(*new)
    if isinstance(term, Transpose):
        return transpose(new[0])
    if isinstance(term, Cases):
        return replace(term, rows=tuple(zip(new[::2], new[1::2], strict=True)))
    if isinstance(term, Part):
        return replace(term, of=new[0], by=new[1:])
    if isinstance(term, Compare):
        return replace(term, left=new[0], right=new[1])
    if isinstance(term, Diag | Norm2):
        return replace(term, of=new[0])
    assert isinstance(term, Call | Contraction), type(term)
    return replace(term, args=new)


def transformed(term: Term, rule: Callable[[Term], Term]) -> Term:
    """The term with a rule applied to every part of it, from the inside."""
    new = tuple(transformed(c, rule) for c in term.children)
    return rule(term if new == term.children else remade(term, new))


def occurrences(terms: list[Term]) -> Counter[Sym]:
    """How often each name is written."""
    found: Counter[Sym] = Counter()
    stack = list(terms)
    while stack:
        term = stack.pop()
        if isinstance(term, Sym):
            found[term] += 1
        else:
            stack.extend(term.children)
    return found
