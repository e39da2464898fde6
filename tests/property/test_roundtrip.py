"""Random programs in random layouts: parsing them gives the tree they were made from, and formatting keeps it."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from nldsl.diagnostics import DiagnosticBag
from nldsl.frontend import ast
from nldsl.frontend.format import format_source
from nldsl.frontend.parse import parse
from nldsl.source import SourceFile
from nldsl.testing.strategies import programs, trees
from nldsl.testing.unparse import unparse

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def parsed(text: str) -> ast.File | None:
    return parse(SourceFile("random.nl", text), DiagnosticBag())


@SLOW
@given(trees())
def test_parse_is_the_inverse_of_unparse(tree: ast.File) -> None:
    assert parsed(unparse(tree)) == tree


@SLOW
@given(programs())
def test_layout_does_not_matter(program: tuple[ast.File, str]) -> None:
    tree, text = program
    assert parsed(text) == tree


@SLOW
@given(programs())
def test_format(program: tuple[ast.File, str]) -> None:
    tree, text = program
    formatted = format_source(text)
    assert parsed(formatted) == tree
    assert format_source(formatted) == formatted
