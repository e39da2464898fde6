"""Offsets, lines and columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nldsl.source import NO_SPAN, SourceFile, Span

FILE = SourceFile("a.nl", "one\ntwo\r\n\nfour")


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(0, (1, 1)), (3, (1, 4)), (4, (2, 1)), (9, (3, 1)), (10, (4, 1)), (14, (4, 5)), (99, (4, 5)), (-1, (1, 1))],
)
def test_position(offset: int, expected: tuple[int, int]) -> None:
    assert FILE.position(offset) == expected


@pytest.mark.parametrize(("line", "expected"), [(0, ""), (1, "one"), (2, "two"), (3, ""), (4, "four"), (5, "")])
def test_line_text(line: int, expected: str) -> None:
    assert FILE.line_text(line) == expected


def test_span_knows_its_ends() -> None:
    span = FILE.span(5, 12)
    assert (span.line, span.column, span.end_line, span.end_column) == (2, 2, 4, 3)
    assert span.text == "wo\r\n\nfo"
    assert repr(span) == str(span) == "a.nl:2:2"


def test_equality_is_by_place() -> None:
    other = SourceFile("a.nl", "something else")
    assert FILE.span(1, 2) == Span(other, 1, 2)
    assert hash(FILE.span(1, 2)) == hash(Span(other, 1, 2))
    assert FILE.span(1, 2) != Span(SourceFile("b.nl", FILE.text), 1, 2)
    assert FILE.span(1, 2) != FILE.span(1, 3)
    assert FILE.span(1, 2) != "a.nl:1:2"


def test_merge() -> None:
    first, last = FILE.span(4, 6), FILE.span(1, 2)
    assert Span.merge(first, last) == Span.merge(last, first) == FILE.span(1, 6)
    assert Span.merge(NO_SPAN, last) == Span.merge(last, NO_SPAN) == last
    assert Span.merge(first, SourceFile("b.nl", "x").span(0, 1)) == first
    assert Span.merge(NO_SPAN, NO_SPAN) is NO_SPAN


def test_no_span() -> None:
    assert Span.none() is NO_SPAN
    assert NO_SPAN.is_none
    assert not FILE.span(0, 0).is_none
    assert repr(NO_SPAN) == "<no source>"
    assert NO_SPAN.text == ""


@given(st.text(alphabet="ab\n\r\té日", max_size=60), st.integers(0, 60))
def test_position_points_into_its_line(text: str, offset: int) -> None:
    file = SourceFile("t.nl", text)
    offset = min(offset, len(text))
    line, column = file.position(offset)
    assert line == text.count("\n", 0, offset) + 1
    assert file.line_starts[line - 1] + column - 1 == offset
    assert file.line_count == text.count("\n") + 1
