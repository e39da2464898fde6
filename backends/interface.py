"""What a backend is."""

from __future__ import annotations

from typing import Any, Protocol

from nldsl.ir.schedule import Schedule


class Backend(Protocol):
    """Turns a schedule into code for a target."""

    @property
    def name(self) -> str: ...

    def emit(self, schedule: Schedule) -> str:
        """The code as text."""

    def load(self, source: str, schedule: Schedule) -> Any:
        """The functions of that code, as ``runtime/module.py`` calls them."""
