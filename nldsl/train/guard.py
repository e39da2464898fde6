"""Values that are not finite are never silent: where the first one is, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nldsl.train.errors import problem
from nldsl.train.interface import TrainableModule, parameters_by_level

__all__ = ["POLICIES", "NonFinite", "find", "is_finite"]

POLICIES = ("raise", "skip", "rollback")


@dataclass(frozen=True)
class NonFinite:
    """The first bad value: what it is, its name, memory and level, and how many entries are bad."""

    what: str  # parameter | state | probe | gradient | loss
    name: str = ""
    level: str = ""
    detail: str = ""
    memory: str = ""

    def __str__(self) -> str:
        named = f" `{self.name}`" if self.name else ""
        level = f" of level `{self.level}`" if self.level else ""
        memory = f" of the memory `{self.memory}`" if self.memory else ""
        return f"the {self.what}{named}{memory}{level} is not finite" + (f": {self.detail}" if self.detail else "")

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
    found = [t.detach() for t in tensors if t.numel()]
    if not found:
        return True
    largest = torch._foreach_norm(found, ord=math.inf)
    return bool(torch.isfinite(torch.stack([x.double() for x in largest])).all())


def find(
    module: TrainableModule, loss: torch.Tensor, info: Mapping[str, Any], before: Any, after: Any = None
) -> NonFinite | None:
    """Return the cause that comes first in the flow of a step: parameters, states, probes, loss, gradients."""
    groups = parameters_by_level(module)
    for level, group in groups.items():
        for name, parameter in group:
            if not is_finite((parameter,)):
                return NonFinite("parameter", name, level, _count(parameter))
    program = module.program
    owners = {state.name: state.owner for state in program.states}
    for what, carried in (("state before the batch", before), ("state after the batch", after)):
        states = carried.get("states", carried) if isinstance(carried, Mapping) else {}
        for name, tensor in _bad(states):
            return NonFinite(what, name, detail=_count(tensor), memory=owners.get(name.split("@")[0], ""))
    for name, tensor in _bad(info.get("probes", {})):
        path, _, quantity = name.rpartition(".")
        return NonFinite("probe", quantity, detail=_count(tensor), memory=path)
    for level, value in _bad(info.get("losses", {})):
        return NonFinite("loss", level=level, detail=f"it is {float(value)}")
    if not is_finite((loss,)):
        return NonFinite("loss", detail=f"it is {float(loss.detach())}")
    for level, group in groups.items():
        for name, parameter in group:
            if parameter.grad is not None and not is_finite((parameter.grad,)):
                return NonFinite("gradient", name, level, _count(parameter.grad))
    return None


def _bad(tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not is_finite((tensor,)):
            yield name, tensor


def _count(tensor: torch.Tensor) -> str:
    bad = ~torch.isfinite(tensor.detach())
    first = torch.nonzero(bad)[0].tolist() if bad.ndim else []
    place = f", the first at {first}" if first else ""
    return f"{int(bad.sum())} of {tensor.numel()} entries{place}"
