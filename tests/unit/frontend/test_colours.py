"""The highlighters know the words of the language."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pygments.token import Comment, Error, Keyword, Name, Operator, String

from nldsl.frontend.pygments_lexer import CONSTANTS, DECLARATIONS, OPERATOR_WORDS, NldslLexer
from nldsl.frontend.tables import GRAMMAR, load

PROGRAMS = sorted((Path(__file__).parents[2] / "programs" / "syntax").glob("*.nl"))


def test_words_are_keywords() -> None:
    assert set(load().keywords) >= DECLARATIONS | CONSTANTS | OPERATOR_WORDS


def test_tokens() -> None:
    text = '## doc\nmemory M(d: dim) {\n  state S: [d] = 0.5 # c\n  read() = S @ "a\\n"\n}\n'
    found = [(kind, piece) for kind, piece in NldslLexer().get_tokens(text) if piece.strip()]
    for expected in (
        (Comment.Special, "## doc"),
        (Keyword.Declaration, "memory"),
        (Name.Class, "M"),
        (Keyword.Type, "dim"),
        (Keyword.Declaration, "state"),
        (Comment.Single, "# c"),
        (Name.Function, "read"),
        (Operator, "@"),
        (String.Escape, "\\n"),
    ):
        assert expected in found


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_nothing_is_lost(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    pieces = list(NldslLexer(stripnl=False, ensurenl=False).get_tokens(text))
    assert "".join(piece for _, piece in pieces) == text
    assert all(kind is not Error for kind, _ in pieces)


def test_textmate() -> None:
    grammar = json.loads(GRAMMAR.with_name("nl.tmLanguage.json").read_text(encoding="utf-8"))
    patterns = [p["match"] for p in grammar["repository"]["keyword"]["patterns"]]
    listed = {word for pattern in patterns for word in re.findall(r"[a-z]{2,}", pattern)}
    assert listed == set(load().keywords)
    for entry in grammar["patterns"]:
        assert entry["include"].removeprefix("#") in grammar["repository"]
