"""The tables that ship are those of the grammar, and the grammar is what the documents say."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nldsl.diagnostics import DiagnosticBag
from nldsl.frontend.generate import complete, examples, generate, stuck
from nldsl.frontend.lexer import arrange, scan
from nldsl.frontend.parse import parse
from nldsl.frontend.tables import END, GRAMMAR, TABLES, decode, digest, load
from nldsl.limits import Limits
from nldsl.source import SourceFile
from nldsl.testing.programs import Maker
from nldsl.testing.unparse import unparse


def programs() -> list[str]:
    made = []
    for seed in range(20):
        rng = random.Random(seed)
        made.append(unparse(Maker(rng.randrange, 80).file()))
    return made


def test_shipped_tables_are_those_of_the_grammar() -> None:
    made = complete(generate(GRAMMAR.read_bytes()))
    assert json.loads(TABLES.read_bytes()) == json.loads(json.dumps(made)), "run `python -m nldsl.frontend.generate`"


def test_grammar_has_no_conflicts_and_no_colliding_tokens() -> None:
    pytest.importorskip("interegular")
    generate(GRAMMAR.read_bytes(), strict=True)


def test_tables_are_made_when_they_are_out_of_date(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed = tmp_path / "nl.lark"
    changed.write_bytes(GRAMMAR.read_bytes().replace(b'REPEAT: "repeat"', b"") + b"\n// changed\n")
    monkeypatch.setattr("nldsl.frontend.tables.GRAMMAR", changed)
    load.cache_clear()
    try:
        assert load().actions == decode(json.loads(TABLES.read_bytes())).actions
    finally:
        load.cache_clear()


def test_line_ends_of_the_grammar_do_not_count() -> None:
    assert digest(b"a\r\nb\n") == digest(b"a\nb\n")


def test_reading_a_program_needs_no_lark() -> None:
    code = (
        "from nldsl.frontend.parse import parse; from nldsl.diagnostics import DiagnosticBag;"
        "from nldsl.source import SourceFile; import sys;"
        "assert parse(SourceFile('a', 'x = 1'), DiagnosticBag()); assert 'lark' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def lark_accepts(text: str, cache: list[Any] = []) -> bool:  # noqa: B006  the parser is made once
    """Whether lark's own parser accepts the arranged tokens."""
    from lark import Lark, Token, UnexpectedInput
    from lark.lexer import Lexer

    class Arranged(Lexer):
        def __init__(self, conf: Any) -> None:
            pass

        def lex(self, data: Any, parser_state: Any = None) -> Iterator[Token]:
            source, bag = SourceFile("x", data), DiagnosticBag()
            scanned = scan(source, bag, Limits())
            assert scanned is not None
            for token in arrange(source, scanned.tokens, bag).tokens:
                if token.type != END:
                    yield Token(token.type, token.text)

    if not cache:
        cache.append(Lark(GRAMMAR.read_text(encoding="utf-8"), parser="lalr", lexer=Arranged))
    try:
        cache[0].parse(text)
    except UnexpectedInput:
        return False
    return True


def test_same_language_as_larks_parser() -> None:
    rng = random.Random(1)
    accepted = 0
    texts = programs()
    for text in texts:
        assert lark_accepts(text)
    for _ in range(400):
        words = re.findall(r"\w+|\s+|.", rng.choice(texts))
        for _ in range(rng.randrange(1, 3)):
            if words:
                at = rng.randrange(len(words))
                words[at : at + rng.randrange(2)] = [rng.choice(words)] if rng.random() < 0.5 else []
        text = "".join(words)
        bag = DiagnosticBag()
        ours = parse(SourceFile("x", text), bag) is not None
        if any(d.code != "NL0101" and d.code < "NL0110" for d in bag):
            continue  # lark is not asked about characters
        assert ours == lark_accepts(text) or any(d.code in ("NL0111", "NL0112", "NL0113", "NL0121") for d in bag), text
        accepted += ours
    assert accepted > 50


def test_same_tokens_as_larks_lexer() -> None:
    from lark import Lark

    class AsIs:
        always_accept = ("NEWLINE", "SEMICOLON")

        def process(self, stream: Any) -> Any:
            return stream

    theirs = Lark(GRAMMAR.read_text(encoding="utf-8"), parser="lalr", lexer="basic", postlex=AsIs())
    for text in programs():
        source = SourceFile("x", text)
        ours = scan(source, DiagnosticBag(), Limits())
        assert ours is not None
        expected = [(str(t.type), str(t)) for t in theirs.lex(text)]
        assert [(t.type, t.text) for t in ours.tokens[:-1]] == expected


def test_keywords_are_those_of_the_documents(repository: Path) -> None:
    keywords = set(load().keywords)
    reference = (repository / "docs" / "reference" / "language.md").read_text(encoding="utf-8")
    listed = re.search(r"Keywords \(reserved\): `([a-z\s]+)`", reference)
    assert listed is not None
    assert set(listed.group(1).split()) == keywords
    readme = (repository / "grammar" / "README.md").read_text(encoding="utf-8").partition("## Reserved words")[2]
    assert set(readme.split("`")[1].split()) == keywords
    page = (repository / "nldsl" / "diagnostics" / "codes" / "NL0110.md").read_text(encoding="utf-8")
    assert set(" ".join(re.findall(r"^    (.*)$", page, re.MULTILINE)).split()) == keywords


@pytest.mark.parametrize("example", examples(), ids=lambda e: e.where)
def test_examples_of_messages_give_their_message(example: Any) -> None:
    tables = load()
    for program in example.programs:
        state = stuck(tables, program)
        assert state is not None
        assert tables.messages[state] == example.message


def test_most_states_have_a_message() -> None:
    """A ratchet: states that begin something other than an expression and have no message of their own."""
    tables = load()
    silent = [
        state
        for state, row in enumerate(tables.actions)
        if state not in tables.messages and "NUMBER" not in row and len({to for to in row.values() if to < 0}) == 0
    ]
    assert len(silent) <= 15, sorted(silent)
