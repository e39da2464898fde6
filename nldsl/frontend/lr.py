"""Runs the parser tables: a shift-reduce loop without recursion, with recovery at the ends of statements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .lexer import ERROR, Token
from .tables import END, Tables

__all__ = ["Action", "Failure", "TooDeepError", "accepted", "advance", "parse", "settled"]

Action = Callable[[list[Any], int, int], Any]


class TooDeepError(Exception):
    """The tree would be deeper than the limit; `start` and `end` are those of the node too many."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.start = start
        self.end = end


class Failure(NamedTuple):
    """Where the parser got stuck: `tokens[at]` does not fit.

    `stack` are the states after the token before; `statement` is the number of the first token of the statement,
    `blocks` that of the blocks around it.
    """

    stack: list[int]
    tokens: Sequence[Token]
    at: int
    statement: int
    blocks: int


# What stands in for the head of a block that could not be read, so that its inside can be.
_HEAD_OUTSIDE = ("MEMORY", "NAME")
_HEAD_INSIDE = ("IF", "TRUE")


def parse(
    tables: Tables,
    tokens: Sequence[Token],
    actions: Sequence[Action | None],
    depth: int,
    fail: Callable[[Failure], bool],
    column: Callable[[int], int] = lambda offset: 0,
) -> Any:
    """Parse; `fail` is told of every error and says whether to go on. Return the value of the start rule, or None.

    `column` tells how far a token is indented: after an error the lines that are indented further are its body.
    """
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
                    values.append(None if failed else action(children, start, end))
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
        if kind != ERROR:
            stack = advance(tables, states[: marks[-1]], (t.type for t in tokens[statement:i]))
            if not fail(Failure(stack or states, tokens, i, statement, len(marks) - 1)):
                return None
        if kind == END:
            return None
        height = marks[-1]
        i = _resume(tokens, i, statement, column)
        head: tuple[str, ...] = ()
        if tokens[i].type == "LBRACE":
            head = _HEAD_OUTSIDE if len(marks) == 1 else _HEAD_INSIDE
        else:
            statement = i
        stack = advance(tables, states[:height], head)
        assert stack is not None
        states = stack
        added = len(states) - height
        values[height:] = [[]] * added
        starts[height:] = [tokens[i].start] * added
        ends[height:] = [tokens[i].start] * added
        depths[height:] = [0] * added


def _resume(tokens: Sequence[Token], i: int, statement: int, column: Callable[[int], int]) -> int:
    """Number of the token with which to go on.

    That is the first of the next statement, the brace that opens the block of this one, the brace that closes the block
    around it, or the end.
    """
    indent = column(tokens[statement].start)
    while tokens[i].type not in (END, "LBRACE", "RBRACE"):
        i += 1
        if tokens[i - 1].type == "_SEP" and column(tokens[i].start) <= indent:
            break
    return i


def advance(tables: Tables, states: list[int], kinds: Iterable[str]) -> list[int] | None:
    """Return the stack after reading tokens of these types; None if one does not fit."""
    stack = list(states)
    for kind in kinds:
        while True:
            to = tables.actions[stack[-1]].get(kind)
            if to is None:
                return None
            if to >= 0:
                stack.append(to)
                break
            production = tables.productions[~to]
            if production.symbols:
                del stack[-len(production.symbols) :]
            stack.append(tables.gotos[stack[-1]][production.rule])
    return stack


# Rules that are completed, whatever follows, to see what they are a part of.
_PARTS = frozenset(
    "names params type clock expr choice disjunction conjunction negation comparison sum product matrix sign power "
    "reduction postfix primary".split()
)
_WHOLES = frozenset(["_statement", "_item"])


def settled(tables: Tables, states: list[int]) -> int:
    """State of the parser once the names, types and expressions that may be complete are taken as complete.

    After `state S: [d]` that is the state in the middle of a `state` statement, not the one at the end of some type.
    """
    stack = list(states)
    while True:
        reductions = {to for to in tables.actions[stack[-1]].values() if to < 0}
        if len(reductions) != 1:
            return stack[-1]
        production = tables.productions[~reductions.pop()]
        rule = production.rule
        if not (rule in _PARTS or (rule.startswith("_") and rule not in _WHOLES and "_lines" not in rule)):
            return stack[-1]
        if production.symbols:
            del stack[-len(production.symbols) :]
        stack.append(tables.gotos[stack[-1]][rule])


def accepted(tables: Tables, states: list[int]) -> frozenset[str]:
    """Token types with which the text could go on."""
    return frozenset(kind for kind in tables.actions[states[-1]] if advance(tables, states, [kind]) is not None)
