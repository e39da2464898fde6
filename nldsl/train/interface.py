"""What training needs of a compiled module and its optimizers, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch

from nldsl.ir.program import Level, Program

__all__ = ["Optimizers", "TrainableModule", "levels_of", "parameters_by_level"]


class TrainableModule(Protocol):
    """A compiled program with a `minimize`; also an ordinary `torch.nn.Module`."""

    @property
    def program(self) -> Program:
        """The program it was compiled from."""

    def loss(self, tokens: torch.Tensor, *, state: Any = None) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the mean loss of `[batch, ticks + 1]` tokens, and `losses`, `probes` and the `state` after them."""

    def init_state(self, batch_size: int = 1) -> Any:
        """Return the states before the first token."""

    def carried_state(self) -> dict[str, torch.Tensor]:
        """Return the states that no sequence resets, as the last call left them."""

    def set_carried_state(self, states: Mapping[str, torch.Tensor]) -> None:
        """Go on with such states."""

    def step(self, x: torch.Tensor, state: Any) -> tuple[Any, Any]:
        """Return the output for one token of each row, and the states after it."""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Return the learned tensors."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return every tensor that belongs to the module."""

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> Any:
        """Copy tensors into the module."""


class Optimizers(Protocol):
    """One optimizer per level of steps; sums gradients between the ticks of a slow level."""

    @property
    def cadence(self) -> Mapping[str, int]:
        """How many times each level has ticked."""

    def step(self) -> Any:
        """Say that one training step is over; the levels that are due update their parameters."""

    def zero_grad(self) -> Any:
        """Forget the gradients of the last step."""

    def state_dict(self) -> dict[str, Any]:
        """Return clocks, optimizer states and summed gradients as plain tensors and numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Go on from there."""


def levels_of(module: TrainableModule, base: str) -> list[Level]:
    """Return the levels on one base clock, fastest first."""
    return sorted((level for level in module.program.levels if level.base == base), key=lambda level: level.period)


def parameters_by_level(module: TrainableModule) -> dict[str, list[tuple[str, torch.nn.Parameter]]]:
    """Group the learned tensors by the level of steps that trains them, in the order of the program."""
    owner = {parameter.name: parameter.level for parameter in module.program.params}
    groups: dict[str, list[tuple[str, torch.nn.Parameter]]] = {level.name: [] for level in levels_of(module, "step")}
    for name, parameter in module.named_parameters():
        groups.setdefault(owner.get(name, ""), []).append((name, parameter))
    return {level: group for level, group in groups.items() if group}
