"""Text to syntax tree."""

from __future__ import annotations

from ..diagnostics import DiagnosticBag
from ..limits import Limits
from ..source import SourceFile
from . import ast
from .build import Builder, Comments
from .lexer import arrange, scan
from .lr import Failure, TooDeepError
from .lr import parse as run
from .tables import load
from .text import check_text

__all__ = ["parse"]


def parse(source: SourceFile, bag: DiagnosticBag, limits: Limits | None = None) -> ast.File | None:
    """Return the tree of a file, or None after reporting what is wrong with its text."""
    limits = limits or Limits()
    found = DiagnosticBag(bag.limit)
    tree = _parse(source, found, limits)
    bag.extend(found)
    return None if found.has_errors else tree


def _parse(source: SourceFile, bag: DiagnosticBag, limits: Limits) -> ast.File | None:
    if not check_text(source, bag, limits):
        return None
    scanned = scan(source, bag, limits)
    if scanned is None:
        return None
    tables = load()
    tokens, damaged = arrange(source, scanned.tokens, bag)
    if bag.is_full:
        return None
    builder = Builder(source, Comments(source, scanned.comments, tokens[0].start), bag)

    def fail(failure: Failure) -> bool:
        from . import syntax_errors  # most programs are right

        at = tokens[failure.at].start
        if not any(start <= at <= end for start, end in damaged):
            syntax_errors.report(tables, source, bag, failure)
        return not bag.is_full

    try:
        tree = run(
            tables, tokens, builder.actions(tables), limits.depth, fail, lambda offset: source.position(offset)[1]
        )
    except TooDeepError as error:
        bag.error(
            "NL0006",
            source.span(error.start, min(error.end, error.start + 1)),
            f"the text is nested more than {limits.depth} deep",
            hints=("give the inner parts names",),
        )
        return None
    assert tree is None or isinstance(tree, ast.File)
    return tree
