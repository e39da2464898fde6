"""Colours for programs in documents: the lexer `nldsl` of Pygments."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import (
    Comment,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    Whitespace,
)

from .tables import load

__all__ = ["NldslLexer"]

DECLARATIONS = frozenset(
    "fn objective retention memory block model example optimizer state param input level import from as".split()
)
CONSTANTS = frozenset(["true", "false"])
OPERATOR_WORDS = frozenset(["and", "or", "not", "in", "of"])
KEYWORDS = frozenset(load().keywords)
TYPES = frozenset("dim int real bool text list init".split())
CLOCKS = frozenset(["token", "step", "tick", "sequence"])


class NldslLexer(RegexLexer):  # type: ignore[misc]
    """Programs of nldsl."""

    name = "nldsl"
    aliases: ClassVar[list[str]] = ["nldsl", "nl"]
    filenames: ClassVar[list[str]] = ["*.nl"]
    url = ""

    tokens: ClassVar[dict[str, list[object]]] = {
        "root": [
            (r"\s+", Whitespace),
            (r"##[^\n]*", Comment.Special),
            (r"#[^\n]*", Comment.Single),
            (r'"', String.Double, "string"),
            (
                r"\b(fn|objective|retention|memory|block|model)(\s+)([A-Za-z_]\w*)(?=\s*[({])",
                bygroups(Keyword.Declaration, Whitespace, Name.Class),
            ),
            (words(sorted(DECLARATIONS), prefix=r"\b", suffix=r"\b"), Keyword.Declaration),
            (words(sorted(CONSTANTS), prefix=r"\b", suffix=r"\b"), Keyword.Constant),
            (words(sorted(OPERATOR_WORDS), prefix=r"\b", suffix=r"\b"), Operator.Word),
            (
                words(sorted(KEYWORDS - DECLARATIONS - CONSTANTS - OPERATOR_WORDS), prefix=r"\b", suffix=r"\b"),
                Keyword,
            ),
            (words(sorted(TYPES), prefix=r"\b", suffix=r"\b"), Keyword.Type),
            (words(sorted(CLOCKS), prefix=r"\b", suffix=r"\b"), Name.Builtin.Pseudo),
            (r"[0-9]+(\.[0-9]+)?[eE][+-]?[0-9]+|[0-9]+\.[0-9]+", Number.Float),
            (r"[0-9]+", Number.Integer),
            (r"[A-Za-z_]\w*(?=\s*\()", Name.Function),
            (r"[A-Za-z_]\w*", Name),
            (r"<-|->|[<>=!]=|//|\*\*|[-+*/%@^<>=']", Operator),
            (r"\.\.\.|[()\[\]{},:;.]", Punctuation),
            (r".", Text),
        ],
        "string": [
            (r'\\["\\n]', String.Escape),
            (r'[^"\\\n]+', String.Double),
            (r'"|\n', String.Double, "#pop"),
            (r"\\", String.Double),
        ],
    }
