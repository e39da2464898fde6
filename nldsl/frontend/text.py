"""Bytes to text: what a file must be before it is worth reading."""

from __future__ import annotations

import re

from ..diagnostics import DiagnosticBag
from ..limits import Limits
from ..source import SourceFile

__all__ = ["check_text", "decode", "is_hidden"]

_BOM = "\ufeff"

# The head of a nonlinear program written by AMPL and its relatives: `g3 1 1 0`.
_AMPL = re.compile(r"[gb][0-9]+( [0-9]+){2,}[ \r\n\t#]")

# Characters that hide something from the reader: control characters (not tab and line ends), line and paragraph
# separators, joiners and spaces of no width, marks that change the direction of text, halves of surrogate pairs.
_HIDDEN = re.compile(
    "[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
    "|\r(?!\n)"
)
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# One text has at most this many findings of a kind; a file in another format would have thousands.
_MOST = 5


def decode(data: bytes, path: str, bag: DiagnosticBag, limits: Limits) -> SourceFile | None:
    """Return the text of a file, or None after reporting why its bytes are none; `parse` looks at the text itself."""
    if len(data) > limits.file_bytes:
        source = SourceFile(path, "")
        _too_large(source, bag, limits)
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        _not_utf8(data, path, bag, error.start)
        return None
    return SourceFile(path, text)


def check_text(source: SourceFile, bag: DiagnosticBag, limits: Limits) -> bool:
    """Report what no program contains; whether it is worth looking for further mistakes."""
    text = source.text
    if len(text) > limits.file_bytes or (
        not text.isascii() and len(text.encode("utf-8", "surrogatepass")) > limits.file_bytes
    ):
        _too_large(source, bag, limits)
        return False
    if text.startswith(_BOM):
        bag.error(
            "NL0003",
            source.span(0, 1),
            "the file begins with a byte order mark",
            hints=("save the file as UTF-8 without a byte order mark",),
        )
        return False
    if _AMPL.match(text):
        _ampl(source, bag)
        return False
    nul = text.find("\0")
    if nul >= 0:
        bag.error("NL0004", source.span(nul, nul + 1), "the file contains a NUL byte: it is not a text")
        return False
    tab = text.find("\t")
    if tab >= 0:
        bag.error(
            "NL0104",
            source.span(tab, tab + 1),
            "a tab",
            notes=(f"the file has {text.count(chr(9))} of them",),
            hints=("indent with spaces; `nldsl fmt` replaces tabs",),
        )
    for count, match in enumerate(_HIDDEN.finditer(text)):
        if count == _MOST:
            break
        _hidden(source, bag, match.start(), match.group())
    return True


def is_hidden(character: str) -> bool:
    """Whether `check_text` refuses a character wherever it stands."""
    return _HIDDEN.match(character) is not None


def _too_large(source: SourceFile, bag: DiagnosticBag, limits: Limits) -> None:
    bag.error(
        "NL0005",
        source.span(0, 0),
        f"the file is larger than {limits.file_bytes} bytes",
        hints=("divide it into files that import one another",),
    )


def _ampl(source: SourceFile, bag: DiagnosticBag) -> None:
    bag.error(
        "NL0007",
        source.span(0, len(source.line_text(1))),
        "this is an optimization problem in AMPL's .nl format, not a program of nldsl",
        notes=("the two formats share nothing but the ending of the file's name",),
    )


def _not_utf8(data: bytes, path: str, bag: DiagnosticBag, at: int) -> None:
    head = data[:at].decode("utf-8")
    if _AMPL.match(data[:200].decode("latin-1")):
        source = SourceFile(path, data[:200].decode("latin-1"))
        _ampl(source, bag)
        return
    source = SourceFile(path, head + data[at : at + 200].decode("utf-8", "replace"))
    hints = ("save the file as UTF-8",)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        hints = ("this looks like UTF-16: save the file as UTF-8",)
    bag.error(
        "NL0002",
        source.span(len(head), len(head) + 1),
        f"the file is not UTF-8: the byte 0x{data[at]:02x} does not fit here",
        hints=hints,
    )


def _hidden(source: SourceFile, bag: DiagnosticBag, start: int, character: str) -> None:
    import unicodedata

    name = unicodedata.name(character, "a control character")
    code = f"U+{ord(character):04X}"
    span = source.span(start, start + 1)
    if character == "\r":
        bag.error("NL0103", span, "a carriage return without a line feed", hints=("end lines with a line feed",))
    elif character in _DIRECTION:
        bag.error(
            "NL0103",
            span,
            f"{code} {name} changes the direction in which text is shown",
            notes=("a reader would see another program than the compiler",),
            hints=("delete it",),
        )
    else:
        bag.error("NL0103", span, f"{code} {name} cannot be seen", hints=("delete it",))
