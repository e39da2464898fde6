"""Optimizers whose ticks are Triton kernels over all entries of many tensors: ``backends/triton/update_entries.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nldsl.backends.torch.loader import Emitted, load
from nldsl.backends.triton.update_entries import write_entries
from nldsl.ir.entrywise import Tensorwise
from nldsl.runtime.optimizer_numbers import SharedNumbers
from nldsl.runtime.optimizer_rows import ALIGNED, Rows, Shape, state_type

SIZE = 2048  # entries of a block
PARTS = 256  # most pieces of a tensor for a sum
WARPS = 8
BYTES = 16  # what a thread reads at once


class KernelEntryBatch:
    """The parameters that one rule trains entry by entry, all at the same tick.

    ``leads``: the leading dims of each parameter that count copies. ``given``: the numbers that each parameter brings.
    The states are flat tensors of which the entries of ``Optimizer.state`` are views.
    """

    def __init__(
        self,
        rule: Tensorwise,
        members: list[torch.Tensor],
        leads: Sequence[Shape],
        given: Sequence[Sequence[float]],
        capturable: bool = False,
    ) -> None:
        self.rule, self.members = rule, members
        self.kernels = write_entries(rule)
        self._module: Emitted = load(self.kernels.source, "kernels")
        self.numbers = SharedNumbers(rule.shared(), members[0], capturable)
        self.rows = rows = Rows(members, leads if rule.has_sums or given[0] else [()] * len(members))
        own = rule.numbers if rule.has_sums else ()
        self.flat = {n: self._full(rows.entries, start) for n, start, _ in rule.states}
        self.held = {n: self._full(len(rows.counts), start) for n, start, _ in own}
        self._new = {n: torch.empty_like(x) for n, x in self.held.items()}
        blocks, _ = rows.blocks(SIZE)
        pieces, self._spread = rows.blocks(SIZE, PARTS)
        self._blocks, self._pieces = (torch.tensor(x, dtype=torch.int64).to(rows.device) for x in (blocks, pieces))
        self._last: tuple[list[int], list[int], torch.Tensor] | None = None
        self._partials = self._full(self.kernels.partials * len(pieces) // 2, 0.0)
        brought = [x for row, (_, copies) in zip(given, rows.spans, strict=True) for _ in range(copies) for x in row]
        self._given = torch.tensor(brought, dtype=state_type(members[0].dtype)).to(rows.device)

    def _full(self, count: int, start: float) -> torch.Tensor:
        like = self.members[0]
        return torch.full((count,), start, dtype=state_type(like.dtype), device=like.device)

    @property
    def source(self) -> str:
        """The code that computes a tick."""
        return self.kernels.source

    # ------------------------------------------------------------ what the optimizer's ``state`` shows

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the entries of ``Optimizer.state``, one for each member, all at the same tick."""
        self.numbers.restore(states[0])
        for own, (begin, end), (first, copies) in zip(states, self.rows.places, self.rows.spans, strict=True):
            for name, flat in self.flat.items():
                flat[begin:end].copy_(own[name].reshape(-1))
            for name, held in self.held.items():
                held[first : first + copies].copy_(own[name].reshape(-1))

    def publish(self, states: Sequence[dict[str, Any]]) -> None:
        """Make the entries of ``Optimizer.state`` views of the states here."""
        rows = self.rows
        spans = zip(self.members, states, rows.leads, rows.places, rows.spans, strict=True)
        for member, own, lead, (begin, end), (first, copies) in spans:
            for name, flat in self.flat.items():
                own[name] = flat[begin:end].view(member.shape)
            for name, held in self.held.items():
                own[name] = held[first : first + copies].view(lead)
        self._publish_numbers(states)

    def _publish_numbers(self, states: Sequence[dict[str, Any]]) -> None:
        shown = self.numbers.shown()
        for own in states:
            own.update(shown)

    # ------------------------------------------------------------ a tick

    def update(self, factor: float | torch.Tensor, states: Sequence[dict[str, Any]]) -> None:
        """One tick; a member without a gradient has the gradient zero."""
        with self.rows.on_device():
            self._launch(self.numbers.next(factor)[0])
        if self.numbers.rule.numbers and not self.numbers.capturable:
            self._publish_numbers(states)

    def _launch(self, numbers: Sequence[Any]) -> None:
        import triton.language as tl

        rows, like = self.rows, self.members[0]
        gradients, weights = rows.gradients(), rows.weights()
        table = self._table(gradients, weights)
        kind = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float64: tl.float64}
        real = tl.float64 if like.dtype == torch.float64 else tl.float32
        constants: dict[str, Any] = {"KIND": kind.get(like.dtype, tl.float32), "REAL": real, "SIZE": SIZE}
        constants["STORED"] = self.numbers.stored
        if self.kernels.partials:
            constants["PARTS"] = PARTS
        held = [x for name, old in self.held.items() for x in (old, self._new[name])]
        tensors = [*self.flat.values(), *held]
        tensors += [self._partials] * bool(self.kernels.partials) + [self._given] * bool(self.kernels.given)
        launches = [(name, self._pieces) for name in self.kernels.sums] + [(self.kernels.update, self._blocks)]
        for name, work in launches:
            kernel = getattr(self._module, name)
            kernel[(len(work) // 2,)](table, work, *tensors, *numbers, **constants, num_warps=WARPS)
        rows.put()
        for name, old in self.held.items():
            old.copy_(self._new[name])

    def _table(self, gradients: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> torch.Tensor:
        """The columns of ``update_entries.COLUMNS``."""
        rows = self.rows
        g, w = rows.addresses(gradients), rows.addresses(weights)
        if self._last is not None and self._last[:2] == (g, w):
            return self._last[2]
        wide = [
            int(a % BYTES == 0 and b % BYTES == 0 and start % ALIGNED == 0)
            for a, b, start in zip(g, w, rows.starts, strict=True)
        ]
        first, pieces, length = zip(*self._spread, strict=True)
        every = [len(self._pieces) // 2] * len(g)
        table = rows.table(g, w, rows.starts, rows.counts, wide, first, pieces, length, every)
        self._last = g, w, table
        return table
