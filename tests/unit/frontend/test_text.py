"""What is no text of a program is refused with a reason."""

from __future__ import annotations

import pytest

from nldsl.diagnostics import Diagnostic, DiagnosticBag
from nldsl.frontend.parse import parse
from nldsl.frontend.text import decode
from nldsl.limits import Limits
from tests.unit.frontend.helpers import codes, mistakes


def of_bytes(data: bytes, limits: Limits | None = None) -> list[Diagnostic]:
    bag = DiagnosticBag()
    limits = limits or Limits()
    source = decode(data, "test.nl", bag, limits)
    if source is not None:
        parse(source, bag, limits)
    return list(bag)


def test_text() -> None:
    assert of_bytes("# äöü\nx = 1\r\n".encode()) == []


@pytest.mark.parametrize(
    ("data", "code", "line", "column"),
    [
        (b"x = 1\n# \xe9t\xe9", "NL0002", 2, 3),
        ("x = 1".encode("utf-16"), "NL0002", 1, 1),
        (b"x = \xed\xa0\x80", "NL0002", 1, 5),
        ("\ufeffx = 1".encode(), "NL0003", 1, 1),
        (b"x = 1\n\0", "NL0004", 2, 1),
        (b"g3 1 1 0\t# problem\n", "NL0007", 1, 1),
        (b"g3 0 1 0\r\n 2 1 0", "NL0007", 1, 1),
        (b"b3 1 1 0\n\xff\x00\x01", "NL0007", 1, 1),
        (b"x = 1\n\ty = 2", "NL0104", 2, 1),
        ("x = 1 # \u202e".encode(), "NL0103", 1, 9),
        ('example "\u200b" {}'.encode(), "NL0103", 1, 10),
        (b"x = 1\ry = 2", "NL0103", 1, 6),
        (b"x = 1 # \x1b[31m", "NL0103", 1, 9),
        ("x = 1 # a\u2028b".encode(), "NL0103", 1, 10),
    ],
)
def test_refused(data: bytes, code: str, line: int, column: int) -> None:
    found = of_bytes(data)[0]
    assert (found.code, found.span.line, found.span.column) == (code, line, column)


def test_too_large() -> None:
    assert [d.code for d in of_bytes(b"x" * 11, Limits(file_bytes=10))] == ["NL0005"]


def test_names_that_look_like_ampl() -> None:
    assert codes("g3 = 1") == []


def test_a_kind_is_reported_a_few_times_only() -> None:
    assert len(mistakes("x = 1 # " + "\u200b" * 100)) == 5
    assert len(mistakes("# " + "\t" * 100)) == 1


def test_characters_that_unicode_has_not_assigned() -> None:
    assert codes("x = \u0378") == ["NL0102"]
    assert codes("# \u0378\nx = 1") == []


def test_halves_of_pairs() -> None:
    assert codes("x = 1 # \ud800") == ["NL0103"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("x = a − b", "write `-`"),
        ("fn f(θ: []) = 1", "write `theta`"),
        ("x = “a”", 'write `"`'),
        ("x = a ≤ b", "write `<=`"),
        ("x = é", "names are made of the letters A to Z, digits and `_`"),
        ("x = a ? b", "write `if c then a else b`"),
        ("x = a && b", "write `and`"),
    ],
)
def test_characters(text: str, hint: str) -> None:
    found = mistakes(text)[0]
    assert found.code == "NL0102"
    assert any(hint in h for h in found.hints)


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        (".5", "NL0107", "write `0.5`"),
        ("5.", "NL0107", "write `5.0`, or `5`"),
        ("1_000", "NL0107", "write `1000`"),
        ("0x10", "NL0107", "write it in decimal: `16`"),
        ("3x", "NL0107", "put a space between `3` and `x`, or `*` for their product"),
        ("1e", "NL0107", "digits must follow the `e`"),
        ("1.2.3", "NL0107", ""),
        ('"a', "NL0105", 'put a `"` behind it'),
        ('"a\\tb"', "NL0106", "write `\\\\` for a backslash"),
    ],
)
def test_numbers_and_texts(text: str, code: str, hint: str) -> None:
    found = mistakes(f"x = {text}")[0]
    assert found.code == code
    assert not hint or hint in found.hints
