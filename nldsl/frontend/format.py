"""Writes a program the way all programs are written.

The formatter moves white space only: it never changes a token, a comment or the order of anything. Line breaks inside a
statement are the author's, except that lines of more than 100 columns are broken at commas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from ..diagnostics import DiagnosticBag
from ..limits import Limits
from ..source import SourceFile
from .lexer import COMPLETE, Scan, Token, arrange, scan
from .parse import parse
from .tables import END

__all__ = ["format_source"]

WIDTH = 100
INDENT_WIDTH = 2

# After these a sign is an operator, and a bracket a call or an index.
_OPERAND = COMPLETE - frozenset(["EVERY", "REPEAT", "ITERATE", "RBRACE"])
_OPENING = frozenset("LPAR LSQB _LGROUP _LTARGET".split())
_CLOSING = frozenset("RPAR RSQB _RGROUP".split())


def format_source(text: str, name: str = "<text>", limits: Limits | None = None) -> str:
    """Return the formatted program; raises DiagnosticError if it is none."""
    limits = limits or Limits()
    source = SourceFile(name, text.replace("\r\n", "\n").replace("\t", " " * INDENT_WIDTH))
    bag = DiagnosticBag()
    parse(source, bag, limits)
    bag.raise_if_errors()
    pieces, comments = _pieces(source, limits)
    formatted = _Formatter(source.text).run(pieces)
    after = _pieces(SourceFile(name, formatted), limits)
    assert _essence(after[0]) == _essence(pieces), "the formatter changed a token"
    assert [c.text for c in after[1]] == [c.text for c in comments], "the formatter changed a comment"
    return formatted


def _pieces(source: SourceFile, limits: Limits) -> tuple[list[Token], list[Token]]:
    """Return the tokens with the comments among them, and the comments."""
    bag = DiagnosticBag()
    scanned = scan(source, bag, limits) or Scan([], [])
    tokens = arrange(source, scanned.tokens, bag).tokens
    bag.raise_if_errors()
    return sorted([*tokens, *scanned.comments], key=lambda t: (t.start, t.end)), scanned.comments


def _essence(pieces: list[Token]) -> list[tuple[str, str]]:
    """What formatting keeps: tokens, and where statements end."""
    return [(t.type, "" if t.type == "_SEP" else t.text) for t in pieces if t.type != "COMMENT"]


@dataclass
class _Line:
    """A line to be written: its pieces, and whether it goes on with a statement that began above it."""

    pieces: list[Token] = field(default_factory=list)
    continues: bool = False
    blank_above: bool = False

    @property
    def code(self) -> list[Token]:
        """The pieces without the comment at the end."""
        return self.pieces[:-1] if self.pieces[-1].type == "COMMENT" else self.pieces


@dataclass(frozen=True)
class _Bracket:
    indent: int  # of the line in which it was opened


class _Formatter:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tight: set[int] = set()  # where signs begin, and the colons of slices
        self.out: list[str] = []
        self.level = 0  # blocks around the line
        self.brackets: list[_Bracket] = []  # round, square and group brackets that are open where the line begins

    def run(self, pieces: list[Token]) -> str:
        self.tight = _tight(pieces)
        short = self.short_blocks(pieces)
        while True:
            lines = self.lines(pieces, short)
            long = {piece.start for line in self.too_long(lines) for piece in line.pieces} & short
            if not long:
                break
            short -= long
        for statement in _statements(lines):
            for line in self.reflowed(statement):
                self.write(line)
        return "".join(f"{line}\n" for line in self.out)

    # ------------------------------------------------------------ lines

    def short_blocks(self, pieces: list[Token]) -> set[int]:
        """Where blocks begin that the author put on one line and that hold one statement: they stay so if they fit."""
        found: set[int] = set()
        opened: Token | None = None
        inside = 0
        for piece in pieces:
            if piece.type == "LBRACE":
                opened, inside = piece, 0
            elif piece.type in ("_SEP", "COMMENT"):
                opened = None
            elif piece.type == "RBRACE":
                if opened is not None and inside and "\n" not in self.text[opened.start : piece.start]:
                    found.add(opened.start)
                opened = None
            else:
                inside += 1
        return found

    def too_long(self, lines: list[_Line]) -> list[_Line]:
        found = []
        level = 0
        for line in lines:
            if INDENT_WIDTH * level + self.widths(line.code)[-1] > WIDTH:
                found.append(line)
            level += sum((piece.type == "LBRACE") - (piece.type == "RBRACE") for piece in line.pieces)
        return found

    def lines(self, pieces: list[Token], short: set[int]) -> list[_Line]:
        """Decide where lines end."""
        lines = [_Line()]
        before: Token | None = None  # the piece before, line ends not counted
        ended = False  # whether a statement ended since
        within = False  # whether the line begins or goes on with a statement that has begun
        kept = False  # whether this is inside a block that stays on its line
        for piece, following in zip(pieces, _following(pieces), strict=True):
            if piece.type == "_SEP":
                ended = True
                within = False
                continue
            if piece.type == END:
                break
            if following in ("RBRACE", END):
                within = False  # the line end that a closing brace makes superfluous
            if before is not None and not kept and self.breaks(before, piece, ended):
                blank = self.text.count("\n", before.end, piece.start) > 1
                edge = before.type == "LBRACE" or piece.type == "RBRACE"
                lines.append(_Line(continues=within, blank_above=blank and not edge and not within))
            lines[-1].pieces.append(piece)
            if piece.type == "LBRACE":
                kept = piece.start in short
                within = False
            elif piece.type == "RBRACE":
                kept = within = False
            elif piece.type != "COMMENT":
                within = True
            before = piece
            ended = False
        return [line for line in lines if line.pieces]

    def breaks(self, before: Token, piece: Token, ended: bool) -> bool:
        """Whether a line ends between two pieces."""
        gap = "\n" in self.text[before.end : piece.start]
        if before.type == "COMMENT":
            return True
        if piece.type == "COMMENT":
            return gap
        if before.type == "LBRACE":
            return piece.type != "RBRACE"
        if piece.type == "RBRACE" or ended:
            return True
        if before.type == "RBRACE":  # `} else {`
            return False
        return gap

    # ------------------------------------------------------------ one line

    def write(self, whole: _Line) -> None:
        waiting = [whole]
        while waiting:
            line = waiting.pop()
            parts = self.split(line)
            if parts:
                waiting += reversed(parts)
                continue
            if line.blank_above:
                self.out.append("")
            indent = self.indent(line)
            self.out.append(" " * (INDENT_WIDTH * indent) + self.show(line.pieces))
            self.step(line, indent)

    def step(self, line: _Line, indent: int) -> None:
        """Go from the beginning of a line to that of the next."""
        for piece in line.pieces:
            if piece.type in _OPENING:
                self.brackets.append(_Bracket(indent))
            elif piece.type in _CLOSING:
                self.brackets.pop()
            elif piece.type == "LBRACE":
                self.level += 1
            elif piece.type == "RBRACE":
                self.level -= 1

    def indent(self, line: _Line) -> int:
        if line.pieces[0].type == "RBRACE":
            return self.level - 1
        if not self.brackets:
            return self.level + line.continues
        closed = 0
        for piece in line.pieces:
            if piece.type not in _CLOSING or closed == len(self.brackets):
                break
            closed += 1
        if closed:
            return self.brackets[-closed].indent
        return self.brackets[-1].indent + 1

    def show(self, pieces: list[Token]) -> str:
        return "".join(self.spaced(pieces))

    def widths(self, pieces: list[Token]) -> list[int]:
        """Column where each piece ends, counted from where the first one begins."""
        return list(accumulate(map(len, self.spaced(pieces))))[::2] or [0]

    def spaced(self, pieces: list[Token]) -> list[str]:
        """The pieces with the white space between them: text, space, text, ..."""
        parts: list[str] = []
        for at, piece in enumerate(pieces):
            if at:
                following = pieces[at + 1] if at + 1 < len(pieces) else None
                parts.append(_space(pieces[at - 1], piece, following, self.tight))
            parts.append(piece.text)
        return parts

    # ------------------------------------------------------------ long lines

    def reflowed(self, statement: list[_Line]) -> list[_Line]:
        """Join the lines of a statement, to be divided anew, if one is too long and no comment is in the way."""
        if len(statement) == 1 or any(line.pieces[-1].type == "COMMENT" for line in statement[:-1]):
            return statement
        level, brackets = self.level, list(self.brackets)
        fits = True
        for line in statement:
            indent = self.indent(line)
            fits = fits and INDENT_WIDTH * indent + self.widths(line.code)[-1] <= WIDTH
            self.step(line, indent)
        self.level, self.brackets = level, brackets
        if fits:
            return statement
        return [_Line([piece for line in statement for piece in line.pieces], False, statement[0].blank_above)]

    def split(self, line: _Line) -> list[_Line]:
        """Divide a line that is too long; the parts are looked at again. No parts: it stays as it is."""
        code = line.code
        ends = self.widths(code)
        start = INDENT_WIDTH * self.indent(line)
        if start + ends[-1] <= WIDTH:
            return []
        depths = _depths(code)
        cuts = (
            self.after_equals(code, ends, depths, start)
            or self.at_commas(code, ends, depths, start, inside=True)
            or _around_bracket(code, ends, depths)
            or self.at_commas(code, ends, depths, start, inside=False)
        )
        bounds = [0, *cuts, len(line.pieces)]
        parts = [
            _Line(line.pieces[a:b], line.continues or a > 0, line.blank_above and a == 0) for a, b in pairwise(bounds)
        ]
        return parts if cuts else []

    def after_equals(self, code: list[Token], ends: list[int], depths: list[int], start: int) -> list[int]:
        """Cut behind the `=` or `<-` of a statement if that is enough."""
        if self.brackets:
            return []
        at = [i + 1 for i, piece in enumerate(code) if piece.type in ("EQUAL", "ASSIGN") and depths[i] == 0]
        if not at or at[-1] == len(code) or code[-1].type == "LBRACE":
            return []
        left = start + ends[at[-1] - 1]
        right = INDENT_WIDTH * (self.level + 1) + ends[-1] - ends[at[-1] - 1] - 1
        return at[-1:] if left <= WIDTH and right <= WIDTH else []

    def at_commas(
        self, code: list[Token], ends: list[int], depths: list[int], start: int, *, inside: bool
    ) -> list[int]:
        """Fill lines up to commas between the same brackets: those in which the line begins, if there are any."""
        commas = [i + 1 for i, piece in enumerate(code[:-1]) if piece.type == "COMMA" and depths[i] <= 0]
        if not commas or inside != bool(self.brackets):
            return []
        outermost = min(depths[i - 1] for i in commas)
        commas = [i for i in commas if depths[i - 1] == outermost]
        around = len(self.brackets) + outermost
        indent = INDENT_WIDTH * (self.brackets[around - 1].indent + 1 if around else self.level + 1)
        cuts: list[int] = []
        room = WIDTH - start  # up to which `ends` fits on the line
        last = 0
        for i in [*commas, len(code)]:
            if ends[i - 1] > room and last:
                cuts.append(last)
                room = WIDTH - indent + ends[last - 1] + 1
            last = i
        return cuts


def _following(pieces: list[Token]) -> list[str]:
    """For each piece the type of the next one that is no comment, itself included."""
    found: list[str] = []
    kind = END
    for piece in reversed(pieces):
        if piece.type != "COMMENT":
            kind = piece.type
        found.append(kind)
    return found[::-1]


def _statements(lines: list[_Line]) -> list[list[_Line]]:
    """Group lines by the statement that they belong to."""
    found: list[list[_Line]] = []
    for line in lines:
        if line.continues:
            found[-1].append(line)
        else:
            found.append([line])
    return found


def _around_bracket(code: list[Token], ends: list[int], depths: list[int]) -> list[int]:
    """Cut behind the bracket that holds most of the line, and before its other end."""
    best: tuple[int, list[int]] = (0, [])
    opened: int | None = None
    for i, piece in enumerate(code):
        if piece.type in _OPENING and depths[i] == 1:
            opened = i
        elif opened is not None and ((piece.type in _CLOSING and depths[i] == 0) or i == len(code) - 1):
            closes = piece.type in _CLOSING and depths[i] == 0
            size = ends[i - 1 if closes else i] - ends[opened]
            if size > best[0]:
                best = (size, [opened + 1, i] if closes else [opened + 1])
            opened = None
    return best[1]


def _depths(code: list[Token]) -> list[int]:
    """Brackets around each piece, less those that are open where the line begins; a bracket is inside itself."""
    depths = []
    depth = 0
    for piece in code:
        if piece.type in _OPENING:
            depth += 1
        elif piece.type in _CLOSING:
            depth -= 1
        depths.append(depth)
    return depths


def _tight(pieces: list[Token]) -> set[int]:
    """Where signs begin (not the minus between two values), and the colons of slices (not those before a type)."""
    found: set[int] = set()
    indices: list[bool] = []
    complete = False
    for piece in pieces:
        if piece.type == "COMMENT":
            continue
        if piece.type in _OPENING:
            indices.append(piece.type == "LSQB" and complete)
        elif piece.type in _CLOSING:
            indices.pop()
        elif (piece.type == "MINUS" and not complete) or (piece.type == "COLON" and indices and indices[-1]):
            found.add(piece.start)
        complete = piece.type in _OPERAND
    return found


def _space(before: Token, piece: Token, following: Token | None, tight: set[int]) -> str:
    """White space between two tokens of one line."""
    a, b = before.type, piece.type
    if b == "COMMENT":
        return "  "
    if a in _OPENING or b in _CLOSING or b in ("COMMA", "PRIME") or a == "DOT" or before.start in tight:
        return ""
    if b == "DOT":
        return " " if a == "NUMBER" else ""  # `3.` would be read as a number
    if b == "COLON":
        return ""
    if b in ("LPAR", "LSQB"):
        return "" if a in _OPERAND else " "
    if (b == "CARET" and following is not None and following.type == "NUMBER") or (a == "CARET" and b == "NUMBER"):
        return ""  # x^2
    if a == "LBRACE" and b == "RBRACE":
        return ""
    return " "
