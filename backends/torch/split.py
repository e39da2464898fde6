"""A function that has grown too long becomes several: consecutive statements move to functions of their own.

What a part reads of earlier lines are its arguments, what later lines read of it are its results.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import add_call

LONGEST = 2000


@dataclass
class Piece:
    """Lines of whole statements, with the names they read and assign."""

    lines: list[str]
    reads: set[str]
    writes: set[str]


def split(scope: Scope, new_part: Callable[[str, str], Scope], longest: int = LONGEST) -> list[Scope]:
    """The functions to write instead of this one, in order; the last one is the function itself, made shorter."""
    if len(scope.code.lines) <= longest:
        return [scope]
    pieces = _pieces(scope.code.lines, longest * 2 // 5)
    head = scope.unpacking + scope.head()
    known = set(scope.arguments) | _assigned(head)
    later = [set[str]() for _ in pieces]
    for i in reversed(range(len(pieces) - 1)):
        later[i] = later[i + 1] | pieces[i + 1].reads
    parts: list[Scope] = []
    scope.code.lines = []
    for i, piece in enumerate(pieces[:-1]):
        made = new_part(f"{scope.name}_part", f"Part {i + 1} of {scope.name}.")
        made.arguments = sorted(piece.reads & known)
        results = sorted(piece.writes & later[i])
        made.code.lines = piece.lines
        if results:
            made.code.add(f"return {', '.join(results)}")
        parts.append(made)
        if results:
            add_call(scope.code, results, made.name, made.arguments)
        known |= piece.writes
    scope.code.lines += pieces[-1].lines
    return [*parts, scope]


def _pieces(lines: list[str], part: int) -> list[Piece]:
    """The statements in groups of at most about ``part`` lines; the last group begins with the results."""
    tree = ast.parse("\n".join(_as_function(lines)))
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    pieces = [Piece([], set(), set())]
    begin = 0
    for statement in function.body:
        end = (statement.end_lineno or statement.lineno) - 1
        results = isinstance(statement, ast.Assign) and "outputs" in _names(statement, ast.Store)
        if pieces[-1].lines and (results or len(pieces[-1].lines) + end - begin > part):
            pieces.append(Piece([], set(), set()))
        pieces[-1].lines += lines[begin:end]
        written = _names(statement, ast.Store)
        pieces[-1].reads |= _names(statement, ast.Load)
        pieces[-1].reads |= set() if isinstance(statement, ast.Assign) else written  # in an ``if``: perhaps not written
        pieces[-1].writes |= written
        begin = end
        if results:
            rest = function.body[function.body.index(statement) + 1 :]
            pieces[-1].lines += lines[begin:]
            for other in rest:
                pieces[-1].reads |= _names(other, ast.Load)
            break
    else:
        pieces[-1].lines += lines[begin:]
    return pieces


def _as_function(lines: list[str]) -> list[str]:
    return ["def f():", *(" " + line for line in lines)]


def _assigned(lines: list[str]) -> set[str]:
    return _names(ast.parse("\n".join(_as_function([*lines, "pass"]))), ast.Store)


def _names(node: ast.AST, context: type[ast.expr_context]) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}
