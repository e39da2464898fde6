"""Derivatives across mapped axes: values shared by lanes, lanes mixed with each other, and the batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nldsl.backends.reference import Reference, gradients
from nldsl.ir.program import Program
from nldsl.ir.verify import verify
from nldsl.passes.derive import Derive, DeriveError
from nldsl.passes.simplify import Simplify
from tests.numeric.maker import Array, Maker, random_arrays


def outputs(program: Program, batch: int = 3) -> dict[str, Array]:
    shapes = {d.name: (batch, 1, *map(int, map(str, d.type.shape))) for d in program.inputs}
    sizes = {a.name: a.size for a in program.axes}
    params = {
        p.name: (*(int(str(sizes[a])) for a in p.type.axes), *map(int, map(str, p.type.shape))) for p in program.params
    }
    found, _, _ = Reference(program, random_arrays(1, **params)).run(random_arrays(0, **shapes))
    return found


def agree(program: Program) -> Program:
    """All stages give what the definition of ``grad`` says; the last one is returned."""
    expected = outputs(program)
    for stage in (derived := verify(Derive().apply(program)), simple := verify(Simplify().apply(derived))):
        found = outputs(stage)
        for name, value in expected.items():
            own = found[name] if found[name].ndim == value.ndim else found[name][:, :, None]
            np.testing.assert_allclose(np.broadcast_to(own, value.shape), value, rtol=1e-10, atol=1e-12)
    return simple


class Heads(Maker):
    """An input, a parameter per head, one for all, and a state per head, joined to one value per head."""

    def __init__(self) -> None:
        super().__init__(heads=2)
        self.x = self.input("x", 3)
        self.own = self.param("own", 3, axes=("heads",))
        self.all = self.param("all", 3)
        self.rows = self.param("rows", 2, 3)
        self.row = self.op("spread", self.rows, axis="heads")
        mixed = self.op("mul", self.x, self.op("add", self.own, self.all))
        self.value = self.op("tanh", self.op("add", mixed, self.row))
        self.variables = [self.x, self.own, self.all, self.rows, self.row]

    def collect(self, value: int) -> int:
        return self.op("collect", value, axis="heads", size=2)

    def spread(self, value: int) -> int:
        return self.op("spread", value, axis="heads")

    def mix(self, value: int) -> int:
        """[3]{heads} to [3]{heads}, each lane from all lanes."""
        together = self.collect(value)
        weights = self.collect(self.own)
        return self.spread(self.op("sin", self.einsum("hi,hj,gj->gi", together, together, weights)))

    def total(self, value: int) -> int:
        return self.op("sum", self.op("mul", value, value), dims=(0,))

    def done(self, loss: int) -> Program:
        self.outputs = [(f"g{n}", g) for n, g in enumerate(self.grad(loss, *self.variables))]
        return self.program()


LOSSES: dict[str, Callable[[Heads], int]] = {
    "one loss per head": lambda m: m.total(m.value),
    "one loss for all heads": lambda m: m.op("sum", m.collect(m.total(m.value)), dims=(0,)),
    "lanes summed": lambda m: m.op("exp", m.op("axis_sum", m.total(m.value), axis="heads")),
    "lanes mixed": lambda m: m.total(m.mix(m.value)),
    "lanes mixed twice": lambda m: m.total(m.mix(m.op("cos", m.mix(m.value)))),
    "lanes mixed, then joined": lambda m: m.op("sum", m.collect(m.total(m.mix(m.value))), dims=(0,)),
    "sum of lanes used in a lane": lambda m: m.op(
        "mul", m.total(m.value), m.op("axis_sum", m.total(m.value), axis="heads")
    ),
    "diagonal of lanes": lambda m: m.total(m.spread(m.op("mul", m.rows, m.value))),
    "joined without the axis": lambda m: m.op(
        "sum", m.einsum("hi,hi->h", m.collect(m.op("mul", m.x, m.all)), m.collect(m.value)), dims=(0,)
    ),
    "joined after the axis was lost": lambda m: m.op(
        "sum", m.op("mul", m.collect(m.op("mul", m.x, m.all)), m.own), dims=(0, 1)
    ),
    "sum of what all lanes share": lambda m: m.op("axis_sum", m.total(m.op("mul", m.x, m.all)), axis="heads"),
    "nothing": lambda m: m.op("sum", m.op("sign", m.x), dims=(0,)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_derivative_per_lane(name: str) -> None:
    made = Heads()
    agree(made.done(LOSSES[name](made)))


@pytest.mark.parametrize("name", LOSSES)
def test_tape_across_lanes(name: str) -> None:
    """The interpreter's own gradients against differences."""
    made = Heads()
    made.outputs = [("loss", LOSSES[name](made))]
    program = made.program()
    params = random_arrays(1, own=(2, 3), all=(3,), rows=(2, 3))
    inputs = random_arrays(0, x=(3, 1, 3))
    value = Reference(program, params).run(inputs)[0]["loss"]
    weights = random_arrays(2, w=value.shape)["w"]
    found = gradients(program, params, inputs, {"loss": weights})
    for key in ("own", "all", "rows", "x"):
        source, slopes = (inputs, found.inputs) if key == "x" else (params, found.params)
        direction, totals = random_arrays(3, d=source[key].shape)["d"], []
        for step in (1e-6, -1e-6):
            moved = {key: source[key] + step * direction}
            outputs, _, _ = Reference(program, params | ({} if key == "x" else moved)).run(
                inputs | (moved if key == "x" else {})
            )
            totals.append(float((outputs["loss"] * weights).sum()))
        expected = (totals[0] - totals[1]) / 2e-6
        np.testing.assert_allclose((slopes[key] * direction).sum(), expected, rtol=1e-6, atol=1e-7)


def test_lanes_of_an_intermediate_value() -> None:
    """A value that was joined and is itself asked for ends the way back: its lanes are not mixed before it."""
    made = Heads()
    together = made.collect(made.value)
    weight = made.param("weight", 3, axes=("heads",))
    loss = made.total(made.op("mul", made.spread(together), weight))
    made.variables = [together, weight]
    simple = agree(made.done(loss))
    assert [a.name for a in simple.axes] == ["batch", "heads"]


def test_mixed_lanes_add_an_axis_only_where_needed() -> None:
    made = Heads()
    assert len(agree(made.done(LOSSES["one loss for all heads"](made))).axes) == 2
    made = Heads()
    assert [a.name for a in agree(made.done(LOSSES["lanes mixed"](made))).axes] == ["batch", "heads", "heads_lane"]


def test_batch_mean() -> None:
    made = Maker()
    x, w = made.input("x", 3), made.param("w", 3)
    mean = made.op("batch_mean", made.op("tanh", made.op("mul", x, w)))
    loss = made.op("sum", made.op("mul", mean, mean), dims=(0,))
    made.outputs = [(f"g{n}", g) for n, g in enumerate(made.grad(loss, x, w))]
    agree(made.program())


def test_mean_of_what_is_shared() -> None:
    made = Maker()
    w = made.param("w", 3)
    x = made.input("x", 3)
    mean = made.op("batch_mean", made.op("mul", w, w))
    loss = made.op("sum", made.op("mul", mean, x), dims=(0,))
    made.outputs = [("g", made.grad(loss, w)[0])]
    agree(made.program())


def test_a_loss_of_one_sequence_must_not_use_others() -> None:
    made = Maker()
    x = made.input("x", 3)
    loss = made.op("sum", made.op("mul", x, made.op("batch_mean", x)), dims=(0,))
    made.outputs = [("g", made.grad(loss, x)[0])]
    with pytest.raises(DeriveError, match="other sequences of the batch"):
        Derive().apply(made.program())


def test_batch_mean_elsewhere_does_not_matter() -> None:
    made = Maker()
    x, w = made.input("x", 3), made.param("w", 3)
    constant = made.op("stop_grad", made.op("batch_mean", made.op("mul", x, w)))
    loss = made.op("sum", made.op("mul", constant, w), dims=(0,))
    made.outputs = [("g", made.grad(loss, w)[0])]
    agree(made.program())
