"""Instructions of a program written again into another body, over leaves of that body."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from nldsl.ir.build import Builder
from nldsl.ir.program import Instr


@dataclass
class Copies:
    """``leaf`` writes what stands for a value that is not copied; ``made``: the new value of each old one."""

    builder: Builder
    body: Sequence[Instr]
    leaf: Callable[[int], int]
    made: dict[int, int] = field(default_factory=dict)

    def take(self, v: int) -> int:
        """The new value of ``v``: its copy, or else its leaf."""
        if v not in self.made:
            self.made[v] = self.leaf(v)
        return self.made[v]

    def run(self, values: Iterable[int]) -> None:
        """Copy these, in order and under their guards. Those without operands become leaves."""
        builder = self.builder
        for v in values:
            instr = self.body[v]
            if not instr.args:
                self.take(v)
                continue
            args = [self.take(a) for a in instr.args]
            builder.guard = instr.guard
            self.made[v] = builder.emit(instr.op, *args, name=instr.name, span=instr.span, **dict(instr.attrs))
            builder.guard = None
