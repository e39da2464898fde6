"""The parser tables: made from `grammar/nl.lark` by lark, kept in `grammar/tables.json`, run by `lr`.

`python -m nldsl.frontend.tables` writes the file anew. Making the tables takes longer than checking a program, and
reading them from JSON is both fast and harmless (lark's own cache is a pickle). While the grammar is being worked on
and the file is out of date, the tables are made in memory.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import grammar as _grammar

__all__ = ["Production", "Tables", "generate", "load"]

GRAMMAR = Path(_grammar.__file__).with_name("nl.lark")
TABLES = GRAMMAR.with_name("tables.json")

END = "$END"


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
        stored = generate(grammar)
    return _decode(stored)


def _decode(stored: dict[str, Any]) -> Tables:
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
    )


class _AsIs:
    """Stands for the filter of `lexer`, whose tokens the grammar declares."""

    always_accept = ("NEWLINE", "SEMICOLON", "LBRACE", "RBRACE")

    def process(self, stream: Any) -> Any:
        return stream


def generate(grammar: bytes, *, strict: bool = False) -> dict[str, Any]:
    """Make the tables with lark; what comes back is made of JSON types only."""
    from lark import Lark
    from lark.parsers.lalr_analysis import Shift

    made = Lark(grammar.decode(), parser="lalr", lexer="contextual", postlex=_AsIs(), strict=strict)
    table = made.parser.parser._parse_table  # lark has no public name for it

    numbers: dict[str, int] = {}
    rows: dict[tuple[int, ...], int] = {}

    def number(symbol: str) -> int:
        return numbers.setdefault(symbol, len(numbers))

    def row(entries: dict[str, int]) -> int:
        flat = tuple(x for symbol, to in sorted(entries.items()) for x in (number(symbol), to))
        return rows.setdefault(flat, len(rows))

    productions = {rule: n for n, rule in enumerate(made.rules)}
    # States are numbered anew in the order of a walk, so that the file depends on the grammar only.
    order = {table.start_states["start"]: 0}
    walk = [*order]
    for state in walk:
        for _, (kind, to) in sorted(table.states[state].items(), key=lambda entry: entry[0]):
            if kind is Shift and to not in order:
                order[to] = len(order)
                walk.append(to)
    actions: list[int] = []
    gotos: list[int] = []
    end = table.end_states["start"]
    for state in order:
        act: dict[str, int] = {END: order[end]} if state == end else {}
        goto: dict[str, int] = {}
        for symbol, (kind, to) in table.states[state].items():
            if kind is not Shift:
                act[symbol] = ~productions[to]
            elif symbol[0] == "$" or symbol.isupper():
                act[symbol] = order[to]
            else:
                goto[symbol] = order[to]
        actions.append(row(act))
        gotos.append(row(goto))
    return {
        "grammar": digest(grammar),
        "terminals": [[t.name, t.pattern.value, t.pattern.type == "str"] for t in made.terminals],
        "productions": [
            [rule.origin.name, [number(s.name) for s in rule.expansion], *_recipe(rule)] for rule in made.rules
        ],
        "actions": actions,
        "gotos": gotos,
        "rows": [list(r) for r in rows],
        "symbols": list(numbers),
        "start": 0,
    }


def _recipe(rule: Any) -> tuple[list[int | None], str]:
    recipe: list[int | None] = []
    absent = rule.options.empty_indices or (False,) * len(rule.expansion)
    at = 0
    for is_absent in absent:
        if is_absent:
            recipe.append(None)
            continue
        if at == len(rule.expansion):
            break
        symbol = rule.expansion[at]
        if not symbol.is_term:
            recipe.append(~at if symbol.name.startswith("_") else at)
        elif not symbol.filter_out:
            recipe.append(at)
        at += 1
    assert at == len(rule.expansion), f"{rule} has symbols left over"
    if rule.origin.name.startswith("_"):
        return recipe, "*"
    if rule.options.expand1 and rule.alias is None:
        assert len(recipe) == 1, f"{rule} vanishes, so it must have one child"
        return recipe, ""
    return recipe, rule.alias or rule.origin.name


def write() -> None:
    """Write `grammar/tables.json` anew."""
    text = json.dumps(generate(GRAMMAR.read_bytes()), separators=(",", ":")) + "\n"
    TABLES.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
