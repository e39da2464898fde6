"""Rendered findings, as the user sees them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nldsl.diagnostics import Diagnostic, Severity
from nldsl.diagnostics.render import render, render_one, summary, visible
from nldsl.source import NO_SPAN, SourceFile, Span
from tests.conftest import Golden

TEXT = """\
memory M(d: dim) {
\tstate S: [d, d] = 0
  read(q: [d]) -> [d] = S @ (q + k)
}
"""
FILE = SourceFile("memories/m.nl", TEXT)


def at(text: str, file: SourceFile = FILE) -> Span:
    start = file.text.index(text)
    return file.span(start, start + len(text))


FINDINGS = {
    "everything": Diagnostic(
        "NL0301",
        "cannot multiply `S` with `q + k`",
        at("q + k"),
        "this is [e]",
        ((at("S @"), "this is [d, d]"), (at("S: [d, d]"), "declared here")),
        ("`d` and `e` are different dimensions",),
        ("write [d]\nor transpose it",),
    ),
    "bare": Diagnostic("NL0001", "nothing else", NO_SPAN),
    "end_of_file": Diagnostic("NL0101", "a brace is missing", FILE.span(len(TEXT), len(TEXT)), "expected `}`"),
    "end_of_line": Diagnostic("NL0101", "a type is missing", FILE.span(18, 18), "here"),
    "several_lines": Diagnostic("NL0206", "unused", FILE.span(0, len(TEXT)), "never used", severity=Severity.WARNING),
    "no_text": Diagnostic("NL0002", "not UTF-8", SourceFile("bad.nl", "").span(7, 8), hints=("convert it",)),
    "other_file": Diagnostic(
        "NL0201",
        "twice",
        at("M"),
        "again",
        ((SourceFile("b.nl", "memory M {}").span(7, 8), "first"),),
        hints=("rename",),
    ),
    "synthesized_related": Diagnostic("NL0201", "clash", at("M"), "here", ((NO_SPAN, "`M` is built in"),)),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_layout(name: str, golden: Golden) -> None:
    golden(render_one(FINDINGS[name]))


def test_hostile_text(golden: Golden) -> None:
    file = SourceFile("e\x1b[0m.nl", "x = \u202e\x1b[2J\x00y # e\u0301\u0301\u0301\u0301 日本 \ud800")
    message = "`\u2066\x07` is no name\nreally"
    golden(
        render_one(Diagnostic("NL0102", message, at("y", file), "a\tb\x08"))
        + render_one(Diagnostic("NL0102", "wide", at("日本", file), "here"))
    )


def test_long_line(golden: Golden) -> None:
    file = SourceFile("long.nl", "a" * 500 + "日本" + "b" * 1_000_000)
    golden(
        render_one(Diagnostic("NL0003", "in the middle", file.span(500, 502), "here"))
        + render_one(Diagnostic("NL0003", "all of it", file.span(0, 1_000_502), "here"), width=40)
        + render_one(Diagnostic("NL0003", "at its end", file.span(1_000_502, 1_000_502), "here"), width=40)
    )


def test_long_message_is_cut() -> None:
    assert len(render_one(Diagnostic("NL0202", "x" * 100_000, NO_SPAN))) < 1_100


def test_color_says_the_same() -> None:
    import re

    for finding in FINDINGS.values():
        painted = render_one(finding, color=True)
        plain = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", painted).split("\n"))
        assert plain == render_one(finding)
        assert "\x1b[" in painted


def test_several_are_separated() -> None:
    two = [FINDINGS["bare"], FINDINGS["no_text"]]
    assert render(two) == render_one(two[0]) + "\n" + render_one(two[1])
    assert render([]) == ""


def test_summary() -> None:
    error, warning = FINDINGS["bare"], FINDINGS["several_lines"]
    assert summary([]) == ""
    assert summary([error]) == "1 error"
    assert summary([error, warning, error], dropped=3) == "2 errors, 1 warning, 3 more not shown"


@given(st.text(max_size=80), st.data())
def test_any_text_is_rendered_safely(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    width = data.draw(st.integers(1, 60))
    related = data.draw(st.integers(0, len(text)))
    file = SourceFile(text[:10], text)
    finding = Diagnostic(
        "NL0101", text, file.span(start, end), text, ((file.span(related, len(text)), text),), (text,), (text,)
    )
    shown = render_one(finding, width=width)
    hidden = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert hidden <= {"\n"}


@pytest.mark.parametrize(
    ("text", "shown"), [("a\nb", "a b"), ("\x00", "\\x00"), ("\U000e0001", "\\U000e0001"), ("é", "é")]
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
