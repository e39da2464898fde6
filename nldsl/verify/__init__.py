"""Translation validation: a compiled program against its definition, on random inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nldsl.verify.checks import Row

__all__ = ["Verdict", "verify_file"]


@dataclass(frozen=True)
class Verdict:
    """The rows of each backend. ``title`` says what was verified, ``notes`` with which sizes."""

    title: str
    notes: tuple[str, ...]
    backends: tuple[tuple[str, tuple[Row, ...]], ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(row.status != "failed" for _, rows in self.backends for row in rows)


def verify_file(
    path: str | Path,
    name: str | None = None,
    dims: Mapping[str, Any] | None = None,
    backends: Sequence[str] = (),
    ticks: int = 0,
    seed: int = 0,
    text: str | None = None,
    required: bool = False,
) -> Verdict:
    """Verify the memory, block or model ``name`` of a file on every backend, or on those named.

    ``required``: what a backend has no form for is an error.

    Raises DiagnosticError for a program that is wrong.
    """
    from nldsl.verify.run import Plan, verify

    given = tuple(sorted((dims or {}).items()))
    return verify(Plan(path, name, given, tuple(backends), ticks, seed, text, required))
