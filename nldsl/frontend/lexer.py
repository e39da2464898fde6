"""Text to tokens, in two steps: `scan` cuts the text up, `arrange` decides what line ends, braces and some words mean.

Whatever is wrong here is reported and leaves a token of type ERROR, which the parser skips without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from ..diagnostics import DiagnosticBag
from ..limits import Limits
from ..source import SourceFile
from . import lexical_errors
from .tables import END, load

__all__ = ["ERROR", "Arranged", "Scan", "Token", "arrange", "scan"]

ERROR = "ERROR"


class Token(NamedTuple):
    """A piece of the text; `type` is a name of the grammar."""

    type: str
    text: str
    start: int
    end: int


class Scan(NamedTuple):
    """What a text is made of: tokens with their line ends, and the comments apart."""

    tokens: list[Token]
    comments: list[Token]


# A number ends where no letter, digit or point follows.
_NUMBER_ENDS = r"(?![A-Za-z0-9_.])"


@lru_cache(maxsize=1)
def _pattern() -> tuple[re.Pattern[str], dict[str, str], dict[str, str]]:
    tables = load()
    patterns = tables.patterns
    operators = sorted(tables.operators, key=lambda text: (-len(text), text))
    parts = [
        ("BLANK", "[ \t]+"),
        ("NAME", patterns["NAME"]),
        ("NUMBER", patterns["NUMBER"] + _NUMBER_ENDS),
        ("POINT", r"\.[0-9][A-Za-z0-9_.]*"),
        ("OPERATOR", "|".join(map(re.escape, operators))),
        ("NEWLINE", patterns["NEWLINE"]),
        ("COMMENT", patterns["COMMENT"]),
        ("STRING", patterns["STRING"]),
        ("DIGITS", "[0-9][A-Za-z0-9_.]*"),
        ("ESCAPE", r'"(?:[^"\\\n]|\\.)*"'),
        ("QUOTE", '"[^\n]*'),
        ("OTHER", "(?s:.)"),
    ]
    master = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in parts))
    return master, tables.keywords, tables.operators


def scan(source: SourceFile, bag: DiagnosticBag, limits: Limits) -> Scan | None:
    """Cut a text into tokens; None if its brackets nest too deeply."""
    master, keywords, operators = _pattern()
    tokens: list[Token] = []
    comments: list[Token] = []
    nesting = 0
    for match in master.finditer(source.text):
        kind = match.lastgroup
        if kind == "BLANK":
            continue
        if len(tokens) > limits.tokens:
            lexical_errors.too_many_tokens(source, bag, match.start(), limits.tokens)
            return None
        text = match.group()
        start, end = match.span()
        if kind == "NAME":
            if len(text) > limits.name_length:
                lexical_errors.long_name(source, bag, start, end, limits.name_length)
            tokens.append(Token(keywords.get(text, "NAME"), text, start, end))
        elif kind == "OPERATOR":
            if text in _OPENING:
                nesting += 1
                if nesting > limits.nesting:
                    lexical_errors.deep(source, bag, start, end, limits.nesting)
                    return None
            elif text in _CLOSING:
                nesting -= 1
            tokens.append(Token(operators[text], text, start, end))
        elif kind == "NEWLINE" or kind == "STRING":
            tokens.append(Token(kind, text, start, end))
        elif kind == "COMMENT":
            text = text.rstrip("\r ")
            comments.append(Token(kind, text, start, start + len(text)))
        elif kind == "NUMBER":
            if len(text) > _SAFE_NUMBER or "e" in text or "E" in text:
                lexical_errors.check_number(source, bag, text, start, end, limits.magnitude)
            tokens.append(Token(kind, text, start, end))
        else:
            assert kind is not None
            lexical_errors.report(source, bag, kind, text, start, end)
            if bag.is_full:
                return None
            tokens.append(Token(ERROR, text, start, end))
    end = len(source.text)
    tokens.append(Token(END, "", end, end))
    return Scan(tokens, comments)


# A number of so few characters is neither too large nor too small.
_SAFE_NUMBER = 9

_OPENING = frozenset("([{")
_CLOSING = frozenset(")]}")

# A statement does not end after these.
CONTINUES = frozenset(
    "OR AND NOT LESS LE GREATER GE EQ NE PLUS MINUS STAR SLASH FLOORDIV PERCENT AT_SIGN CARET STARSTAR COMMA EQUAL "
    "ASSIGN ARROW THEN ELSE IN WITH _ANCHOR START OF _COPIES DOT LPAR LSQB _LGROUP _LTARGET".split()
)

# A statement does not begin with these.
_GOES_ON = frozenset(["THEN", "ELSE"])

# After these an expression, a type or a head is complete, so a brace opens a block and not a group.
COMPLETE = frozenset(
    "NAME NUMBER STRING TRUE FALSE RPAR RSQB PRIME RBRACE _RGROUP LEVEL FN MEMORY BLOCK METHOD OWNER "
    f"EVERY REPEAT ITERATE {ERROR}".split()  # something is missing after these, but a group would not help
)

# What these begin has a body.
_HEADS = frozenset("FN OBJECTIVE RETENTION MEMORY BLOCK MODEL EXAMPLE METHOD REPEAT ITERATE FOR IF EVERY ELSE".split())

# These words begin a statement or declaration and nothing else: a bracket that is open there was never closed.
BEGINS = frozenset(
    "IMPORT FROM OBJECTIVE RETENTION MODEL EXAMPLE STATE PARAM INPUT RETURN REPEAT ITERATE MINIMIZE EXPECT SHARED "
    "OPTIMIZER".split()
)

# These begin a declaration and nothing else.
_TOP = frozenset("IMPORT FROM OBJECTIVE RETENTION MODEL EXAMPLE FN BLOCK".split())

_METHOD_GOES_ON = frozenset("ARROW EVERY EQUAL LBRACE".split())
_PAIRS = {"RPAR": ("LPAR",), "RSQB": ("LSQB",), "RBRACE": ("LBRACE", "_LGROUP", "_LTARGET")}


class _Open(NamedTuple):
    type: str  # LPAR, LSQB, LBRACE (a block), _LGROUP or _LTARGET
    token: Token


class Arranged(NamedTuple):
    """Tokens for the parser, and ranges of the text in which all that is wrong has been told."""

    tokens: list[Token]
    damaged: list[tuple[int, int]]


def arrange(source: SourceFile, tokens: list[Token], bag: DiagnosticBag) -> Arranged:
    """Drop the line ends that end no statement, and tell apart what only the neighbours of a token can tell."""
    arranging = _Arrange(source, tokens, bag)
    return Arranged(arranging.run(), arranging.damaged)


class _Arrange:
    def __init__(self, source: SourceFile, tokens: list[Token], bag: DiagnosticBag) -> None:
        self.source = source
        self.tokens = tokens
        self.bag = bag
        self.out: list[Token] = []
        self.open: list[_Open] = []
        self.damaged: list[tuple[int, int]] = []  # what is wrong here is told already
        self.head = ""  # type of the token that began the statement
        self.headless = ""  # the same of the statement before, if it may lack its body
        self.bound = False  # whether `=`, `<-` or `then` stands outside of all brackets of the statement
        self.last = "_SEP"  # type of the last token that was passed on
        self.before = "_SEP"  # the one before it

    def put(self, token: Token) -> None:
        self.before = self.last
        self.last = token.type
        self.out.append(token)

    def run(self) -> list[Token]:
        pending: Token | None = None
        for i, token in enumerate(self.tokens):
            kind = token.type
            inside = bool(self.open) and self.open[-1].type != "LBRACE"
            if kind == "NEWLINE":
                if not inside and pending is None and self.last not in CONTINUES:
                    pending = token
                continue
            if kind == "SEMICOLON" and not inside:
                pending = token
                continue
            if inside and kind in BEGINS and self.begins_line(i):
                self.unclosed(token)
                pending = pending or Token("_SEP", "", token.start, token.start)
            if pending is not None:
                if self.last not in ("_SEP", "LBRACE") and kind not in _GOES_ON and kind != "RBRACE" and kind != END:
                    self.put(pending._replace(type="_SEP"))
                pending = None
            begins = self.last in ("_SEP", "LBRACE")
            if begins:
                if self.open and self.is_declaration(token, i):
                    self.unclosed_blocks(token, i)
                self.headless = "" if self.bound or self.before == "RBRACE" else self.head
                self.head = kind
                self.bound = False
            if kind == "THEN" and self.is_outside():
                self.bound = True  # an expression: no body is missing
            handler = _HANDLERS.get(kind)
            if handler is None:
                self.put(token)
            else:
                handler(self, token, i, begins)
        return self.out

    def is_declaration(self, token: Token, i: int) -> bool:
        """Whether a declaration at the left margin begins here: the block around it was never closed."""
        if token.type == "MEMORY":
            if self.tokens[i + 1].type != "NAME" or self.tokens[i + 2].type not in ("LPAR", "LBRACE"):
                return False
        elif token.type not in _TOP:
            return False
        return token.start == 0 or self.source.text[token.start - 1] == "\n"

    def begins_line(self, i: int) -> bool:
        return i == 0 or self.tokens[i - 1].type in ("NEWLINE", "SEMICOLON", "LBRACE", "RBRACE")

    # ------------------------------------------------------------ brackets

    def bracket(self, token: Token, i: int, begins: bool) -> None:
        self.open.append(_Open(token.type, token))
        self.put(token)

    def brace(self, token: Token, i: int, begins: bool) -> None:
        if begins and self.last == "_SEP" and self.headless in _HEADS:
            separator = self.out.pop()
            self.last = self.before
            lexical_errors.brace_below(self.source, self.bag, token.start, separator.start)
            kind = "LBRACE"
        elif begins:
            kind = "_LTARGET"
        elif self.last in COMPLETE or (self.last == "ELSE" and self.before == "RBRACE"):
            kind = "LBRACE"
            if self.open and self.open[-1].type != "LBRACE":
                self.unclosed(token)
        else:
            kind = "_LGROUP"
        self.open.append(_Open(kind, token))
        self.put(token._replace(type=kind))

    def close(self, token: Token, i: int, begins: bool) -> None:
        if not self.open:
            lexical_errors.extra_bracket(self.source, self.bag, token.text, token.start)
            if token.type != "RBRACE":
                self.put(token._replace(type=ERROR))
            return
        opened = self.open[-1]
        if self.fits(token):
            self.open.pop()
            self.put(token._replace(type="_RGROUP") if opened.type in ("_LGROUP", "_LTARGET") else token)
            return
        if token.type == "RBRACE" and any(o.type == "LBRACE" for o in self.open):
            self.unclosed(token)
            self.open.pop()
            self.put(token)
            return
        if opened.type == "LBRACE":
            lexical_errors.extra_bracket(self.source, self.bag, token.text, token.start)
            self.put(token._replace(type=ERROR))
            return
        lexical_errors.wrong_bracket(self.source, self.bag, token.text, token.start, opened.token.start)
        self.damaged.append((opened.token.start, token.start))
        self.put(token._replace(type=ERROR))
        self.open.pop()
        if self.open and self.fits(token):
            self.open.pop()

    def fits(self, token: Token) -> bool:
        return self.open[-1].type in _PAIRS[token.type]

    def unclosed(self, token: Token) -> None:
        """Close all round, square and group brackets: `token` cannot stand inside one."""
        opened = self.open[-1].token
        self.damaged.append((opened.start, token.start))
        lexical_errors.unclosed(self.source, self.bag, opened.text, opened.start, token.start, token.end)
        while self.open and self.open[-1].type != "LBRACE":
            self.open.pop()
        self.put(Token(ERROR, "", token.start, token.start))

    def unclosed_blocks(self, token: Token, i: int) -> None:
        opened = self.open[-1].token
        lexical_errors.unclosed(self.source, self.bag, opened.text, opened.start, token.start, token.end)
        self.close_all(token.start)
        self.put(Token("_SEP", "", token.start, token.start))

    def close_all(self, at: int) -> None:
        if self.last == "_SEP":
            self.out.pop()
            self.last = "RBRACE"
        while self.open:
            if self.open.pop().type == "LBRACE":
                self.put(Token("RBRACE", "", at, at))

    def finish(self, token: Token, i: int, begins: bool) -> None:
        if self.open:
            opened = self.open[-1].token
            lexical_errors.unclosed(self.source, self.bag, opened.text, opened.start, token.start, token.end)
            if self.open[-1].type != "LBRACE":
                self.damaged.append((opened.start, token.start))
                self.put(Token(ERROR, "", token.start, token.start))
            self.close_all(token.start)
        self.put(token)

    # ------------------------------------------------------------ words

    def name(self, token: Token, i: int, begins: bool) -> None:
        if begins:
            following = self.tokens[i + 1].type
            if following == "LPAR" and self.open and self.is_method(i + 1):
                token = token._replace(type="METHOD")
                self.head = "METHOD"
            elif following == "DOT":
                member = self.significant(i + 2)
                if self.tokens[member].type == "NAME" and self.tokens[member + 1].type in ("EQUAL", "ASSIGN"):
                    token = token._replace(type="OWNER")
        self.put(token)

    def significant(self, i: int) -> int:
        """Number of the first token from `i` on that is no line end."""
        while self.tokens[i].type == "NEWLINE":
            i += 1
        return i

    def is_method(self, i: int) -> bool:
        """Whether the parenthesis that opens at `i` is that of a method: by what follows it, or a type in it."""
        depth = 0
        for j in range(i, len(self.tokens)):
            kind = self.tokens[j].type
            if kind in ("LPAR", "LSQB", "LBRACE"):
                depth += 1
            elif kind in ("RPAR", "RSQB", "RBRACE"):
                depth -= 1
                if depth == 0:
                    return self.tokens[j + 1].type in _METHOD_GOES_ON
            elif kind == "COLON" and depth == 1:
                return True
            elif kind in BEGINS or kind == END:
                return False
        return False

    def binds(self, token: Token, i: int, begins: bool) -> None:
        self.bound = self.bound or self.is_outside()
        self.put(token)

    def at(self, token: Token, i: int, begins: bool) -> None:
        if self.tokens[self.significant(i + 1)].type == "START":
            token = token._replace(type="_ANCHOR")
        elif self.head in ("PARAM", "MINIMIZE") and self.is_outside():
            token = token._replace(type="_CLAUSE_AT")
        self.put(token)

    def of(self, token: Token, i: int, begins: bool) -> None:
        if self.head in ("MEMORY", "OPTIMIZER") and self.is_outside() and self.last != "START":
            token = token._replace(type="_COPIES")
            self.head = ""
        self.put(token)

    def is_outside(self) -> bool:
        return not self.open or self.open[-1].type == "LBRACE"


_HANDLERS: dict[str, Callable[[_Arrange, Token, int, bool], None]] = {
    "LPAR": _Arrange.bracket,
    "LSQB": _Arrange.bracket,
    "LBRACE": _Arrange.brace,
    "RPAR": _Arrange.close,
    "RSQB": _Arrange.close,
    "RBRACE": _Arrange.close,
    "NAME": _Arrange.name,
    "EQUAL": _Arrange.binds,
    "ASSIGN": _Arrange.binds,
    "AT": _Arrange.at,
    "OF": _Arrange.of,
    END: _Arrange.finish,
}
