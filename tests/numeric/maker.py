"""Programs written by hand for the tests, a line for each declaration and operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from nldsl.backends.reference import Reference
from nldsl.dims import Dim
from nldsl.ir.build import Builder
from nldsl.ir.program import Axis, Initializer, InputDecl, ParamDecl, Program, Reset, StateDecl
from nldsl.ir.types import BATCH, Clock, Type
from nldsl.ir.verify import verify

Array = np.ndarray[Any, Any]


class Maker:
    """Collects declarations and the body; ``program()`` is the verified result."""

    def __init__(self, batched: bool = True, **axes: int) -> None:
        self.axes = [Axis(BATCH, None)] if batched else []
        self.axes += [Axis(name, size) for name, size in axes.items()]
        names = [a.name for a in self.axes]
        self.body, self.init = Builder(names), Builder(names)
        self.batched = batched
        self.inputs: list[InputDecl] = []
        self.params: list[ParamDecl] = []
        self.states: list[StateDecl] = []
        self.updates: dict[str, int] = {}
        self.outputs: list[tuple[str, int]] = []
        self.losses: list[tuple[str, int]] = []

    def type(self, shape: tuple[Dim, ...], axes: tuple[str, ...], kind: str = "real", shared: bool = False) -> Type:
        own = axes if shared or not self.batched else (BATCH, *axes)
        return Type(shape, self.body.order(own), kind)

    def input(self, name: str, *shape: Dim, kind: str = "real") -> int:
        type = self.type(shape, (), kind)
        self.inputs.append(InputDecl(name, type))
        return self.body.leaf("input", type, name, input=name)

    def param(self, name: str, *shape: Dim, axes: tuple[str, ...] = (), std: float = 1.0) -> int:
        type = Type(shape, axes)
        self.params.append(ParamDecl(name, type, Initializer("normal", (std,))))
        return self.body.leaf("param", type, name, param=name)

    def state(
        self,
        name: str,
        *shape: Dim,
        axes: tuple[str, ...] = (),
        start: float | str = 0.0,
        reset: Reset | None = None,
        shared: bool = False,
    ) -> int:
        """``start``: a number, or the name of a parameter or of an earlier state."""
        type = self.type(shape, axes, shared=shared)
        if isinstance(start, float):
            initial = self.init.const(start)
            initial = self.init.emit("broadcast", initial, shape=shape) if shape else initial
        else:
            known = {("param", p.name): p.type for p in self.params} | {("state", s.name): s.type for s in self.states}
            op = "param" if ("param", start) in known else "state"
            attrs: dict[str, Any] = {op: start}
            initial = self.init.leaf(op, known[op, start], start, **attrs)
        self.states.append(StateDecl(name, type, initial, reset or Reset(), shared=shared))
        return self.body.leaf("state", type, name, state=name)

    def anchor(self, name: str, period: int) -> int:
        type = next(s.type for s in self.states if s.name == name)
        return self.body.leaf("anchor", type, name, state=name, period=period)

    def op(self, op: str, *args: int | float, guard: Clock | None = None, **attrs: Any) -> int:
        """An operation; floats are constants."""
        self.body.guard = guard
        values = [a if isinstance(a, int) else self.body.const(a) for a in args]
        made = self.body.emit(op, *values, **attrs)
        self.body.guard = None
        return made

    def einsum(self, spec: str, *args: int, guard: Clock | None = None) -> int:
        return self.op("einsum", *args, guard=guard, spec=spec)

    def l2(self, a: int, b: int, guard: Clock | None = None) -> int:
        """Half the squared distance of two vectors."""
        d = self.op("sub", a, b, guard=guard)
        total = self.op("sum", self.op("mul", d, d, guard=guard), guard=guard, dims=(0,))
        return self.op("mul", 0.5, total, guard=guard)

    def grad(self, loss: int, *xs: int, guard: Clock | None = None) -> list[int]:
        return [self.op("grad", loss, *xs, guard=guard, index=n) for n in range(len(xs))]

    def program(self) -> Program:
        return verify(
            Program(
                "test",
                tuple(self.axes),
                tuple(self.inputs),
                tuple(self.params),
                tuple(self.states),
                tuple(self.body.instrs),
                tuple(self.updates.items()),
                tuple(self.outputs),
                tuple(self.losses),
                init=tuple(self.init.instrs),
            )
        )


def random_arrays(seed: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape) for name, shape in shapes.items()}


def run(program: Program, inputs: dict[str, Array], params: dict[str, Array] | None = None) -> dict[str, Array]:
    """Outputs, losses and the last states of a run."""
    outputs, losses, state = Reference(program, params or {}).run(inputs)
    found = dict(outputs) | {f"loss {n}": v for n, v in losses.items()}
    return found | {f"state {s.name}": state[s.name] for s in program.states}
