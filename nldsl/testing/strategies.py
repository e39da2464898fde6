"""Hypothesis strategies for programs."""

from __future__ import annotations

from hypothesis import strategies as st

from nldsl.frontend import ast

from .programs import Maker
from .unparse import layout, tokens

__all__ = ["programs", "texts", "trees"]


@st.composite
def trees(draw: st.DrawFn, budget: int = 60) -> ast.File:
    """Syntax trees of whole files."""
    return Maker(lambda count: draw(st.integers(0, count - 1)), budget).file()


@st.composite
def programs(draw: st.DrawFn, budget: int = 60) -> tuple[ast.File, str]:
    """Syntax trees with a text that stands for them, in any layout."""
    tree = draw(trees(budget))
    random = draw(st.randoms(use_true_random=False))
    return tree, layout(tokens(tree), random.randrange)


@st.composite
def texts(draw: st.DrawFn, budget: int = 60) -> str:
    """Programs as text."""
    return draw(programs(budget))[1]
