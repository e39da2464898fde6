"""Contractions as matrix products, and the laws that keep terms readable."""

from __future__ import annotations

import pytest

from nldsl.dims import symbol
from nldsl.explain.product import chain, contract, divide, times, transpose
from nldsl.explain.terms import Num, Sym, Term, add, negate, power
from nldsl.explain.text import TextPrinter

M, N = symbol("m"), symbol("n")
A, B, C = Sym((M, N), "A"), Sym((M, N), "B"), Sym((N, N), "C")
X, Y, U = Sym((N,), "x"), Sym((N,), "y"), Sym((M,), "u")
R, S = Sym((), "r"), Sym((), "s")


def shown(term: Term) -> str:
    return TextPrinter().term(term)


@pytest.mark.parametrize(
    ("spec", "args", "text"),
    [
        ("ij,j->i", [A, X], "A x"),
        ("ij,i->j", [A, U], "Aᵀ u"),
        ("i,j->ij", [U, X], "u xᵀ"),
        ("ij,kj->ik", [A, B], "A Bᵀ"),
        ("ji,jk->ik", [A, B], "Aᵀ B"),
        ("ij,jk,k->i", [A, C, X], "A C x"),
        ("i,ij,j->", [U, A, X], "uᵀ A x"),
        ("i,i->", [X, Y], "xᵀ y"),
        ("i,i->", [X, X], "‖x‖²"),
        ("ij,ij->", [A, B], "inner(A, B)"),
        ("ij,ij->", [A, A], "‖A‖²"),
        ("ij,ij->ij", [A, B], "A ⊙ B"),
        ("ij,j->ij", [A, X], "A diag(x)"),
        ("i,ij->ij", [U, A], "diag(u) A"),
        ("ij,j,j->i", [A, X, Y], "A (x ⊙ y)"),
        ("i,i->i", [X, Y], "x ⊙ y"),
        (",ij->ij", [R, A], "r·A"),
        ("ij->ji", [A], "Aᵀ"),
        ("ij->i", [A], "sum(A, axis = 1)"),
        ("ij->j", [A], "sum(A, axis = 0)"),
        ("i->", [X], "sum(x)"),
        ("i,j,k->ij", [U, X, Y], "sum(y)·u xᵀ"),
        ("ij,ij->i", [A, B], "sum(A ⊙ B, axis = 1)"),
        ("ii->i", [C], 'einsum("ii->i", C)'),
    ],
)
def test_contractions(spec: str, args: list[Term], text: str) -> None:
    assert shown(contract(spec, args)) == text


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (add(negate(X), Y), "y − x"),
        (add(X, X), "2·x"),
        (add(X, negate(X)), "0"),
        (add(Num((), 1), negate(R)), "1 − r"),
        (negate(add(X, negate(Y))), "y − x"),
        (times(times(R, X), times(S, Y)), "r·s·(x ⊙ y)"),
        (times(R, R), "r²"),
        (divide(X, power(R, Num((), 0.5))), "x / √r"),
        (divide(X, Num((), 4)), "0.25·x"),
        (divide(times(R, X), add(S, Num((), 1))), "r·x / (s + 1)"),
        (divide(divide(Num((), 1), R), S), "1 / (r·s)"),
        (times(A, X), "A diag(x)"),
        (chain(A, transpose(A), U), "A Aᵀ u"),
        (chain(C, C, C, X), "C³ x"),
        (transpose(transpose(A)), "A"),
        (times(Num((), -1), chain(A, X)), "−A x"),
        (add(U, negate(times(R, chain(A, add(X, negate(Y)))))), "u − r·A (x − y)"),
    ],
)
def test_laws(term: Term, text: str) -> None:
    assert shown(term) == text
