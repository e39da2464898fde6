"""Values that are not finite are never silent: where the first one is, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nldsl.train.errors import problem
from nldsl.train.interface import TrainableModule, parameters_by_level
from nldsl.train.tree import tensors_of

__all__ = ["POLICIES", "NonFinite", "find", "is_finite"]

POLICIES = ("raise", "skip", "rollback")


@dataclass(frozen=True)
class NonFinite:
    """The first bad value: what it is part of, its name and level, and how many entries are bad."""

    what: str  # parameter | state | probe | gradient | loss
    name: str = ""
    level: str = ""
    detail: str = ""

    def __str__(self) -> str:
        named = f" `{self.name}`" if self.name else ""
        level = f" of level `{self.level}`" if self.level else ""
        return f"the {self.what}{named}{level} is not finite" + (f": {self.detail}" if self.detail else "")

    def error(self, step: int, policy: str) -> Exception:
        """Make the error that stops the run."""
        hint = {
            "raise": "lower the rate of that level, clip gradients (`--clip 1.0`), or say `--on-nonfinite skip`",
            "skip": "every recent batch was bad: lower the rate of that level or clip gradients (`--clip 1.0`)",
            "rollback": "going back did not help: lower the rate of that level or clip gradients (`--clip 1.0`)",
        }[policy]
        return problem("NL0821", f"at training step {step} {self}", hints=(hint,))


def is_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether every entry is finite; one number per tensor is moved to the host, once."""
    sums = [torch.linalg.vector_norm(t.detach(), ord=math.inf).float() for t in tensors if t.numel()]
    return bool(torch.isfinite(torch.stack(sums)).all()) if sums else True


def find(
    module: TrainableModule, loss: torch.Tensor, info: Mapping[str, Any], before: Any, after: Any = None
) -> NonFinite | None:
    """Return the cause that comes first in the flow of a step: parameters, states, probes, loss, gradients."""
    groups = parameters_by_level(module)
    for level, group in groups.items():
        for name, parameter in group:
            if not is_finite((parameter,)):
                return NonFinite("parameter", name, level, _count(parameter))
    owners = {state.name: state.owner for state in module.program.states}
    for what, carried in (("state before the batch", before), ("state after the batch", after)):
        for name, tensor in tensors_of(carried).items() if carried is not None else ():
            if tensor.is_floating_point() and not is_finite((tensor,)):
                return NonFinite(what, name, owners.get(name, ""), _count(tensor))
    probe = _first_probe(info, "")
    if probe is not None:
        return probe
    if not is_finite((loss,)):
        return NonFinite("loss", detail=f"it is {float(loss.detach())}")
    for level, group in groups.items():
        for name, parameter in group:
            if parameter.grad is not None and not is_finite((parameter.grad,)):
                return NonFinite("gradient", name, level, _count(parameter.grad))
    return None


def _first_probe(info: Mapping[str, Any], level: str) -> NonFinite | None:
    for key, value in info.items():
        if isinstance(value, Mapping):
            found = _first_probe(value, f"{level}.{key}" if level else str(key))
            if found is not None:
                return found
        elif isinstance(value, torch.Tensor):
            if value.is_floating_point() and not is_finite((value,)):
                return NonFinite("probe", str(key), level, _count(value))
        elif isinstance(value, float) and not math.isfinite(value):
            return NonFinite("probe", str(key), level, f"it is {value}")
    return None


def _count(tensor: torch.Tensor) -> str:
    bad = ~torch.isfinite(tensor.detach())
    first = torch.nonzero(bad)[0].tolist() if bad.ndim else []
    place = f", the first at {first}" if first else ""
    return f"{int(bad.sum())} of {tensor.numel()} entries{place}"
