"""Ctrl-C asks a run to stop after the current step; a second one stops it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """While it is entered, SIGINT and SIGTERM set `received` instead of stopping the process."""

    def __init__(self) -> None:
        self.received = 0
        self._old: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """The code by which a shell knows the signal: 130 for Ctrl-C; 0 if there was none."""
        return 128 + self.received if self.received else 0

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
