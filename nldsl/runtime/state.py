"""The state of a compiled module between calls: plain tensors and the number of ticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Tensors = dict[str, torch.Tensor]
PENDING = "pending:"


class State(dict[str, Any]):
    """A plain dictionary with three entries; modules also take one that has been stored and read back.

    ``tick``: how many ticks have been done. ``states``: the states by name, and anchors as ``name@period``.
    ``pending``: the inputs of one more tick whose outputs are known, but whose updates wait for the next input.
    """

    def __init__(self, tick: int, states: Tensors, pending: Tensors | None = None) -> None:
        super().__init__(tick=tick, states=states, pending=pending or {})

    @staticmethod
    def of(stored: Mapping[str, Any]) -> State:
        """A state from any mapping with its entries."""
        if isinstance(stored, State):
            return stored
        missing = {"tick", "states"} - set(stored)
        if missing:
            raise ValueError(f"this is not a state of a module: it has no entry {min(missing)!r}")
        return State(int(stored["tick"]), dict(stored["states"]), dict(stored.get("pending") or {}))

    @property
    def tick(self) -> int:
        return int(self["tick"])

    @property
    def states(self) -> Tensors:
        states: Tensors = self["states"]
        return states

    @property
    def pending(self) -> Tensors:
        pending: Tensors = self["pending"]
        return pending

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> State:
        """The state with every tensor changed in the same way."""
        states = {name: change(tensor) for name, tensor in self.states.items()}
        return State(self.tick, states, {name: change(tensor) for name, tensor in self.pending.items()})

    def detach(self) -> State:
        return self.map(torch.Tensor.detach)

    def clone(self) -> State:
        return self.map(torch.Tensor.clone)

    def to(self, *args: Any, **kwargs: Any) -> State:
        """As ``Module.to``: integer tensors keep their dtype."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            changed = tensor.to(*args, **kwargs)
            return changed if tensor.is_floating_point() else changed.to(tensor.dtype)

        return self.map(moved)

    def tensors(self) -> Tensors:
        """Everything as a flat dictionary of tensors, for checkpoints: in one piece, and views of nothing larger."""
        flat = {"tick": torch.tensor(self.tick)}
        flat |= {f"states:{name}": _alone(tensor) for name, tensor in self.states.items()}
        return flat | {PENDING + name: tensor for name, tensor in self.pending.items()}

    @staticmethod
    def from_tensors(tensors: Mapping[str, torch.Tensor]) -> State:
        """The inverse of ``tensors``."""
        groups: dict[str, Tensors] = {"states:": {}, PENDING: {}}
        for name, tensor in tensors.items():
            for prefix, group in groups.items():
                if name.startswith(prefix):
                    group[name.removeprefix(prefix)] = tensor
        return State(int(tensors["tick"]), groups["states:"], groups[PENDING])


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with memory of its own: a window may be a view of a buffer that has room for more."""
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
