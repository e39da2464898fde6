"""Per level: norms of gradients, updates, parameters and states, means of probes, and the cadence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from nldsl.train.interface import Optimizers, TrainableModule, levels_of, parameters_by_level

__all__ = ["Cadence", "LevelMeter", "norm"]


def norm(tensors: Iterable[torch.Tensor]) -> float:
    """Return the 2-norm of all entries of all tensors; 0 if there is none."""
    found = [
        torch.linalg.vector_norm(t.detach(), dtype=torch.promote_types(t.dtype, torch.float32)).double()
        for t in tensors
        if t.is_floating_point()
    ]
    return float(torch.linalg.vector_norm(torch.stack(found))) if found else 0.0


class Cadence:
    """Counts the steps at which the parameters of a level really changed, by the counter torch keeps of writes."""

    def __init__(self, module: TrainableModule) -> None:
        self._groups = {level: [p for _, p in group] for level, group in parameters_by_level(module).items()}
        self._seen = {level: self._writes(level) for level in self._groups}
        self.observed = dict.fromkeys(self._groups, 0)

    def after_step(self) -> None:
        """Look once per training step."""
        for level in self._groups:
            writes = self._writes(level)
            self.observed[level] += writes != self._seen[level]
            self._seen[level] = writes

    def forget_writes(self) -> None:
        """Take what was written since the last look (by loading a checkpoint) as no update."""
        self._seen = {level: self._writes(level) for level in self._groups}

    def _writes(self, level: str) -> tuple[int, ...]:
        return tuple(parameter._version for parameter in self._groups[level])


class LevelMeter:
    """Measures a training step for the log. An update's norm is that of the last tick that was measured."""

    def __init__(self, module: TrainableModule, frozen: tuple[str, ...] = ()) -> None:
        self.module = module
        self.frozen = frozen
        self.groups = parameters_by_level(module)
        self.cadence = Cadence(module)
        self.periods = {level.name: level.period for level in levels_of(module, "step")}
        self.update_norm = dict.fromkeys(self.groups, 0.0)
        self._before: dict[str, list[torch.Tensor]] = {}

    def gradient_norms(self) -> dict[str, float]:
        """Return the norm of this step's gradient of each level."""
        return {level: norm(p.grad for _, p in group if p.grad is not None) for level, group in self.groups.items()}

    def before_step(self, step: int, next_log: int) -> None:
        """Remember the parameters of the levels whose last tick before the step `next_log` is this `step`."""
        self._before = {
            level: [p.detach().clone() for _, p in group]
            for level, group in self.groups.items()
            if step == next_log - next_log % self.periods.get(level, 1)
        }

    def after_step(self) -> None:
        """Measure the updates that were asked for."""
        self.cadence.after_step()
        for level, old in self._before.items():
            new = [p.detach() for _, p in self.groups[level]]
            self.update_norm[level] = norm(b - a for a, b in zip(old, new, strict=True))
        self._before = {}

    def levels(
        self, step: int, gradients: Mapping[str, float], optimizers: Optimizers, info: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the record of each level of steps."""
        losses = info.get("losses", {})
        found: dict[str, Any] = {}
        for level, group in self.groups.items():
            found[level] = {
                **({"loss": float(losses[level])} if level in losses else {}),
                "gradient_norm": gradients.get(level, 0.0),
                "update_norm": self.update_norm[level],
                "parameter_norm": norm(p for _, p in group),
                "ticks": int(optimizers.cadence.get(level, 0)),
                "updates_observed": self.cadence.observed[level],
                "updates_declared": 0 if level in self.frozen else step // self.periods.get(level, 1),
            }
        return found

    def memories(self, info: Mapping[str, Any], after: Any) -> dict[str, Any]:
        """Return for each memory the means of its probes (inner loss, rates, gates) and the norm of its state."""
        found: dict[str, Any] = {}
        for name, value in info.get("probes", {}).items():
            path, _, quantity = name.rpartition(".")
            found.setdefault(path, {})[quantity] = float(value.double().mean()) if value.numel() else 0.0
        states = after.get("states", {}) if isinstance(after, Mapping) else {}
        owned: dict[str, list[torch.Tensor]] = {}
        for declared in self.module.program.states:
            if declared.name in states and not declared.hidden:
                owned.setdefault(declared.owner, []).append(states[declared.name])
        for path, tensors in owned.items():
            found.setdefault(path, {})["state_norm"] = norm(tensors)
        return found
