"""``module.step`` by kernels: a call of one tick of a module whose loops are single launches.

No gradients (they go through the step of the torch backend), no wait for the device, no branch on what a tensor holds:
a step can be captured in a CUDA graph. The number of the tick is a number of the host. A graph of a program without
clocks holds at every tick; one with clocks holds for the ticks at which they are as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nldsl.ir.program import Program
from nldsl.ir.types import BATCH

TICK = "@tick"
Tensors = dict[str, Tensor]


@dataclass
class DecodeStep:
    """``load`` gives the module of single ticks, or None where no loop has a kernel; it is called at the first step.
    ``runs``: whether kernels run on tensors of a device."""

    program: Program
    load: Callable[[], Any]
    runs: Callable[[torch.device], bool]
    loaded: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        inputs = [d for d in self.program.inputs if not d.ahead]
        self.inputs = {d.name: d for d in inputs}
        self.lead = next((d.name for d in inputs if BATCH in d.type.axes), "")

    def __call__(
        self,
        params: Mapping[str, tuple[Any, str]],
        given: Sequence[Any],
        states: Mapping[str, Tensor],
        done: int,
        limits: Mapping[str, int],
    ) -> tuple[Tensors, Tensors] | None:
        """The outputs and the states after tick ``done + 1``, or None: the caller computes them in another way.
        ``given``: the inputs in the order of the program, without those that are one tick ahead."""
        inputs = dict(zip(self.inputs, given, strict=False))
        if not states or not self.lead:
            return None
        like = next(iter(states.values()))
        if not self.runs(like.device) or not self._fit(inputs, states, like.device, limits):
            return None
        if not self.loaded:
            self.loaded.append(self.load())
        module = self.loaded[0]
        if module is None:
            return None
        streams = {name: x.unsqueeze(int(BATCH in self.inputs[name].type.axes)) for name, x in inputs.items()}
        held = {name: owner._parameters[key] for name, (owner, key) in params.items()}
        outputs, _, _, after = module.forward(held, streams, {TICK: done, **states})
        del after[TICK]
        return {name: y.squeeze(1) for name, y in outputs.items()}, after

    def _fit(
        self,
        inputs: Mapping[str, Any],
        states: Mapping[str, Tensor],
        device: torch.device,
        limits: Mapping[str, int],
    ) -> bool:
        """Whether everything is as the usual way would have it; that one also says what is wrong."""
        if not isinstance(inputs[self.lead], Tensor):
            return False
        batch, real = inputs[self.lead].shape[:1], next(x.dtype for x in states.values() if x.is_floating_point())
        for name, declared in self.inputs.items():
            x = inputs[name]
            if not isinstance(x, Tensor):
                return False
            lead = batch if BATCH in declared.type.axes else ()
            whole = declared.type.kind == "int"
            if (
                x.shape != (*lead, *declared.type.shape)
                or x.device != device
                or x.dtype != (torch.int64 if whole else real)
            ):
                return False
            if name in limits and device.type == "cpu" and not bool(((x >= 0) & (x < limits[name])).all()):
                return False
        return all(
            states[s.name].shape[:1] == batch and states[s.name].device == device
            for s in self.program.states
            if BATCH in s.type.axes
        )


@dataclass(frozen=True)
class DecodingModule:
    """The functions of ``emitted``, and ``tick``. Copies share both."""

    emitted: Any
    tick: DecodeStep | None

    def __deepcopy__(self, memo: dict[int, Any]) -> DecodingModule:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.emitted, name)


def runs_on(triton: Any) -> Callable[[torch.device], bool]:
    """Kernels run on a GPU, or anywhere in Triton's interpreter."""
    return lambda device: device.type == "cuda" or (bool(triton.knobs.runtime.interpret) and device.type == "cpu")
