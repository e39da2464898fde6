"""What a native function is for those who call it: its text, its tensors, how many lanes it has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nldsl.backends.interface import FallbackWarning as FallbackWarning
from nldsl.ir.types import Type

Key = tuple[str, int]  # a state (period 0) or its anchor
NUMBERS = (
    "segments",
    "total",
    "offset",
    "tick0",
    "first",
    "batches",
    "sequences",
)  # a table begins with
HEADER = len(NUMBERS)


class UnsupportedError(Exception):
    """A loop that this backend does not lower; the message says which operation, and why."""


@dataclass(frozen=True)
class Argument:
    """A tensor of a call. ``kind``: what it is

    given, param        read
    state               read, and written as it is at the end: a state or an anchor (in a backward loop: its cotangent)
    fixed               a state of another loop
    initial             the initial value of a state that is reset
    output              written: a stream (its cotangent)
    boundary            written by a forward loop, read by a backward one: [segments, ..]
    kept                the same, of the segments of one run: the value ``key`` of the body of the loop
    cotangent_of        read: the cotangent of a stream
    sum                 added to: [lanes, ..]
    """

    kind: str
    key: Any
    type: Type

    @cached_property
    def _hash(self) -> int:
        return hash((self.kind, self.key, self.type))

    def __hash__(self) -> int:
        """Kept: every call looks its tensors up by these."""
        return self._hash


@dataclass(frozen=True)
class Kernel:
    """``text``: the module. ``scratch``: bytes that a thread needs. ``axes``: the lanes but the batch, with sizes.
    ``rows``: see ``KernelWriter``."""

    name: str
    text: str
    arguments: tuple[Argument, ...]
    scratch: int
    axes: tuple[tuple[str, int], ...]
    batched: bool
    ticks: int
    real: str
    rows: int = 0

    def count(self, batch: int) -> int:
        """How many lanes there are."""
        total = batch // (self.rows or 1) if self.batched else 1
        for _, size in self.axes:
            total *= size
        return total
