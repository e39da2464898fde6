"""How often memories really change: a model reads token by token, and each state is compared with what it was.

This looks at values only and knows nothing of how the module was compiled: it checks what the program declares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from nldsl.ir.program import StateDecl
from nldsl.train.interface import TrainableModule

__all__ = ["MemoryCadence", "observe"]


@dataclass(frozen=True)
class MemoryCadence:
    """A memory whose states are declared to change every `period` tokens, and the ticks at which one changed."""

    memory: str
    period: int
    ticks: int
    changed: tuple[int, ...] = field(repr=False)

    @property
    def declared(self) -> int:
        """How many of the ticks are ticks of the memory's clock."""
        return self.ticks // self.period

    @property
    def agrees(self) -> bool:
        """Whether it changed at the ticks of its clock and at no other."""
        return self.changed == tuple(range(self.period, self.ticks + 1, self.period))


def observe(module: TrainableModule, tokens: Sequence[int]) -> list[MemoryCadence]:
    """Step through the tokens and return what each memory did, in the order of the program."""
    groups: dict[tuple[str, int], list[StateDecl]] = {}
    for state in module.program.states:
        if not state.hidden and state.reset.kind != "clock":
            groups.setdefault((state.owner, state.clock.period if state.clock else 1), []).append(state)
    changed: dict[tuple[str, int], list[int]] = {key: [] for key in groups}
    ticks = 0
    with torch.no_grad():
        now = module.init_state(1)
        for token in tokens:
            before = {state.name: now["states"][state.name].clone() for g in groups.values() for state in g}
            _, now = module.step(torch.tensor([token]), now)
            if now["tick"] == ticks:  # this token waits for the next one
                continue
            ticks = now["tick"]
            for key, states in groups.items():
                if any(not torch.equal(before[state.name], now["states"][state.name]) for state in states):
                    changed[key].append(ticks)
    return [MemoryCadence(owner, period, ticks, tuple(changed[owner, period])) for owner, period in groups]
