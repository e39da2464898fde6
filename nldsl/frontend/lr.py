"""Runs the parser tables: a shift-reduce loop without recursion, with recovery at the ends of statements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .lexer import ERROR, Token
from .tables import END, Tables

__all__ = ["Failure", "TooDeepError", "accepted", "parse"]

Action = Callable[[list[Any], int, int], Any]


class TooDeepError(Exception):
    """The tree would be deeper than the limit; `start` and `end` are those of the node too many."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.start = start
        self.end = end


class Failure(NamedTuple):
    """Where the parser got stuck: `tokens[at]` fits none of the continuations of the state on top of `states`."""

    states: list[int]
    tokens: Sequence[Token]
    at: int
    statement: int  # number of the first token of the statement


def parse(
    tables: Tables,
    tokens: Sequence[Token],
    actions: Sequence[Action | None],
    depth: int,
    fail: Callable[[Failure], bool],
) -> Any:
    """Parse; `fail` is told of every error and says whether to go on. Return the value of the start rule, or None."""
    rows, gotos, productions = tables.actions, tables.gotos, tables.productions
    reductions = [
        (len(p.symbols), p.rule, p.recipe, p.action == "", action)
        for p, action in zip(productions, actions, strict=True)
    ]
    states = [tables.start]
    values: list[Any] = [None]
    starts = [0]
    ends = [0]
    depths = [0]
    marks = [1]  # for each open block: height of the stack where its next statement begins
    most = 16 * depth
    failed = False
    statement = 0
    i = 0
    while True:
        token = tokens[i]
        kind = token.type
        to = rows[states[-1]].get(kind)
        while to is not None and to < 0:
            length, rule, recipe, passes, action = reductions[~to]
            if passes:
                states[-1] = gotos[states[-2]][rule]
            else:
                if length:
                    children: list[Any] = []
                    below = values[-length:]
                    for step in recipe:
                        if step is None:
                            children.append(None)
                        elif step >= 0:
                            children.append(below[step])
                        elif children:
                            children += below[~step]
                        else:
                            children = below[~step]
                    start = starts[-length]
                    end = ends[-1]
                    deepest = max(depths[-length:])
                    del states[-length:], values[-length:], starts[-length:], ends[-length:], depths[-length:]
                else:
                    children = []
                    start = end = token.start
                    deepest = 0
                if action is None:
                    values.append(children)
                else:
                    deepest += 1
                    if deepest > depth:
                        raise TooDeepError(start, end)
                    values.append(action(children, start, end))
                starts.append(start)
                ends.append(end)
                depths.append(deepest)
                states.append(gotos[states[-1]][rule])
            to = rows[states[-1]].get(kind)
        if to is not None:
            if kind == END:
                return None if failed else values[-1]
            states.append(to)
            values.append(token)
            starts.append(token.start)
            ends.append(token.end)
            depths.append(0)
            i += 1
            if kind == "_SEP":
                marks[-1] = len(states)
                statement = i
            elif kind == "LBRACE":
                marks.append(len(states))
                statement = i
            elif kind == "RBRACE":
                marks.pop()
            elif len(states) > most:
                raise TooDeepError(token.start, token.end)
            continue
        failed = True
        if (kind != ERROR and not fail(Failure(states, tokens, i, statement))) or kind == END:
            return None
        del states[marks[-1] :], values[marks[-1] :], starts[marks[-1] :], ends[marks[-1] :], depths[marks[-1] :]
        i = statement = _skip(tokens, i)


def _skip(tokens: Sequence[Token], i: int) -> int:
    """Number of the token with which the next statement begins, or of the brace or end that closes the block."""
    inside = 0
    while True:
        kind = tokens[i].type
        if kind == END:
            return i
        if kind == "LBRACE":
            inside += 1
        elif kind == "RBRACE":
            if inside == 0:
                return i
            inside -= 1
        elif kind == "_SEP" and inside == 0:
            return i + 1
        i += 1


def accepted(tables: Tables, states: Sequence[int]) -> frozenset[str]:
    """Token types with which the text could go on."""
    return frozenset(kind for kind in tables.actions[states[-1]] if _accepts(tables, states, kind))


def _accepts(tables: Tables, states: Sequence[int], kind: str) -> bool:
    stack = list(states)
    while True:
        to = tables.actions[stack[-1]].get(kind)
        if to is None:
            return False
        if to >= 0:
            return True
        production = tables.productions[~to]
        if production.symbols:
            del stack[-len(production.symbols) :]
        stack.append(tables.gotos[stack[-1]][production.rule])
