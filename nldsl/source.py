"""Source files and spans: where every token, node and IR value came from."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

__all__ = ["NO_SPAN", "SourceFile", "Span"]


@dataclass(frozen=True)
class SourceFile:
    """One text with the path under which it is shown.

    Two files are the same when their paths and texts are.
    """

    path: str
    text: str

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """Offset of the first character of each line; only a line feed ends a line."""
        starts = [0]
        at = self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return tuple(starts)

    @property
    def line_count(self) -> int:
        """Number of lines; a trailing line feed opens a last empty line."""
        return len(self.line_starts)

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column (both from 1) of an offset; one outside the text is moved to the nearest end."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line_text(self, line: int) -> str:
        """Text of a line (from 1) without its end; empty if there is no such line."""
        if not 1 <= line <= self.line_count:
            return ""
        start = self.line_starts[line - 1]
        end = self.line_starts[line] - 1 if line < self.line_count else len(self.text)
        return self.text[start:end].removesuffix("\r")

    def span(self, start: int, end: int) -> Span:
        """Make a span of this file."""
        return Span(self, start, end)

    def __repr__(self) -> str:
        return f"SourceFile({self.path!r}, {len(self.text)} characters)"


@dataclass(frozen=True, eq=False, repr=False)
class Span:
    """The half-open range of characters `[start, end)` of a file.

    Equality ignores the text: spans are compared and hashed in hot places, and a path names one text per run.
    """

    file: SourceFile
    start: int
    end: int

    @staticmethod
    def none() -> Span:
        """Return the span of things that no source text stands for."""
        return NO_SPAN

    @staticmethod
    def merge(first: Span, last: Span) -> Span:
        """Return the smallest span that covers both; a span without a source gives way to the other one."""
        if first.is_none:
            return last
        if last.is_none or last.file.path != first.file.path:
            return first
        return Span(first.file, min(first.start, last.start), max(first.end, last.end))

    @property
    def is_none(self) -> bool:
        """Whether this is the span of something synthesized."""
        return self.file.path == ""

    @property
    def line(self) -> int:
        """Line of the first character, from 1."""
        return self.file.position(self.start)[0]

    @property
    def column(self) -> int:
        """Column of the first character, from 1, counted in characters."""
        return self.file.position(self.start)[1]

    @property
    def end_line(self) -> int:
        """Line of the position just after the last character."""
        return self.file.position(self.end)[0]

    @property
    def end_column(self) -> int:
        """Column of the position just after the last character."""
        return self.file.position(self.end)[1]

    @property
    def text(self) -> str:
        """The characters covered."""
        return self.file.text[self.start : self.end]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Span):
            return NotImplemented
        return self.start == other.start and self.end == other.end and self.file.path == other.file.path

    def __hash__(self) -> int:
        return hash((self.file.path, self.start, self.end))

    def __str__(self) -> str:
        if self.is_none:
            return "<no source>"
        line, column = self.file.position(self.start)
        return f"{self.file.path}:{line}:{column}"

    __repr__ = __str__


NO_SPAN = Span(SourceFile("", ""), 0, 0)
