"""The parser tables: made from `grammar/nl.lark` by `generate`, kept in `grammar/tables.json`, run by `lr`.

Making the tables takes longer than checking a program, and reading them from JSON is both fast and harmless (lark's own
cache is a pickle). While the grammar is being worked on and the file is out of date, the tables are made in memory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .. import grammar as _grammar

__all__ = ["END", "GRAMMAR", "TABLES", "Message", "Production", "Tables", "decode", "digest", "load"]

GRAMMAR = Path(_grammar.__file__).with_name("nl.lark")
TABLES = GRAMMAR.with_name("tables.json")

END = "$END"


class Message(NamedTuple):
    """What is said when the parser is stuck in a state; `{found}` stands for what it found."""

    code: str
    text: str
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Production:
    """One way to write a rule, and how its node is made.

    `recipe` lists what the node is made of: the number of a symbol, which is passed on (or spliced, if its rule is
    inlined: then the number is written as its complement `~n`), or None for an optional part that is absent.
    """

    rule: str
    symbols: tuple[str, ...]
    recipe: tuple[int | None, ...]
    action: str  # method of the builder; "" passes a single child on, "*" makes a list to be spliced


@dataclass(frozen=True)
class Tables:
    """`actions[state][token]` is a state to go to, or the complement `~n` of the production to reduce.

    At the end of a whole file the token `$END` goes to some state, too.
    """

    terminals: tuple[tuple[str, str, bool], ...]  # name, pattern, whether the pattern is a plain text
    productions: tuple[Production, ...]
    actions: tuple[dict[str, int], ...]
    gotos: tuple[dict[str, int], ...]
    start: int
    messages: dict[int, Message]

    @property
    def keywords(self) -> dict[str, str]:
        """Reserved word to token name."""
        return {text: name for name, text, plain in self.terminals if plain and text.isalpha()}

    @property
    def operators(self) -> dict[str, str]:
        """Operator or bracket to token name."""
        return {text: name for name, text, plain in self.terminals if plain and not text.isalpha()}

    @property
    def patterns(self) -> dict[str, str]:
        """Token name to regular expression, for the tokens that are not plain texts."""
        return {name: text for name, text, plain in self.terminals if not plain}


def digest(grammar: bytes) -> str:
    """Name of a grammar's content; line ends do not count."""
    return hashlib.sha256(grammar.replace(b"\r\n", b"\n")).hexdigest()


@lru_cache(maxsize=1)
def load() -> Tables:
    """Read the tables; make them if they are not those of the grammar."""
    grammar = GRAMMAR.read_bytes()
    try:
        stored = json.loads(TABLES.read_bytes())
    except (OSError, ValueError):
        stored = {}
    if stored.get("grammar") != digest(grammar):
        from .generate import generate

        stored = generate(grammar)
    return decode(stored)


def decode(stored: dict[str, Any]) -> Tables:
    """Return the tables that are stored as values of JSON types."""
    symbols: list[str] = stored["symbols"]
    rows = [{symbols[row[i]]: row[i + 1] for i in range(0, len(row), 2)} for row in stored["rows"]]
    return Tables(
        tuple((name, pattern, plain) for name, pattern, plain in stored["terminals"]),
        tuple(
            Production(rule, tuple(symbols[s] for s in expansion), tuple(recipe), action)
            for rule, expansion, recipe, action in stored["productions"]
        ),
        tuple(rows[i] for i in stored["actions"]),
        tuple(rows[i] for i in stored["gotos"]),
        stored["start"],
        {
            state: Message(code, text, tuple(hints))
            for states, code, text, hints in stored.get("messages", ())
            for state in states
        },
    )
