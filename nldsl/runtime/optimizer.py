"""Optimizer memories as ``torch.optim.Optimizer``: one tick of the memory for each ``step()``.

Parameters of equal shape (copies of a memory count one by one) are the rows of one batch, for which the emitted program
runs once. The states of the memory are kept per parameter in ``state``, as PyTorch's own optimizers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import torch

from nldsl.backends.registry import backend_named
from nldsl.ir.program import Program
from nldsl.ir.schedule import anchor_key, anchors
from nldsl.passes.derive import Derive
from nldsl.passes.schedule import schedule
from nldsl.passes.simplify import Simplify
from nldsl.runtime.initialize import initialize
from nldsl.runtime.lanes import batched
from nldsl.runtime.module import TICK, Emitted, Module

Shape = tuple[int, ...]
Rule = Callable[[Shape], Program]  # the program of an optimizer for parameters of a shape
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Compiled:
    """The emitted program of an optimizer for one shape, for many parameters at once."""

    program: Program
    emitted: Emitted
    params: Tensors
    keys: tuple[str, ...]  # of the states, and of their anchors


def compile_rule(rule: Rule, shape: Shape, like: torch.Tensor, seed: int = 0) -> Compiled:
    """An optimizer for parameters of this shape."""
    program = batched(Simplify().apply(Derive().apply(rule(shape))))
    names = {i.name for i in program.inputs}
    if "g" not in names or names - {"g", "weight"} or len(program.outputs) != 1:
        raise ValueError(f"`{program.name}` is no optimizer: it has inputs `g` and perhaps `weight`, and one output")
    backend = backend_named("torch")
    planned = schedule(program)
    emitted = backend.load(backend.emit(planned), planned)
    params = {n: torch.as_tensor(x).to(like) for n, x in initialize(program, seed).items()}
    keys = tuple(s.name for s in program.states) + tuple(anchor_key(s, p) for s, p in anchors(program))
    return Compiled(program, emitted, params, keys)


class MemoryOptimizer(torch.optim.Optimizer):
    """Trains parameters with an optimizer memory; ``rule`` gives its program for a shape.

    ``lanes`` says how many leading dims of a parameter count copies that are trained each on its own. ``lr`` multiplies
    the change that the memory computes, so that PyTorch's schedulers work; the rate itself is in the program.
    """

    def __init__(
        self,
        params: Iterable[Any],
        rule: Rule,
        *,
        lr: float = 1.0,
        lanes: Mapping[torch.Tensor, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr})
        self.rule = rule
        self.seed = seed
        self._lanes = dict(lanes or {})
        self._compiled: dict[tuple[Shape, torch.dtype, torch.device], Compiled] = {}
        # the states of the parameters of one batch, stacked; the entries of ``state`` are views of them
        self._stacked: dict[tuple[int, Shape, torch.dtype, torch.device], dict[str, Any]] = {}

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One tick; a parameter without a gradient has the gradient zero."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            for (shape, dtype, device), members in self._batches(group["params"]).items():
                self._tick((number, shape, dtype, device), members, float(group["lr"]))
        return loss

    def _batches(self, params: list[torch.Tensor]) -> dict[tuple[Shape, torch.dtype, torch.device], list[torch.Tensor]]:
        found: dict[tuple[Shape, torch.dtype, torch.device], list[torch.Tensor]] = {}
        for param in params:
            if param.requires_grad:
                key = tuple(param.shape[self._lanes.get(param, 0) :]), param.dtype, param.device
                found.setdefault(key, []).append(param)
        return {key: members for key, members in found.items() if any(p.grad is not None for p in members)}

    def _tick(
        self, key: tuple[int, Shape, torch.dtype, torch.device], members: list[torch.Tensor], factor: float
    ) -> None:
        shape = key[1]
        compiled = self._rule_for(key[1:], members[0])
        state = self._stacked.get(key) or self._stack(compiled, members, shape)
        inputs = {"g": _rows([torch.zeros_like(p) if p.grad is None else p.grad for p in members], shape)}
        if any(i.name == "weight" for i in compiled.program.inputs):
            inputs["weight"] = _rows([p.detach() for p in members], shape)
        outputs, _, _, after = compiled.emitted.step(compiled.params, inputs, state)
        (change,) = outputs.values()
        changes = _unstacked(change, members, shape)
        torch._foreach_add_(members, changes, alpha=factor)
        self._stacked[key] = after
        self._publish(compiled, members, shape, after)

    def _rule_for(self, key: tuple[Shape, torch.dtype, torch.device], like: torch.Tensor) -> Compiled:
        if key not in self._compiled:
            self._compiled[key] = compile_rule(self.rule, key[0], like.detach(), self.seed)
        return self._compiled[key]

    def _stack(self, compiled: Compiled, members: list[torch.Tensor], shape: Shape) -> dict[str, Any]:
        """The states of a batch: from ``state`` where they have been loaded, else the initial ones."""
        count = sum(_count(p, shape) for p in members)
        start = compiled.emitted.init_state(compiled.params, count, members[0].dtype, members[0].device)
        known = [p for p in members if self.state.get(p)]
        if not known:
            return start
        ticks = {int(self.state[p]["step"]) for p in known}
        if len(known) < len(members) or len(ticks) > 1:
            raise ValueError(
                "parameters of one shape have seen different numbers of ticks; put them in groups of their own"
            )
        found: dict[str, Any] = {TICK: ticks.pop()}
        for name in compiled.keys:
            rest = tuple(start[name].shape[1:])
            found[name] = _rows([self.state[p][name] for p in members], rest)
        return found

    def _publish(self, compiled: Compiled, members: list[torch.Tensor], shape: Shape, after: dict[str, Any]) -> None:
        at = 0
        tick = torch.tensor(after[TICK])
        for param in members:
            count = _count(param, shape)
            lead = tuple(param.shape[: param.dim() - len(shape)])
            own = self.state[param]
            own["step"] = tick
            for name in compiled.keys:
                rows = after[name].narrow(0, at, count)
                own[name] = rows.reshape((*lead, *rows.shape[1:]))
            at += count

    def state_dict(self) -> dict[str, Any]:
        """As every optimizer's; the tensors are copies, each with its own memory."""
        found = super().state_dict()
        found["state"] = {
            number: {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in own.items()}
            for number, own in found["state"].items()
        }
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        super().load_state_dict(state_dict)
        self._stacked.clear()


class LevelOptimizers:
    """One optimizer for each level of steps of a module: ``step()`` once for every training step.

    A level that ticks every n steps is trained with the sum of the gradients of the steps since its last tick.
    """

    def __init__(self, module: Module, *, lr: float = 1.0, seed: int = 0) -> None:
        self.steps = 0
        self.optimizers: dict[str, MemoryOptimizer] = {}
        self.periods: dict[str, int] = {}
        self.cadence: dict[str, int] = {}
        self._params: dict[str, dict[str, torch.nn.Parameter]] = {}
        self._sums: dict[str, Tensors] = {}
        program, tensors = module.program, dict(module.named_parameters())
        levels = {level.name: level for level in program.levels if level.base == "step"}
        for declared in program.params:
            if declared.level not in levels:
                raise ValueError(f"the parameter `{declared.name}` is on no level of steps, so nothing trains it")
            self._params.setdefault(declared.level, {})[declared.name] = tensors[declared.name]
        lanes: dict[torch.Tensor, int] = {tensors[p.name]: len(p.type.axes) for p in program.params}
        for name, params in self._params.items():
            level = levels[name]
            if level.optimizer is None:
                raise ValueError(
                    f"the level `{name}` has no optimizer: say `with`, for example `with AdamW(rate = 3e-4)`"
                )
            self.optimizers[name] = MemoryOptimizer(params.values(), level.optimizer, lr=lr, lanes=lanes, seed=seed)
            self.periods[name] = level.period
            self.cadence[name] = 0
            self._sums[name] = {}

    @torch.no_grad()
    def step(self) -> tuple[str, ...]:
        """One training step is over; the levels that ticked."""
        self.steps += 1
        ticked = []
        for name, optimizer in self.optimizers.items():
            if self.periods[name] == 1:
                optimizer.step()
            else:
                self._add(name)
                if self.steps % self.periods[name]:
                    continue
                self._tick_with_sums(name, optimizer)
            self.cadence[name] += 1
            ticked.append(name)
        return tuple(ticked)

    def _add(self, level: str) -> None:
        sums = self._sums[level]
        for name, param in self._params[level].items():
            if param.grad is not None:
                sums[name] = sums[name] + param.grad if name in sums else param.grad.clone()

    def _tick_with_sums(self, level: str, optimizer: MemoryOptimizer) -> None:
        sums, params = self._sums[level], self._params[level]
        own = {name: param.grad for name, param in params.items()}
        for name, param in params.items():
            param.grad = sums.get(name)
        optimizer.step()
        for name, param in params.items():
            param.grad = own[name]
        sums.clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the last step; the sums of slow levels stay."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers."""
        return {
            "steps": self.steps,
            "cadence": dict(self.cadence),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "sums": {level: {n: x.clone() for n, x in sums.items()} for level, sums in self._sums.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        missing = set(self.optimizers) ^ set(state["optimizers"])
        if missing:
            raise ValueError(
                f"the stored optimizers are not those of this program: they differ in the level `{min(missing)}`"
            )
        self.steps = int(state["steps"])
        self.cadence = {name: int(n) for name, n in state["cadence"].items()}
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        for level, params in self._params.items():
            stored = state["sums"].get(level, {})
            self._sums[level] = {n: x.to(params[n]).clone() for n, x in stored.items()}


def _count(param: torch.Tensor, shape: Shape) -> int:
    """How many copies a parameter holds."""
    return int(torch.Size(param.shape[: param.dim() - len(shape)]).numel())


def _rows(tensors: list[torch.Tensor], shape: Shape) -> torch.Tensor:
    """All copies in all tensors, as the rows of one."""
    rows = [x.reshape(-1, *shape) for x in tensors]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _unstacked(rows: torch.Tensor, members: list[torch.Tensor], shape: Shape) -> list[torch.Tensor]:
    parts = torch.split(rows, [_count(p, shape) for p in members])
    return [part.reshape(p.shape) for part, p in zip(parts, members, strict=True)]
