"""`--require-backend`, and what backends remark: said once, in the words of the command line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from .output import note

__all__ = ["remarks", "require_backend"]


def require_backend(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option, for a command that takes a backend."""
    text = "What the backend has no form for is an error (NL0795); otherwise it is said once, and runs as in torch."
    return click.option("--require-backend", is_flag=True, help=text)(command)


@contextmanager
def remarks() -> Iterator[None]:
    """Show warnings of this package as remarks, each text once; others are shown as Python does."""
    said: set[str] = set()
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not category.__module__.startswith("nldsl."):
                usual(message, category, *place, **more)
            elif str(message) not in said:
                said.add(str(message))
                note(f"remark: {message}")

        warnings.showwarning = show
        yield
