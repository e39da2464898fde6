"""A program compiled by one backend, and the reference interpreter, behind one interface of NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nldsl.ir.program import Program
from nldsl.ir.schedule import RECOMPUTE_ABOVE

if TYPE_CHECKING:
    import torch

    from nldsl.runtime.module import Module
    from nldsl.runtime.state import State

Array = NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Run:
    """What a run over a sequence gives; ``gradients`` by what they are taken with respect to."""

    outputs: Arrays
    losses: Arrays
    states: Arrays
    params: Arrays = field(default_factory=dict)
    inputs: Arrays = field(default_factory=dict)
    starts: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """What the outputs, losses and last states are multiplied with before they are summed up and differentiated."""

    outputs: Arrays
    losses: Arrays
    states: Arrays

    @staticmethod
    def random(run: Run, seed: int) -> Weights:
        rng = np.random.default_rng(seed)

        def like(arrays: Arrays) -> Arrays:
            return {name: rng.standard_normal(x.shape) for name, x in arrays.items()}

        return Weights(like(run.outputs), like(run.losses), like(run.states))


def rounded(arrays: Arrays) -> Arrays:
    """Real numbers as they are in float32."""
    return {name: _rounded(x) for name, x in arrays.items()}


def _rounded(array: Array) -> Array:
    return np.asarray(array.astype(np.float32).astype(array.dtype) if array.dtype.kind == "f" else array)


class ReferenceSubject:
    """The reference interpreter."""

    name = "reference"

    def __init__(self, program: Program, params: Arrays) -> None:
        self.program = program
        self.params = params

    def run(self, inputs: Arrays, ticks: int) -> Run:
        from nldsl.backends.reference.interpreter import Reference

        outputs, losses, state = Reference(self.program, self.params).run(inputs, ticks=ticks)
        return Run(outputs, losses, {s.name: state[s.name] for s in self.program.states})

    def run_rounded(self, inputs: Arrays, ticks: int) -> Run:
        """The same with inputs, parameters, and the states after every tick rounded to float32: how far rounding
        moves the program itself."""
        from nldsl.backends.reference.interpreter import Reference

        reference = Reference(self.program, rounded(self.params))
        sequence = reference.sequence_of(rounded(inputs))
        state = reference.init_state(reference.batch_of(sequence))
        steps = []
        for tick in range(ticks):
            step = reference.step(state, {name: values[tick] for name, values in sequence.items()})
            values = {n: replace(v, array=_rounded(v.array)) for n, v in step.state.values.items()}
            state = replace(step.state, values=values)
            steps.append(step)
        return Run(
            {n: reference.stacked(s.outputs[n] for s in steps) for n, _ in self.program.outputs},
            {n: reference.stacked(s.losses[n] for s in steps) for n in dict(self.program.losses)},
            {s.name: state[s.name] for s in self.program.states},
        )

    def gradients(self, inputs: Arrays, ticks: int, weights: Weights) -> Run:
        from nldsl.backends.reference.gradients import gradients

        found = gradients(
            self.program, self.params, inputs, weights.outputs, weights.losses, weights.states, ticks=ticks
        )
        return Run({}, {}, {}, found.params, found.inputs, found.states)


class ModuleSubject:
    """A module of a backend that gives ``torch.nn.Module``s, in float64 or float32."""

    def __init__(
        self,
        name: str,
        program: Program,
        params: Mapping[str, Array],
        single: bool = False,
        disabled: frozenset[str] = frozenset(),
        recompute: bool = False,
        required: bool = False,
    ) -> None:
        """``disabled``: optional passes to leave out. ``recompute``: loops keep nothing for their backward pass that
        they can compute again, however small they are. ``required``: what the backend has no form for is an
        error."""
        import torch

        from nldsl.runtime.build import build_module

        self.name = name
        self.program = program
        self.dtype = torch.float32 if single else torch.float64
        above = -1 if recompute else RECOMPUTE_ABOVE
        built: Module = build_module(program, backend=name, disabled=disabled, recompute_above=above, required=required)
        self.module = built.to(self.dtype)
        self.module.load_state_dict({n: torch.as_tensor(x).to(self.dtype) for n, x in params.items()})

    @property
    def source(self) -> str:
        """The emitted code."""
        return self.module.emitted.source

    def tensors(self, inputs: Arrays, gradients: bool = False) -> dict[str, torch.Tensor]:
        import torch

        found = {name: torch.as_tensor(np.ascontiguousarray(x)) for name, x in inputs.items()}
        return {
            name: x.to(self.dtype).requires_grad_(gradients) if x.is_floating_point() else x
            for name, x in found.items()
        }

    # ------------------------------------------------------------ the functions of the emitted code

    def run(self, inputs: Arrays, ticks: int) -> Run:
        import torch

        with torch.no_grad():
            outputs, losses, state = self._emitted(self.tensors(inputs), None, ticks)
        return Run(_arrays(outputs), _arrays(losses), _arrays(self._states(state)))

    def gradients(self, inputs: Arrays, ticks: int, weights: Weights) -> Run:
        import torch

        from nldsl.ir.schedule import anchor_key, anchors

        given = self.tensors(inputs, gradients=True)
        params = self._params()
        begin = self._begin(given)
        starts = {s.name: begin[s.name].clone() for s in self.program.states}
        for tensor in starts.values():
            if tensor.is_floating_point() and not tensor.requires_grad:
                tensor.requires_grad_()
        begin.update(starts)
        begin.update({anchor_key(s, p): starts[s] for s, p in anchors(self.program)})
        outputs, losses, state = self._emitted(given, begin, ticks)
        pairs = [(weights.outputs, outputs), (weights.losses, losses), (weights.states, self._states(state))]
        total = torch.zeros((), dtype=self.dtype)
        for factors, tensors in pairs:
            for name, tensor in tensors.items():
                total = total + (torch.as_tensor(factors[name]).to(self.dtype) * tensor).sum()
        leaves: dict[tuple[str, str], torch.Tensor] = {("param", n): p for n, p in params.items()}
        leaves |= {("input", n): x for n, x in given.items() if x.requires_grad}
        leaves |= {("start", n): x for n, x in starts.items() if x.requires_grad}
        found: tuple[torch.Tensor | None, ...] = (None,) * len(leaves)
        if total.requires_grad and leaves:
            found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        grads = {
            key: (torch.zeros_like(leaf) if grad is None else grad).detach().numpy()
            for (key, leaf), grad in zip(leaves.items(), found, strict=True)
        }

        def of(kind: str) -> Arrays:
            return {name: x for (k, name), x in grads.items() if k == kind}

        return Run({}, {}, {}, of("param"), of("input"), of("start"))

    def _params(self) -> dict[str, torch.Tensor]:
        return dict(self.module.named_parameters())

    def _begin(self, given: dict[str, torch.Tensor]) -> dict[str, Any]:
        import torch

        batch = next((x.shape[0] for x in given.values()), 1)
        return self.module.emitted.init_state(self._params(), batch, self.dtype, torch.device("cpu"))

    def _emitted(
        self, given: dict[str, torch.Tensor], begin: dict[str, Any] | None, ticks: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, Any]]:
        begin = self._begin(given) if begin is None else begin
        length = () if self.program.inputs else (ticks,)
        outputs, losses, _, state = self.module.emitted.forward(self._params(), given, begin, *length)
        return outputs, losses, state

    def _states(self, state: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {s.name: state[s.name] for s in self.program.states}

    # ------------------------------------------------------------ the module as a user calls it

    def begin(self, batch: int) -> State:
        return self.module.init_state(batch)

    def call(self, inputs: Arrays, state: State, ticks: int = 0) -> tuple[Arrays, State]:
        """A part of a sequence; inputs that are looked ahead at are left to the module."""
        import torch

        with torch.no_grad():
            given = self.tensors(self._now(inputs))
            outputs, after = self.module(**given, state=state, **({} if given else {"ticks": ticks}))
        return self._named(outputs), after

    def step(self, inputs: Arrays, state: State) -> tuple[Arrays, State]:
        """One tick."""
        import torch

        with torch.no_grad():
            given = self.tensors(self._now(inputs))
            positional: list[Any] = [*given.values(), state]
            outputs, after = self.module.step(*positional)
        return self._named(outputs), after

    def _now(self, inputs: Arrays) -> Arrays:
        return {i.name: inputs[i.name] for i in self.program.inputs if not i.ahead}

    def _named(self, outputs: Any) -> Arrays:
        if isinstance(outputs, dict):
            return _arrays(outputs)
        return {self.program.outputs[0][0]: outputs.numpy()}


def _arrays(tensors: Mapping[str, Any]) -> Arrays:
    return {name: x.detach().numpy() for name, x in tensors.items()}
