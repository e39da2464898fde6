"""What calls of a loop need to know of it, without its bodies: small, and as JSON, for the cache of programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.backends.mlir.function import Argument, Kernel
from nldsl.ir.store import plain, restored
from nldsl.ir.types import Clock


@dataclass(frozen=True)
class LoopFacts:
    """``by_ticks``: its segments are single ticks. ``lanes``: axes that only the body has, with sizes. ``whole``: a
    segment looks over the sequences of a batch. ``derived``: it has a way back. ``arguments``: of the function of a
    segment, and what a call keeps in up to ``recompute_above`` bytes."""

    by_ticks: bool
    size: int
    clocks: tuple[Clock, ...]
    lanes: tuple[tuple[str, int | str], ...]
    whole: bool
    derived: bool
    arguments: tuple[Argument, ...]
    recompute_above: int

    def stored(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "by_ticks": self.by_ticks,
            "size": self.size,
            "clocks": plain(self.clocks),
            "lanes": plain(self.lanes),
            "whole": self.whole,
            "derived": self.derived,
            "arguments": _arguments(self.arguments),
            "recompute_above": self.recompute_above,
        }

    @staticmethod
    def read(found: dict[str, Any]) -> LoopFacts:
        """The inverse of ``stored``; raises KeyError, TypeError or ValueError for what it did not make."""
        known = {key: found[key] for key in ("by_ticks", "size", "whole", "derived", "recompute_above")}
        clocks, lanes = restored(found["clocks"]), restored(found["lanes"])
        return LoopFacts(**known, clocks=clocks, lanes=lanes, arguments=_read_arguments(found["arguments"]))


def _arguments(arguments: tuple[Argument, ...]) -> list[Any]:
    return [[a.kind, plain(a.key), plain(a.type)] for a in arguments]


def _read_arguments(found: list[Any]) -> tuple[Argument, ...]:
    return tuple(Argument(kind, restored(key), restored(type)) for kind, key, type in found)


def stored_kernel(kernel: Kernel) -> dict[str, Any]:
    """All of a function but its text."""
    names = ("name", "scratch", "batched", "ticks", "real", "rows")
    found: dict[str, Any] = {n: getattr(kernel, n) for n in names}
    return found | {"arguments": _arguments(kernel.arguments), "axes": plain(kernel.axes)}


def read_kernel(found: dict[str, Any]) -> Kernel:
    """The inverse; the text is empty. Raises KeyError, TypeError or ValueError for anything else."""
    known = {**found, "arguments": _read_arguments(found["arguments"]), "axes": restored(found["axes"])}
    return Kernel(text="", **known)
