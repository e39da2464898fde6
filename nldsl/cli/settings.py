"""`--set NAME=VALUE`: the static arguments of a program from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

__all__ = ["OPTION_HELP", "parse_setting", "parse_settings"]

OPTION_HELP = "A static argument of the entry: a number, true, false, or a text."
_WORDS: dict[str, bool] = {"true": True, "false": False}


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """The arguments by name; the same name twice is a mistake."""
    found: dict[str, Any] = {}
    for text in texts:
        name, value = parse_setting(text)
        if name in found:
            raise click.UsageError(f"--set {name} is given twice")
        found[name] = value
    return found


def parse_setting(text: str) -> tuple[str, Any]:
    """One NAME=VALUE."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name.isidentifier():
        raise click.UsageError(f"--set wants NAME=VALUE, not {text!r}")
    for read in (int, float):
        try:
            return name, read(value)
        except ValueError:
            continue
    return name, _WORDS.get(value, value)
