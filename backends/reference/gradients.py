"""Gradients of a whole sequence, for comparing other backends' gradients with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from nldsl.backends.reference.interpreter import Reference, State
from nldsl.backends.reference.tape import Tape
from nldsl.backends.reference.values import Array, Frame, Value
from nldsl.ir.program import Program
from nldsl.ir.types import BATCH


@dataclass(frozen=True)
class Gradients:
    """Derivatives of ``value`` with respect to parameters, states before the first tick, and real inputs; and what
    the run gave."""

    value: float
    params: dict[str, Array]
    states: dict[str, Array]
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    losses: dict[str, Array]
    state: State


def gradients(
    program: Program,
    params: Mapping[str, Array],
    inputs: Mapping[str, Array],
    output_weights: Mapping[str, Array] | None = None,
    loss_weights: Mapping[str, Array] | None = None,
    state_weights: Mapping[str, Array] | None = None,
    state: State | None = None,
    ticks: int | None = None,
) -> Gradients:
    """The gradients of ``sum(weights * outputs) + sum(weights * losses) + sum(weights * last states)``.

    Weights have the shapes of what they weigh. The initial states are a function of the parameters unless ``state``
    is given; in both cases ``states`` are the derivatives with respect to their values. ``program`` must have no
    ``grad`` left.
    """
    tape = Tape()
    reference = Reference(program, params, tape)
    sequence = reference.sequence_of(inputs)
    state = state or reference.init_state(reference.batch_of(sequence))
    starts = {name: _own_node(tape, value) for name, value in state.values.items()}
    anchors = {key: starts[key[0]] if state.tick == 0 else value for key, value in state.anchors.items()}
    first = replace(state, values=starts, anchors=anchors)
    steps, last = reference.run_values(sequence, first, ticks)

    seeds: dict[int, Array] = {}
    total = 0.0

    def weigh(value: Value, weights: Array) -> None:
        nonlocal total
        total += float(np.sum(weights * value.array))
        if value.node >= 0:
            seeds[value.node] = seeds.get(value.node, 0.0) + np.broadcast_to(weights, value.array.shape)

    time = int(reference.batched)
    for t, step in enumerate(steps):
        for name, weights in (output_weights or {}).items():
            weigh(step.outputs[name], np.take(weights, t, time))
        for name, weights in (loss_weights or {}).items():
            weigh(step.losses[name], np.take(weights, t, time))
    for name, weights in (state_weights or {}).items():
        weigh(last.values[name], weights)

    found = tape.backward(seeds)

    def of(value: Value) -> Array:
        return np.asarray(found.get(value.node, np.zeros(value.array.shape)))

    return Gradients(
        total,
        {name: of(value) for name, value in reference.params.items()},
        {name: of(value) for name, value in starts.items()},
        {
            d.name: np.stack([of(v) for v in sequence[d.name]], axis=int(BATCH in d.type.axes))
            for d in program.inputs
            if d.type.kind == "real"
        },
        {n: reference.stacked(s.outputs[n] for s in steps) for n in (steps[0].outputs if steps else ())},
        {n: reference.stacked(s.losses[n] for s in steps) for n in (steps[0].losses if steps else ())},
        last,
    )


def _own_node(tape: Tape, value: Value) -> Value:
    """``value`` as a node of its own, so that two states with the same initial value are told apart."""
    if value.node < 0:
        return tape.leaf(value.array, value.type)
    frame = Frame(value.type.axes, value.type, {})
    return tape.record("same", frame, [value], [value.array], value.array)
