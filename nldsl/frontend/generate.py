"""Makes the parser tables with lark, and ties the messages of `grammar/syntax_errors` to them.

`python -m nldsl.frontend.generate` writes `grammar/tables.json` anew. The compiler does this in memory only while the
file is out of date.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .tables import END, GRAMMAR, TABLES, Message, Tables, decode, digest

__all__ = ["Example", "complete", "examples", "generate", "stuck"]

ERRORS = GRAMMAR.with_name("syntax_errors")


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


# ---------------------------------------------------------------- messages by example


@dataclass(frozen=True)
class Example:
    """Programs that are wrong in one way, and what is said about them.

    A file of `grammar/syntax_errors` is a sequence of these. A line `== text` begins one; `-- text` is a hint; what
    follows are programs, parted by lines `++`. Each is wrong in one place, and what the parser has read until then
    is what the message is for: it is given wherever the parser is stuck in that state.
    """

    message: Message
    programs: tuple[str, ...]
    where: str


def examples(folder: Path = ERRORS) -> list[Example]:
    """Read all files of examples."""
    found: list[Example] = []
    for path in sorted(folder.glob("*.txt")):
        for number, part in enumerate(path.read_text(encoding="utf-8").split("\n== ")[1:], 1):
            text, *lines = part.split("\n")
            hints = []
            while lines and lines[0].startswith("-- "):
                hints.append(lines.pop(0)[3:])
            programs = "\n".join(lines).split("\n++\n")
            message = Message("NL0101", text.strip(), tuple(hints))
            found.append(
                Example(message, tuple(p.strip("\n") + "\n" for p in programs), f"{path.name}, entry {number}")
            )
    return found


def stuck(tables: Tables, program: str) -> int | None:
    """Return the settled state in which the parser is first stuck, None if it is not."""
    from ..diagnostics import DiagnosticBag
    from ..limits import Limits
    from ..source import SourceFile
    from .lexer import arrange, scan
    from .lr import Failure, parse, settled

    source = SourceFile("example", program)
    bag = DiagnosticBag()
    scanned = scan(source, bag, Limits())
    assert scanned is not None
    found: list[int] = []

    def fail(failure: Failure) -> bool:
        found.append(settled(tables, failure.stack))
        return False

    parse(tables, arrange(source, scanned.tokens, bag).tokens, [None] * len(tables.productions), 10**6, fail)
    return found[0] if found else None


def complete(stored: dict[str, Any]) -> dict[str, Any]:
    """Add the messages to tables."""
    tables = decode(stored)
    of_state: dict[int, tuple[Message, str]] = {}
    wrong: list[str] = []
    for example in examples():
        for program in example.programs:
            state = stuck(tables, program)
            if state is None:
                wrong.append(f"{example.where}: the parser is nowhere stuck in\n{program}")
                continue
            other = of_state.setdefault(state, (example.message, example.where))
            if other[0] != example.message:
                wrong.append(f"{example.where}: {other[1]} says something else about\n{program}")
    if wrong:
        raise ValueError("\n".join(wrong))
    by_message: dict[Message, list[int]] = {}
    for state, (message, _) in sorted(of_state.items()):
        by_message.setdefault(message, []).append(state)
    return {**stored, "messages": [[states, *message] for message, states in by_message.items()]}


def write() -> None:
    """Write `grammar/tables.json` anew."""
    text = json.dumps(complete(generate(GRAMMAR.read_bytes())), separators=(",", ":")) + "\n"
    TABLES.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    write()
