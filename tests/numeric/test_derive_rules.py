"""Every derivative rule: against torch, against the definition (one sweep per lane), and against differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nldsl.backends.reference import Reference, gradients
from nldsl.ir.build import Builder
from nldsl.ir.program import Program
from nldsl.ir.verify import verify
from nldsl.passes.derive import Derive
from nldsl.passes.simplify import Simplify
from tests.numeric.derivative_cases import CASES, Array, Case, Operands, data, operands, scalar_of, torch_scalar

LAYOUTS: dict[str, list[tuple[str, ...]]] = {
    "all": [("batch", "heads")],
    "batch": [("batch",)],
    "shared first": [(), ("batch", "heads")],
    "shared last": [("batch", "heads"), ()],
    "crossed": [("batch",), ("heads",), ("batch", "heads")],
}
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def outputs(program: Program, inputs: dict[str, Array], params: dict[str, Array]) -> dict[str, Array]:
    reference = Reference(program, params)
    found, _ = reference.tick(reference.init_state(3), inputs)
    return found


def in_all_lanes(found: Array, expected: Array) -> Array:
    """A derivative that is the same for all heads (a constant) may have lost that axis, which stands second."""
    return np.broadcast_to(found if found.ndim == expected.ndim else found[:, None], expected.shape)


def with_gradients(case: Case, layout: list[tuple[str, ...]]) -> Operands:
    made = operands(case, layout)
    b = made.builder
    loss = scalar_of(b, case.build(b, *made.values))
    xs = [made.values[i] for i in case.differentiable]
    for n, _ in enumerate(xs):
        b.emit("grad", loss, *xs, index=n)
    return made


def expand(program: Program) -> Program:
    """All stages, each checked."""
    return verify(Simplify().apply(verify(Derive().apply(verify(program)))))


def close(a: Any, b: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@cases
@layouts
def test_derivative_is_that_of_the_definition(case: Case, layout: str) -> None:
    made = with_gradients(case, LAYOUTS[layout])
    grads = [n for n, i in enumerate(made.builder.instrs) if i.op == "grad"]
    program = made.program([(f"g{n}", g) for n, g in enumerate(grads)])
    inputs, params = data(case, made)
    expected = outputs(program, inputs, params)
    for stage in (Derive().apply(program), expand(program)):
        assert all(i.op != "grad" for i in stage.body)
        found = outputs(stage, inputs, params)
        for name, value in expected.items():
            close(in_all_lanes(found[name], value), value)


@cases
def test_first_and_second_derivative_are_torchs(case: Case) -> None:
    made = with_gradients(case, [("batch",)])
    b = made.builder
    firsts = [n for n, i in enumerate(b.instrs) if i.op == "grad"]
    xs = [made.values[i] for i in case.differentiable]
    total = b.const(0.0)
    for g in firsts:
        total = b.emit("add", total, scalar_of(b, g))
    seconds = [b.emit("grad", total, *xs, index=n) for n in range(len(xs))]
    named = [(f"g{n}", g) for n, g in enumerate(firsts)] + [(f"h{n}", h) for n, h in enumerate(seconds)]
    inputs, params = data(case, made)
    found = outputs(expand(made.program(named)), inputs, params)
    for lane in range(3):
        tensors = [torch.tensor(inputs[f"x{i}"][lane]) for i in range(len(case.shapes))]
        leaves = [tensors[i].requires_grad_() for i in case.differentiable]
        y = case.torch(*tensors)
        first = torch_grad(torch_scalar(y), leaves)
        second = torch_grad(sum((torch_scalar(g) for g in first), torch.zeros((), dtype=torch.float64)), leaves)
        for n in range(len(leaves)):
            close(found[f"g{n}"][lane], first[n].detach().numpy())
            close(found[f"h{n}"][lane], second[n].detach().numpy(), 1e-9)


def torch_grad(loss: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    if not loss.requires_grad:
        return [torch.zeros_like(x) for x in leaves]
    return list(torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True))


@cases
@layouts
def test_second_derivative_is_that_of_the_definition(case: Case, layout: str) -> None:
    made = with_gradients(case, LAYOUTS[layout])
    firsts = [n for n, i in enumerate(made.builder.instrs) if i.op == "grad"]
    # the inner derivatives are expanded, the outer ones evaluated by definition
    inner = Derive().apply(made.program([(f"g{n}", g) for n, g in enumerate(firsts)]))
    b = Builder(list(inner.axis_names()), list(inner.body))
    at = {(i.op, i.attrs): n for n, i in enumerate(inner.body)}
    leaves = [made.builder.instrs[made.values[i]] for i in case.differentiable]
    xs = [at[leaf.op, leaf.attrs] for leaf in leaves]
    named = []
    for n, (_, g) in enumerate(inner.outputs):
        loss = scalar_of(b, g)
        named += [(f"h{n}.{k}", b.emit("grad", loss, *xs, index=k)) for k in range(len(xs))]
    made.builder = b
    program = made.program(named)
    inputs, params = data(case, made)
    expected = outputs(program, inputs, params)
    found = outputs(expand(program), inputs, params)
    for name, value in expected.items():
        close(in_all_lanes(found[name], value), value, 1e-9)


@cases
@layouts
def test_tape_agrees_with_differences(case: Case, layout: str) -> None:
    """The numeric rules of the interpreter, in all layouts."""
    made = operands(case, LAYOUTS[layout])
    y = case.build(made.builder, *made.values)
    program = verify(made.program([("y", made.builder.emit("sin", y))]))
    inputs, params = data(case, made)
    sequence = {name: value[:, None] for name, value in inputs.items()}
    shape = outputs(program, inputs, params)["y"].shape
    weights = np.random.default_rng(1).standard_normal((shape[0], 1, *shape[1:]))
    start = Reference(program, params).init_state(3)
    found = gradients(program, params, sequence, {"y": weights}, state=start, ticks=1)

    def total(changed: dict[str, Array]) -> float:
        now_inputs = {n: changed.get(n, v) for n, v in inputs.items()}
        y_now = outputs(program, now_inputs, {n: changed.get(n, v) for n, v in params.items()})["y"]
        return float((y_now[:, None] * weights).sum())

    close(found.value, total({}))
    for name, value in {**inputs, **params}.items():
        if int(name[1:]) not in case.differentiable or case.name == "stop_grad":
            continue
        direction = np.random.default_rng(2).standard_normal(value.shape)
        step = 1e-6
        slope = (total({name: value + step * direction}) - total({name: value - step * direction})) / (2 * step)
        gradient = found.params[name] if name in params else found.inputs[name][:, 0]
        close((gradient * direction).sum(), slope, 1e-6)
