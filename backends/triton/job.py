"""What a kernel generator is asked for: a body that runs once for each segment, forward or backward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nldsl.dims import Dim
from nldsl.ir.program import Instr
from nldsl.ir.types import BATCH, TIME, Clock, Type

Key = tuple[str, int]  # a state (period 0) or one of its anchors


@dataclass(frozen=True)
class Source:
    """A tensor in canonical layout: the mapped axes of its type (batch, time, others), then the logical dims. ``wide``:
    it is at least float32, whatever the others are."""

    name: str
    type: Type
    wide: bool = field(default=False, compare=False)


def final(source: Source) -> Source:
    """The tensor that gets the last value of a carried variable."""
    return Source(f"{source.name}_out", source.type)


@dataclass(frozen=True)
class Job:
    """``body`` runs for the segments in order, or from the last one if ``reverse``. ``sources`` has the tensor behind
    each leaf that is one; ``carried`` the leaves that are loop variables, by key, ``carry`` their new values;
    ``boundaries`` are leaves that hold what a forward run saved at the beginning of each segment. ``outputs`` are
    streams to write, ``sums`` values to add up over segments. ``keep``: the carried values that are to be saved at the
    beginning of each segment. ``numbers`` are leaves that are known.
    ``equations``: the statements of the program, for readers."""

    name: str
    body: tuple[Instr, ...]
    stages: tuple[int | None, ...]
    axes: tuple[tuple[str, Dim | None], ...]
    sources: Mapping[int, Source]
    carried: Mapping[int, Key]
    boundaries: Mapping[int, Key]
    variables: Mapping[Key, Source]
    carry: tuple[tuple[Key, int], ...]
    outputs: tuple[tuple[Source, int], ...] = ()
    sums: tuple[tuple[Source, int], ...] = ()
    anchors: tuple[Key, ...] = ()
    resets: Mapping[str, tuple[Clock, Source]] = field(default_factory=dict)
    keep: tuple[Key, ...] = ()
    reverse: bool = False
    numbers: Mapping[int, str] = field(default_factory=dict)
    equations: tuple[str, ...] = ()

    @property
    def lanes(self) -> tuple[str, ...]:
        """The mapped axes along which nothing mixes: programs of the launch divide them."""
        mixed = set()
        for value, instr in enumerate(self.body):
            if self.stages[value] is None:
                continue
            if instr.op in ("spread", "collect", "axis_sum", "lane"):
                mixed.add(instr.attr("axis"))
            if instr.op == "batch_mean":
                mixed.add(BATCH)
        used = [a for i, s in zip(self.body, self.stages, strict=True) if s is not None for a in i.type.axes]
        used += [a for source in self.variables.values() for a in source.type.axes]
        return tuple(name for name, _ in self.axes if name in used and name not in mixed and name != TIME)

    def axis_size(self, axis: str) -> Dim | None:
        return next(size for name, size in self.axes if name == axis)
