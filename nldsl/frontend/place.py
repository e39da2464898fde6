"""Where the parser got stuck, as the rules about syntax errors look at it, and how tokens are named to people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..source import SourceFile, Span
from .lexer import ERROR, Token
from .lr import Failure, accepted, advance, settled
from .tables import END, Tables

__all__ = ["Place", "a_list", "quoted"]

NOTHING = Token("_SEP", "", 0, 0)

_EXPRESSION = frozenset("NUMBER STRING TRUE FALSE NAME LPAR LSQB _LGROUP MINUS NOT IF".split())
_OPERATORS = frozenset(
    "OR AND LESS LE GREATER GE EQ NE PLUS MINUS STAR SLASH FLOORDIV PERCENT AT_SIGN CARET STARSTAR PRIME DOT AT "
    "_ANCHOR LPAR LSQB".split()
)
_TYPE = frozenset("LSQB LIKE NAME LEVEL FN MEMORY BLOCK".split())
_DECLARATION = frozenset("IMPORT FROM FN OBJECTIVE RETENTION MEMORY BLOCK MODEL EXAMPLE NAME".split())
_STATEMENT = frozenset(
    "RETURN REPEAT ITERATE FOR EVERY EXPECT SHARED STATE PARAM MEMORY OPTIMIZER METHOD INPUT LEVEL MINIMIZE OWNER "
    "_LTARGET".split()
)
_ENDS = frozenset(["_SEP", "RBRACE", END])

# Sets of tokens with a name of their own, the larger ones first.
_KINDS: tuple[tuple[frozenset[str], frozenset[str], str], ...] = (
    (frozenset(["RETURN", "STATE"]), _STATEMENT | _EXPRESSION, "a statement"),
    (frozenset(["IMPORT", "FN"]), _DECLARATION, "a declaration"),
    (frozenset(["LIKE"]), _TYPE, "a type"),
    (frozenset(["NUMBER"]), _EXPRESSION, "an expression"),
    (frozenset(["PLUS"]), _OPERATORS, ""),
)

_SHOWN = {
    "NAME": "a name",
    "METHOD": "a name",
    "OWNER": "a name",
    "STRING": 'a text in `"`',
    "NUMBER": "a number",
    "_LGROUP": "`{`",
    "_LTARGET": "`{`",
    "_RGROUP": "`}`",
    "_ANCHOR": "`at`",
    "_CLAUSE_AT": "`at`",
    "_COPIES": "`of`",
}


@dataclass(frozen=True)
class Place:
    """One error of syntax: the token that does not fit, and everything around it."""

    tables: Tables
    source: SourceFile
    failure: Failure

    @cached_property
    def expected(self) -> frozenset[str]:
        """Types of the tokens that would fit."""
        return accepted(self.tables, self.failure.stack)

    @property
    def tokens(self) -> Sequence[Token]:
        return self.failure.tokens

    @cached_property
    def state(self) -> int:
        """State for which there may be a message."""
        return settled(self.tables, self.failure.stack)

    def look(self, offset: int) -> Token:
        """Return the token that is `offset` away from the one that does not fit."""
        at = self.failure.at + offset
        return self.tokens[at] if 0 <= at < len(self.tokens) else NOTHING

    @cached_property
    def token(self) -> Token:
        """The token that does not fit."""
        return self.tokens[self.failure.at]

    @cached_property
    def before(self) -> Token:
        """The token before it."""
        return self.look(-1)

    @cached_property
    def head(self) -> Token:
        """The first token of the statement or declaration."""
        return self.tokens[min(self.failure.statement, self.failure.at)]

    @property
    def is_second(self) -> bool:
        """Whether it is the second token of its statement."""
        return self.failure.at == self.failure.statement + 1

    @property
    def is_first(self) -> bool:
        """Whether it begins its statement."""
        return self.failure.at == self.failure.statement

    def fits_as(self, kind: str) -> bool:
        """Whether the text could go on if the token had another type."""
        return advance(self.tables, self.failure.stack, [kind, self.look(1).type]) is not None

    @property
    def ends(self) -> bool:
        """Whether the statement ends where it cannot."""
        return self.token.type in _ENDS

    @property
    def operand_ended(self) -> bool:
        """Whether a complete expression stands before it."""
        return "AND" in self.expected

    @property
    def operand_missing(self) -> bool:
        """Whether an expression has to follow."""
        return "NUMBER" in self.expected

    @property
    def top_level(self) -> bool:
        """Whether a declaration begins here."""
        return self.is_first and "IMPORT" in self.expected

    @cached_property
    def span(self) -> Span:
        """What the caret points at: the token, or the place behind the last one if a statement ends too early."""
        if self.token.type in _ENDS and self.before is not NOTHING and (self.is_on_new_line or not self.token.text):
            return self.source.span(self.before.end, self.before.end)
        return self.source.span(self.token.start, self.token.end)

    def span_from(self, first: Token, last: Token | None = None) -> Span:
        return self.source.span(first.start, (last or self.token).end)

    @cached_property
    def is_on_new_line(self) -> bool:
        """Whether a line ends between the token before and this one."""
        return "\n" in self.source.text[self.before.end : self.token.start]

    def touches(self, first: Token, second: Token) -> bool:
        """Whether nothing stands between two tokens."""
        return first.end == second.start

    @cached_property
    def found(self) -> str:
        """Name the token that does not fit."""
        kind, text = self.token.type, self.token.text
        if kind == END:
            return "the end of the file"
        if kind == "_SEP":
            return "`;`" if text == ";" else "the end of the line"
        if kind == "RBRACE" and not text:
            return "the end of the block"
        if kind == "NUMBER":
            return f"the number `{_cut(text)}`"
        if kind == "STRING":
            return f"the text `{_cut(text)}`"
        return f"`{_cut(text)}`"

    @cached_property
    def wanted(self) -> list[str]:
        """Name what would fit, the most telling first."""
        left = set(self.expected) - {ERROR}
        shown: list[str] = []
        for signs, members, name in _KINDS:
            if signs <= left:
                left -= members
                if name:
                    shown.append(name)
        ends = left & _ENDS
        left -= _ENDS
        if ends == {"RBRACE"}:
            shown.append("`}`")
        elif ends:
            shown.append("the end of the line")
        texts = {name: text for name, text, plain in self.tables.terminals if plain}
        shown += sorted({_SHOWN.get(kind) or quoted(texts[kind]) for kind in left})
        return shown


def quoted(text: str) -> str:
    """Put a piece of program between marks."""
    return f"`{text}`"


def a_list(items: Iterable[str], word: str = "or") -> str:
    """Write `a`, `a or b`, `a, b or c`."""
    *most, last = items
    return f"{', '.join(most)} {word} {last}" if most else last


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
