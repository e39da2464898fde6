from __future__ import annotations

import json

import pytest

from nldsl.viz.escape import dot_html, html_text, mermaid_text, plain, script_json


def test_plain_is_one_visible_line() -> None:
    assert plain("a\nb\tc\x00\x1b[31m") == "a b c�" + "�[31m"
    assert plain("name") == "name"
    assert plain("gradient ∇ of θ") == "gradient ∇ of θ"


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\ud800", "\ue000"])
def test_marks_that_reorder_or_hide_are_shown(mark: str) -> None:
    assert plain(f"a{mark}b") == "a�b"


def test_long_names_are_cut() -> None:
    assert plain("x" * 100, 10) == "x" * 9 + "…"
    assert len(plain("x" * 10**6)) == 64


def test_html() -> None:
    assert html_text("<b a=\"1\" c='2'>&") == "&lt;b a=&quot;1&quot; c=&#x27;2&#x27;&gt;&amp;"


def test_dot_has_no_escapes_left() -> None:
    assert dot_html("a\\N<") == "a∖N&lt;"


def test_mermaid_keeps_words_only() -> None:
    assert mermaid_text('a"]; click b1 "x"') == "a#34;#93;#59; click b1 #34;x#34;"


def test_json_cannot_leave_its_element() -> None:
    value = {"</script><script>alert(1)</script>": ["<!--", "&lt;", "\u2028"]}
    text = script_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value
