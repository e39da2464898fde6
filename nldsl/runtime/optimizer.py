"""Optimizer memories as ``torch.optim.Optimizer``: one tick of the memory for each ``step()``.

A rule that does the same to every entry is one fused update over all parameters (``optimizer_entries.py``). For any
other the parameters of equal shape are the rows of one batch (``optimizer_stacked.py``). With ``backend="triton"`` both
are generated kernels (``optimizer_backend.py``). The states of the memory are kept per parameter in ``state``, as
PyTorch's own optimizers do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch

from nldsl.ir.entrywise import Entrywise, Tensorwise
from nldsl.ir.program import Program
from nldsl.passes.derive import Derive
from nldsl.passes.entrywise import entrywise
from nldsl.passes.simplify import Simplify
from nldsl.runtime.module import Module
from nldsl.runtime.optimizer_backend import Batch, Kernels, Kind, Matrices
from nldsl.runtime.optimizer_entries import EntryBatch
from nldsl.runtime.optimizer_stacked import Compiled, Shape, StackedBatch, Tensors, compile_rule

Rule = Callable[[Shape], Program]  # the program of an optimizer for parameters of a shape
Place = tuple[int, Kind, torch.dtype, torch.device, int]  # the last: how many ticks were done


class MemoryOptimizer(torch.optim.Optimizer):
    """Trains parameters with an optimizer memory; ``rule`` gives its program for a shape.

    ``lanes`` says how many leading dims of a parameter count copies that are trained each on its own. ``lr`` multiplies
    the change that the memory computes, so that PyTorch's schedulers work; the rate itself is in the program.
    ``fused`` = False runs every rule shape by shape; ``native`` says whether entrywise rules are compiled by the C
    compiler of the system (None: where there is one, on a CPU, from 2^18 parameters on).

    ``backend``: ``torch`` or ``triton``; with kernels, parameters that are not on a GPU are an error, or get the form
    of PyTorch if ``fallback``. ``capturable`` (kernels only): the tick is counted on the device, so that a CUDA graph
    may hold ``step()``; the rate of a group may then be a tensor. Raises ValueError for another backend.
    """

    def __init__(
        self,
        params: Iterable[Any],
        rule: Rule,
        *,
        lr: float = 1.0,
        lanes: Mapping[torch.Tensor, int] | None = None,
        seed: int = 0,
        fused: bool = True,
        native: bool | None = None,
        backend: str = "torch",
        fallback: bool = False,
        capturable: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr})
        self.kernels = Kernels.wanted(backend, fallback, capturable)
        self.rule = rule
        self.seed = seed
        self.fused = fused
        self.native = native
        self._lanes = dict(lanes or {})
        self._programs: dict[Shape, tuple[Program, Entrywise | None]] = {}
        self._compiled: dict[tuple[Shape, torch.dtype, torch.device], Compiled] = {}
        self._batches: dict[int, list[Batch]] = {}  # by the number of the group
        self._members: dict[int, list[tuple[int, torch.dtype, torch.device]]] = {}  # what these batches were made for

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One tick; a parameter without a gradient has the gradient zero, if another one of its batch has one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            for batch in self._batches_of(number, [p for p in group["params"] if p.requires_grad]):
                if any(p.grad is not None for p in batch.members):
                    rate = group["lr"] if self.kernels and self.kernels.capturable else float(group["lr"])
                    batch.update(rate, [self.state[p] for p in batch.members])
        return loss

    def sources(self) -> tuple[str, ...]:
        """The code of the updates that have run so far, one for each batch."""
        return tuple(batch.source for batches in self._batches.values() for batch in batches)

    def _batches_of(self, number: int, params: list[torch.Tensor]) -> list[Batch]:
        """The batches of a group; made anew where parameters have joined, left or changed their kind."""
        known = self._batches.get(number, [])
        if [(id(p), p.dtype, p.device) for p in params] == self._members.get(number):
            return known
        places: dict[Place, list[torch.Tensor]] = {}
        for param in params:
            shape = self._shape(param)
            program, entries = self._program(shape)
            kind: Kind | None = self.kernels.kind(program, shape, param) if self.kernels else None
            if kind is None:
                kind = entries if entries is not None else shape
            ticks = int(self.state[param]["step"]) if self.state.get(param) else 0
            places.setdefault((number, kind, param.dtype, param.device, ticks), []).append(param)
        self._batches[number] = [self._batch(place, members) for place, members in places.items()]
        self._members[number] = [(id(p), p.dtype, p.device) for p in params]
        return self._batches[number]

    def _batch(self, place: Place, members: list[torch.Tensor]) -> Batch:
        _, kind, dtype, device, _ = place
        batch: Batch
        if isinstance(kind, Entrywise):
            batch = EntryBatch(kind, members, self.native)
        elif isinstance(kind, Tensorwise):
            assert self.kernels is not None
            shapes = [self._shape(p) for p in members]
            batch = self.kernels.entries([(self._program(s)[0], s) for s in shapes], members)
        else:
            shape = kind.shape if isinstance(kind, Matrices) else kind
            if (shape, dtype, device) not in self._compiled:
                compiled = compile_rule(self._program(shape)[0], members[0].detach(), self.seed)
                self._compiled[shape, dtype, device] = compiled
            compiled = self._compiled[shape, dtype, device]
            if isinstance(kind, Matrices) and self.kernels is not None:
                batch = self.kernels.matrices(compiled, members, shape)
            else:
                batch = StackedBatch(compiled, members, shape)
        if self.state.get(members[0]):
            batch.restore([self.state[p] for p in members])
        batch.publish([self.state[p] for p in members])
        return batch

    def _shape(self, param: torch.Tensor) -> Shape:
        """The shape that the rule sees: without dims that count copies."""
        return tuple(param.shape[self._lanes.get(param, 0) :])

    def _program(self, shape: Shape) -> tuple[Program, Entrywise | None]:
        """The program for a shape, and what it does to one entry if it does the same to all."""
        if shape not in self._programs:
            program = Simplify().apply(Derive().apply(self.rule(shape)))
            names = {i.name for i in program.inputs}
            if "g" not in names or names - {"g", "weight"} or len(program.outputs) != 1:
                raise ValueError(
                    f"`{program.name}` is no optimizer: it has inputs `g` and perhaps `weight`, and one output"
                )
            self._programs[shape] = program, entrywise(program, shape) if self.fused else None
        return self._programs[shape]

    def state_dict(self) -> dict[str, Any]:
        """As every optimizer's; the tensors are copies, each with its own memory."""
        found = super().state_dict()
        found["state"] = {
            number: {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in own.items()}
            for number, own in found["state"].items()
        }
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict()``; states keep their own type, which may be wider than that of a parameter."""
        super().load_state_dict(state_dict)
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for number, param in zip(numbers, params, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    self.state[param][name] = value.to(param.device, copy=True)
        self._batches.clear()
        self._members.clear()


class LevelOptimizers:
    """One optimizer for each level of steps of a module: ``step()`` once for every training step.

    A level that ticks every n steps is trained with the sum of the gradients of the steps since its last tick.
    ``backend``: that of the updates; None: that of the module, for parameters on a GPU (``MemoryOptimizer``).
    """

    def __init__(
        self,
        module: Module,
        *,
        lr: float = 1.0,
        seed: int = 0,
        backend: str | None = None,
        capturable: bool = False,
    ) -> None:
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
            self.optimizers[name] = MemoryOptimizer(
                params.values(),
                level.optimizer,
                lr=lr,
                lanes=lanes,
                seed=seed,
                backend=backend or ("triton" if module.backend == "triton" else "torch"),
                fallback=backend is None,
                capturable=capturable,
            )
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
