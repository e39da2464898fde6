"""The passes that a backend may need while it lowers (``ir/derivations.py``)."""

from __future__ import annotations

from nldsl.ir.derivations import Derivations
from nldsl.ir.program import Program
from nldsl.passes.backward import backward, fitted
from nldsl.passes.derive import Derive
from nldsl.passes.ending import endings
from nldsl.passes.keep import keeping
from nldsl.passes.simplify import Simplify, simplify_body
from nldsl.passes.vjp import vjp


def derivations() -> Derivations:
    """All of them."""
    return Derivations(backward, vjp, fitted, simplify_body, expanded, endings, keeping)


def expanded(program: Program) -> Program:
    """A program with every ``grad`` expanded, simplified."""
    return Simplify().apply(Derive().apply(program))
