"""Per level: norms of gradients, updates, parameters and states, means of probes, and the cadence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from nldsl.train.interface import Optimizers, TrainableModule, levels_of, parameters_by_level
from nldsl.train.tree import tensors_of

__all__ = ["Cadence", "LevelMeter", "means", "norm"]


def norm(tensors: Iterable[torch.Tensor]) -> float:
    """Return the 2-norm of all entries of all tensors; 0 if there is none."""
    found = [torch.linalg.vector_norm(t.detach(), dtype=torch.float32) for t in tensors if t.is_floating_point()]
    return float(torch.linalg.vector_norm(torch.stack(found))) if found else 0.0


def means(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested probes with the mean of each tensor in its place."""
    out: dict[str, Any] = {}
    for key, value in info.items():
        if isinstance(value, torch.Tensor):
            out[str(key)] = float(value.detach().double().mean()) if value.numel() else 0.0
        elif isinstance(value, Mapping):
            out[str(key)] = means(value)
        elif isinstance(value, (int, float)):
            out[str(key)] = value
    return out


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

    def record(
        self, step: int, gradients: Mapping[str, float], optimizers: Optimizers, info: Mapping[str, Any], carried: Any
    ) -> dict[str, Any]:
        """Return the per-level part of a step's log record."""
        levels: dict[str, Any] = {}
        for level, group in self.groups.items():
            period = self.periods.get(level, 1)
            levels[level] = {
                "gradient_norm": gradients.get(level, 0.0),
                "update_norm": self.update_norm[level],
                "parameter_norm": norm(p for _, p in group),
                "ticks": int(optimizers.cadence.get(level, 0)),
                "updates_observed": self.cadence.observed[level],
                "updates_declared": 0 if level in self.frozen else step // period,
            }
        for name, value in means(info).items():
            target = levels.setdefault(name, {}) if isinstance(value, Mapping) else levels
            if isinstance(value, Mapping):
                target.update(value)
            else:
                target[name] = value
        if carried is not None:
            levels["carried"] = {"state_norm": norm(tensors_of(carried).values())}
        return levels
