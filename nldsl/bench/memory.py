"""The memory that training needs at its peak: measured, and predicted without computing anything.

The prediction runs the emitted code on tensors without entries (PyTorch's ``meta`` device) and counts what is alive
after every operation; it costs as much for a long sequence as for a short one. Where it is asked for as a formula, a
few such runs give its coefficients: memory is linear in the batch and, over whole segments, in the ticks.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from nldsl.runtime.module import Module


def peak_of(run: Callable[[], Any]) -> int:
    """Bytes that ``run`` has allocated at once, at the most, beyond what was allocated before.

    As PyTorch's own allocator reports them: also what operations allocate inside. For tensors of a CPU.
    """
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # what is released later would count against what is allocated
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    results = record.profiler.kineto_results
    changes = sorted((e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations under it have made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()  # addresses of living storages

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in given and storage._cdata not in self._known:
                    self._add(storage)
        return result

    def _add(self, storage: Any) -> None:
        size = storage.nbytes()
        self._known.add(storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, storage._cdata, size)

    def _release(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


class _Cumprod(torch.autograd.Function):
    """A cumulative product with the derivative that PyTorch takes where no factor is zero."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dim: int) -> torch.Tensor:
        result = x.cumprod(dim)
        ctx.save_for_backward(x, result)
        ctx.dim = dim
        return result

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        x, result = ctx.saved_tensors
        products = (result * cotangents[0]).flip(ctx.dim)
        return products.cumsum(ctx.dim).flip(ctx.dim) / x, None


class NoZeroFactors(TorchFunctionMode):
    """Cumulative products go back the short way: without entries PyTorch cannot see that no factor is zero."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.Tensor.cumprod, torch.cumprod) and len(args) == 2:
            return _Cumprod.apply(*args)  # type: ignore[no-untyped-call]
        return function(*args, **(kwargs or {}))


def training_step(module: Module, inputs: Mapping[str, torch.Tensor]) -> Callable[[], None]:
    """The loss of ``minimize`` if there is one, else the sum of the outputs, with all gradients (of inputs, too)."""
    leaves: dict[str, Any]
    leaves = {n: x.detach().requires_grad_() if x.is_floating_point() else x for n, x in inputs.items()}

    def run() -> None:
        for leaf in (*leaves.values(), *module.parameters()):
            leaf.grad = None
        if module.program.losses:
            total = module.loss(**leaves)[0]
        else:
            found = module(**leaves)
            parts = found.values() if isinstance(found, dict) else (found,)
            total = torch.stack([part.sum() for part in parts]).sum()
        total.backward()  # type: ignore[no-untyped-call]

    return run


def predicted_peak(module: Module, batch: int, ticks: int) -> int:
    """Bytes at the peak of forward and backward for ``batch`` sequences, without parameters and inputs.

    Gradients of parameters and of inputs are included. A module that is on the ``meta`` device is not copied.
    """
    if any(x.device.type != "meta" for x in module.buffers()):
        module = copy.deepcopy(module).to("meta")
    run = training_step(module, meta_inputs(module, batch, ticks))
    with NoZeroFactors(), LiveBytes() as live:
        run()
    peak: int = live.peak
    return peak


def meta_inputs(module: Module, batch: int, ticks: int) -> dict[str, torch.Tensor]:
    """Inputs without entries."""
    found = {}
    more = 1 if module.streams.ahead and module.program.losses else 0
    for declared in module.program.inputs:
        if declared.ahead:
            continue
        shape = (batch, ticks + more, *(int(str(s)) for s in declared.type.shape))
        dtype = torch.int64 if declared.type.kind == "int" else torch.get_default_dtype()
        found[declared.name] = torch.empty(shape, dtype=dtype, device="meta")
    return found


@dataclass(frozen=True)
class PeakMemory:
    """Bytes at the peak of training: ``fixed + batch * (per_sequence + per_tick * ticks)``, for whole segments and two
    sequences or more."""

    fixed: float
    per_sequence: float
    per_tick: float

    def at(self, batch: int, ticks: int) -> float:
        return self.fixed + batch * (self.per_sequence + self.per_tick * ticks)

    def __str__(self) -> str:
        return f"{self.fixed:,.0f} + batch * ({self.per_sequence:,.0f} + {self.per_tick:,.1f} * ticks) bytes"


def peak_formula(module: Module, ticks: int = 1024) -> PeakMemory:
    """The formula for a module, from runs without data at ``ticks`` and twice as many, two and four sequences.

    One sequence alone may need less: its transposed tensors need no copies.
    """
    module = copy.deepcopy(module).to("meta")
    short, long = predicted_peak(module, 2, ticks), predicted_peak(module, 2, 2 * ticks)
    more = predicted_peak(module, 4, 2 * ticks)
    per_tick = (long - short) / ticks / 2
    fixed = 2 * long - more
    return PeakMemory(fixed, (long - fixed) / 2 - 2 * ticks * per_tick, per_tick)
