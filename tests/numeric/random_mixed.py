"""Random recurrences that also have windows of streams and of answers, and full linear maps of their states."""

from __future__ import annotations

from nldsl.ir.types import Clock
from tests.numeric.random_recurrences import CLOCKS, K, Recurrence, V
from tests.numeric.window_programs import mask, softmax, window


class Mixed(Recurrence):
    """``Recurrence`` with more ways to read and to update."""

    def seen(self, stream: int) -> tuple[int, int]:
        """A window of a stream and its length."""
        n = self.draw.choice((2, 3, 6, 12))
        reset = Clock(4) if self.draw.random() < 0.1 else None
        return window(self.m, stream, n, f"w{len(self.m.states)}", reset), n

    def read(self, side: str) -> int:
        kind = self.draw.choice(("state", "state", "sum", "attention", "filter"))
        size = V if side == "v" else K
        if kind == "state":
            return super().read(side)
        stream = super().read(side) if self.draw.random() < 0.3 else self.input(size)
        rows, n = self.seen(stream)
        if kind == "sum":
            return int(self.m.mul(0.3, self.m.sum(rows, dims=(0,))))
        if kind == "filter":
            weight = self.m.tanh(self.gate((n,), (n, size)))
            flat = self.m.reshape(weight, shape=(n, 1)) if self.m.body.type(weight).shape == (n,) else weight
            return int(self.m.mul(0.4, self.m.sum(self.m.mul(rows, flat), dims=(0,))))
        scores = self.m.ein("ij,j->i", rows, self.input(size))
        if self.draw.random() < 0.7:
            scores = self.m.where(mask(self.m, n), scores, -1e30)
        return int(self.m.ein("i,ij->j", softmax(self.m, scores), rows))

    def update(self, name: str) -> int:
        new, (value, rank) = super().update(name), self.states[name]
        if self.draw.random() < 0.25:
            self.count += 1
            make = self.m.input if self.draw.random() < 0.5 else self.m.param
            if rank == 1 or self.draw.random() < 0.5:
                a = self.m.mul(0.5, make(f"A{self.count}", V, V))
                new = self.m.ein("ij,jk->ik" if rank == 2 else "ij,j->i", a, new)
            else:
                new = self.m.ein("ij,jk->ik", new, self.m.mul(0.5, make(f"B{self.count}", K, K)))
        if self.draw.random() < 0.1:
            new = self.m.when(new, value, clock=self.draw.choice(CLOCKS))
        return int(new)
