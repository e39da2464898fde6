"""Random recurrences that no paper has: states of several shapes that read, write, decay and feed one another."""

from __future__ import annotations

import random

from nldsl.ir.program import Program
from nldsl.ir.types import Clock
from tests.numeric.chunk_run import Maker

V, K = 3, 4
CLOCKS = (Clock(3), Clock(4), Clock(2, start=True))


class Recurrence:
    """Makes one program; everything that happens is drawn from ``draw``."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.m = Maker(heads=2)
        self.count = 0
        self.states: dict[str, tuple[int, int]] = {}  # name -> value, number of dims
        self.anchored = self.draw.random() < 0.3

    def input(self, *shape: int) -> int:
        self.count += 1
        return self.m.input(f"x{self.count}", *shape)

    def gate(self, *shapes: tuple[int, ...]) -> int:
        shape = self.draw.choice(shapes)
        kind = self.draw.choice(("input", "param", "number"))
        if kind == "number":
            return self.m.body.const(self.draw.choice((0.5, -0.7, 0.9)))
        self.count += 1
        raw = self.m.input(f"g{self.count}", *shape) if kind == "input" else self.m.param(f"g{self.count}", *shape)
        return int(self.draw.choice((self.m.sigmoid, self.m.tanh))(raw))

    def read(self, side: str) -> int:
        """A vector on one side: [V] by a key, or [K] by a value; of a matrix, a sum of them, or a vector state."""
        found: int | None = None
        size = V if side == "v" else K
        for _ in range(self.draw.choice((1, 1, 2))):
            name, (value, rank) = self.draw.choice(list(self.states.items()))
            if self.anchored and self.draw.random() < 0.5:
                value = self.m.anchor(name, 3)
            if rank == 2:
                part = self.m.ein("ij,j->i", value, self.input(K)) if side == "v" else None
                part = self.m.ein("ij,i->j", value, self.input(V)) if part is None else part
            elif side == "v":
                part = self.m.mul(value, self.gate((), (V,)))
            else:
                part = self.m.mul(self.m.sum(value, dims=(0,)), self.input(K))
            if self.anchored and self.draw.random() < 0.3:
                part = self.m.tanh(part)
            found = part if found is None else self.m.add(found, part)
        assert found is not None
        found = self.m.mul(self.gate((), (size,)), self.m.sub(found, self.input(size)))
        return int(found)

    def update(self, name: str) -> int:
        value, rank = self.states[name]
        shapes: list[tuple[int, ...]] = [(), (V, 1), (K,), (V, K)] if rank == 2 else [(), (V,)]
        new = self.m.mul(value, self.gate(*self.draw.choices(shapes, (4, 1, 2, 0.3) if rank == 2 else (2, 1), k=1)))
        if self.draw.random() < 0.3:
            new = value
        for _ in range(self.draw.choice((1, 1, 2))):
            if rank == 1:
                new = self.m.add(new, self.read("v"))
                continue
            side = self.draw.choice("vvvk")
            written = self.read(side) if self.draw.random() < 0.8 else self.input(V if side == "v" else K)
            pair = (written, self.input(K)) if side == "v" else (self.input(V), written)
            new = self.m.sub(new, self.m.mul(0.5, self.m.ein("i,j->ij", *pair)))
        if self.draw.random() < 0.4:  # fed by another state, before or after its own update
            other = self.draw.choice([n for n, (_, r) in self.states.items() if r == rank])
            source = self.m.updates[other] if self.draw.random() < 0.5 else self.states[other][0]
            new = self.m.add(new, self.m.mul(self.gate(()), source))
        if self.draw.random() < 0.15:
            new = self.m.when(new, value, clock=self.draw.choice(CLOCKS))
        return int(new)

    def program(self) -> Program:
        for n in range(self.draw.choice((1, 1, 2, 3))):
            shape = (V, K) if n == 0 or self.draw.random() < 0.7 else (V,)
            reset = Clock(5) if self.draw.random() < 0.1 else None
            self.states[f"s{n}"] = self.m.state(f"s{n}", *shape, reset=reset), len(shape)
        for name in self.states:
            self.m.updates[name] = self.update(name)
        for name, (value, rank) in self.states.items():
            new = self.m.updates[name]
            self.m.outputs[name + "_after"] = (
                self.m.ein("ij,j->i", new, self.input(K)) if rank == 2 else self.m.tanh(new)
            )
            if self.draw.random() < 0.5:
                self.m.outputs[name + "_before"] = value
        return self.m.program()
