"""The one renderer of diagnostics: a headline, the source with a caret line, notes and hints.

The text shown may be hostile: control and bidirectional characters are made visible, so that what a terminal displays
is what the file says; long lines are cut around the span; a span whose source is gone is named without a snippet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from nldsl.source import SourceFile, Span

from .diagnostic import Diagnostic, Severity

__all__ = ["render", "render_one", "summary", "visible"]

_TAB = "    "
_ELLIPSIS = "..."
# Marks above a letter are kept up to this number; more of them in a row climb over the lines above.
_MARKS_KEPT = 2
# A name from a program can be as long as the program; a message that quotes it is cut in the middle.
_LONGEST_TEXT = 1000

_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}
_FRAME = "bold blue"

Segment = tuple[str, str]
Line = list[Segment]


@dataclass(frozen=True)
class _Mark:
    """One underlined range of one line, in characters from 0."""

    start: int
    end: int
    sign: str
    label: str
    style: str


def render(diagnostics: Iterable[Diagnostic], *, color: bool = False, width: int = 110) -> str:
    """Render findings one after the other, separated by an empty line; `width` limits the cells of a source line."""
    return "\n".join(render_one(d, color=color, width=width) for d in diagnostics)


def render_one(diagnostic: Diagnostic, *, color: bool = False, width: int = 110) -> str:
    """Render one finding as text that ends with a line feed."""
    lines = _layout(diagnostic, max(width, 20))
    if color:
        return _paint(lines)
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)


def summary(diagnostics: Iterable[Diagnostic], dropped: int = 0) -> str:
    """Count the findings, as `2 errors, 1 warning`; empty if there are none."""
    found = list(diagnostics)
    parts = []
    for severity in (Severity.ERROR, Severity.WARNING):
        count = sum(d.severity is severity for d in found)
        if count:
            parts.append(f"{count} {severity.value}{'s' if count > 1 else ''}")
    if dropped:
        parts.append(f"{dropped} more not shown")
    return ", ".join(parts)


def visible(text: str) -> str:
    """Make every character that moves the cursor, hides or reorders text visible; line feeds become spaces."""
    if len(text) > _LONGEST_TEXT:
        text = text[: _LONGEST_TEXT // 2] + _ELLIPSIS + text[-_LONGEST_TEXT // 2 :]
    return "".join(shown for shown, _ in _cells(text.replace("\n", " ")))


def _paint(lines: list[Line]) -> str:
    # rich takes a tenth of a second to import: only a terminal pays for it.
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    out = StringIO()
    console = Console(
        file=out, force_terminal=True, color_system="standard", highlight=False, emoji=False, width=10_000
    )
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True, no_wrap=True)
    return out.getvalue()


def _layout(d: Diagnostic, width: int) -> list[Line]:
    head: Line = [(f"{d.severity.value}[{d.code}]", _STYLES[d.severity]), (f": {visible(d.message)}", "bold")]
    blocks = _blocks(d)
    digits = max((len(str(n)) for _, marked in blocks for n in marked), default=1)
    lines = [head]
    for index, (anchor, marked) in enumerate(blocks):
        arrow = "-->" if index == 0 else ":::"
        place = str(anchor) if marked else anchor.file.path
        lines.append([(" " * digits + arrow + " ", _FRAME), (visible(place), "")])
        lines += _snippet(anchor.file, marked, digits, width)
    if (d.notes or d.hints) and blocks and blocks[-1][1]:
        lines.append([(" " * digits + " |", _FRAME)])
    for span, text in d.related:
        if span.is_none and text:
            lines += _remark("note", text, digits)
    for text in d.notes:
        lines += _remark("note", text, digits)
    for text in d.hints:
        lines += _remark("hint", text, digits)
    return lines


def _remark(kind: str, text: str, digits: int) -> list[Line]:
    first, *rest = text.split("\n")
    indent = " " * (digits + 3 + len(kind) + 2)
    lines: list[Line] = [[(" " * digits + " = ", _FRAME), (kind, "bold"), (f": {visible(first)}", "")]]
    lines += [[(indent + visible(more), "")] for more in rest]
    return lines


def _has_text(span: Span) -> bool:
    return bool(span.file.text) and 0 <= span.start <= span.end <= len(span.file.text)


def _blocks(d: Diagnostic) -> list[tuple[Span, dict[int, list[_Mark]]]]:
    """Marks by file and line, the file of the finding itself first. A file whose text is gone has no lines."""
    blocks: dict[str, tuple[Span, dict[int, list[_Mark]]]] = {}
    annotations = [(d.span, d.label, "^", _STYLES[d.severity])]
    annotations += [(span, text, "-", _FRAME) for span, text in d.related]
    for span, label, sign, style in annotations:
        if span.is_none:
            continue
        _, marked = blocks.setdefault(span.file.path, (span, {}))
        if _has_text(span):
            for line, mark in _marks(span, label, sign, style):
                marked.setdefault(line, []).append(mark)
    return list(blocks.values())


def _marks(span: Span, label: str, sign: str, style: str) -> list[tuple[int, _Mark]]:
    """One mark, or, for a span over several lines, one on its first and one on its last line."""
    file = span.file
    line, column = file.position(span.start)
    end_line, end_column = file.position(span.end)
    if end_line > line and end_column == 1:
        # The span ends with a line feed: its last line is the one before.
        end_line -= 1
        end_column = len(file.line_text(end_line)) + 1
    if end_line == line:
        return [(line, _Mark(column - 1, max(end_column - 1, column), sign, label, style))]
    first = file.line_text(line)
    last = file.line_text(end_line)
    indent = len(last) - len(last.lstrip())
    return [
        (line, _Mark(column - 1, max(len(first.rstrip()), column), sign, "from here", style)),
        (end_line, _Mark(min(indent, end_column - 2), end_column - 1, sign, label or "to here", style)),
    ]


def _snippet(file: SourceFile, marked: dict[int, list[_Mark]], digits: int, width: int) -> list[Line]:
    if not marked:
        return []
    gutter: Segment = (" " * digits + " | ", _FRAME)
    lines: list[Line] = [[(" " * digits + " |", _FRAME)]]
    previous = 0
    for number in sorted(marked):
        if previous and number > previous + 1:
            lines.append([("." * 3, _FRAME)])
        previous = number
        marks = sorted(marked[number], key=lambda m: (m.start, m.end, m.sign))
        shown, columns = _cut(file.line_text(number), marks, width)
        lines.append([(f"{number:>{digits}} | ", _FRAME), (shown, "")])
        for mark in marks:
            start = columns(mark.start)
            under = mark.sign * max(columns(mark.end) - start, 1)
            label = f" {visible(mark.label)}" if mark.label else ""
            lines.append([gutter, (" " * start, ""), (under + label, mark.style)])
    return lines


@dataclass(frozen=True)
class _Columns:
    """Maps the index of a character to its cell, for a line of which only the part from `first` on is shown."""

    first: int
    starts: tuple[int, ...]

    def __call__(self, index: int) -> int:
        last = len(self.starts) - 1
        at = max(index - self.first, 0)
        # A mark may stand one past the end of its line, as for a missing token.
        return self.starts[at] if at <= last else self.starts[last] + 1


def _cut(text: str, marks: list[_Mark], width: int) -> tuple[str, _Columns]:
    """The part of a line to show: all of it if it fits, else a window that holds the start of the main mark."""
    focus = min(next((m.start for m in marks if m.sign == "^"), marks[0].start), len(text))
    # Only the neighbourhood is looked at: a line can be a megabyte long.
    low, high = max(0, focus - width), min(len(text), focus + width)
    cells = _cells(text[low:high])
    widths = [w for _, w in cells]
    focus -= low
    first, last = 0, len(cells)
    if low > 0 or high < len(text) or sum(widths) > width:
        first = _reach(widths, focus, -1, width // 3)
        last = _reach(widths, focus, +1, width)
    before = _ELLIPSIS if low + first > 0 else ""
    after = _ELLIPSIS if low + last < len(text) else ""
    shown = before + "".join(s for s, _ in cells[first:last]) + after
    starts = tuple(accumulate(widths[first:last], initial=len(before)))
    return shown, _Columns(low + first, starts)


def _reach(widths: list[int], at: int, step: int, budget: int) -> int:
    """Where one gets from the boundary `at` in a direction before `budget` cells are used up."""
    while True:
        crossed = at if step > 0 else at - 1
        if not 0 <= crossed < len(widths) or budget < widths[crossed]:
            return at
        budget -= widths[crossed]
        at += step


def _cells(text: str) -> list[tuple[str, int]]:
    """What stands for each character, and how many cells of a terminal it takes."""
    cells: list[tuple[str, int]] = []
    marks = 0
    for char in text:
        if " " <= char <= "~":
            cells.append((char, 1))
            marks = 0
            continue
        if char == "\t":
            cells.append((_TAB, len(_TAB)))
            continue
        category = unicodedata.category(char)
        if category in ("Mn", "Me") and cells and marks < _MARKS_KEPT:
            marks += 1
            cells.append((char, 0))
        elif category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Mn", "Me"):
            shown = _escape(char)
            cells.append((shown, len(shown)))
        else:
            cells.append((char, 2 if unicodedata.east_asian_width(char) in "WF" else 1))
            marks = 0
    return cells


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
