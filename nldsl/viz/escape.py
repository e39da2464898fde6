"""The one place where text from a program is made safe for a picture.

Names may come from anywhere, and a picture is opened by people who did not write the program. Everything that a
program may have chosen passes through `plain` first; then through the escape of the format it goes into.
"""

from __future__ import annotations

import html
import json
import unicodedata
from typing import Any

__all__ = ["dot_html", "html_text", "mermaid_text", "plain", "script_json"]

_REPLACEMENT = "�"
# Besides controls and unassigned ones: marks that reorder or hide the text around them.
_HIDDEN = frozenset("\u200b\u200c\u200d\u2060\ufeff\u061c\u200e\u200f\u2028\u2029")


def plain(text: str, limit: int = 64) -> str:
    """One line of visible characters, at most `limit` of them."""
    shown = "".join(_visible(c) for c in text[: 4 * limit])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _visible(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if character in _HIDDEN or unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn"):
        return _REPLACEMENT
    return character


def html_text(text: str, limit: int = 64) -> str:
    """For the text or a quoted attribute of HTML or SVG."""
    return html.escape(plain(text, limit), quote=True)


def dot_html(text: str, limit: int = 64) -> str:
    """For the text of an HTML-like label of DOT.

    Graphviz replaces `\\N` and others even where the backslash is an entity: it becomes a sign that looks like one.
    """
    return html_text(text, limit).replace("\\", "∖")


def mermaid_text(text: str, limit: int = 64) -> str:
    """For a quoted text of Mermaid: everything that is not plainly a letter, digit or mild punctuation as an entity."""
    return "".join(c if c.isalnum() or c in " .,_-×·" else f"#{ord(c)};" for c in plain(text, limit))


def script_json(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end the element or start a comment or an entity."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
