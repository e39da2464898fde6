"""Optimizers that look at a parameter as a whole, as Triton kernels: ``backends/triton/update_matrix.py``.

Parameters of one shape are the lanes of every launch; they and their gradients are found by a table of addresses, the
states of the memory are stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nldsl.backends.torch.loader import Emitted, load
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.update_matrix import Call, MatrixKernels
from nldsl.runtime.optimizer_kernels import BYTES
from nldsl.runtime.optimizer_numbers import SharedNumbers
from nldsl.runtime.optimizer_rows import HALF, Rows, state_type
from nldsl.runtime.optimizer_stacked import Compiled, Shape, StackedBatch

STAGES = 3
MOST_LANES = 65535


def operand_kind(dtype: torch.dtype) -> str:
    """The key of ``update_matrix.TILES`` for parameters of a type."""
    return "half" if dtype in HALF else "float64" if dtype == torch.float64 else "float32"


class KernelMatrixBatch(StackedBatch):
    """Parameters of one shape; ``compiled`` gives the states before the first tick.

    Raises UnsupportedError for more lanes than a launch has.
    """

    def __init__(
        self, kernels: MatrixKernels, compiled: Compiled, members: list[torch.Tensor], shape: Shape, capturable: bool
    ) -> None:
        super().__init__(compiled, members, shape)
        self.kernels = kernels
        like = members[0]
        wide = state_type(like.dtype)
        self._states = {n: x.to(wide) if x.is_floating_point() else x for n, x in self._states.items()}
        self._module: Emitted = load(kernels.source, "kernels")
        self.numbers = SharedNumbers(kernels.shared, like, capturable)
        self.rows = Rows(members, [tuple(p.shape[: p.dim() - len(shape)]) for p in members])
        self.lanes = lanes = len(self.rows.counts)
        if lanes > MOST_LANES:
            raise UnsupportedError(f"{lanes} parameters of one shape")
        self._slots = [
            torch.empty(lanes * size, dtype=like.dtype if low else wide, device=like.device)
            for size, low in kernels.slots
        ]
        self._parts_of = {v: torch.empty(lanes * n, dtype=wide, device=like.device) for v, n in kernels.parts}

    @property
    def source(self) -> str:
        """The code that computes a tick."""
        return self.kernels.source

    def restore(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the entries of ``Optimizer.state``, one for each member, all at the same tick."""
        super().restore(states)
        self.numbers.restore(states[0])

    def publish(self, states: Sequence[dict[str, Any]]) -> None:
        """Make the entries of ``Optimizer.state`` views of the states here."""
        super().publish(states)
        shown = self.numbers.shown()
        for own in states:
            own.update(shown)

    def update(self, factor: float | torch.Tensor, _: Sequence[dict[str, Any]]) -> None:
        """One tick; a member without a gradient has the gradient zero."""
        if not self.lanes or not self.members[0].numel():
            return
        with self.rows.on_device():
            self._tick(factor)

    def _tick(self, factor: float | torch.Tensor) -> None:
        numbers, fires = self.numbers.next(factor)
        clocks = dict(zip(self.kernels.shared.needed_clocks(), fires, strict=True))
        tensors = self.rows.gradients(), self.rows.weights()  # held until all is launched: some may be copies
        columns = [self.rows.addresses(x) for x in tensors]
        constants = self._constants(all(at % BYTES == 0 for column in columns for at in column))
        table = self.rows.table(*columns)
        for call in self.kernels.calls:
            if call.guard is None or clocks.get(call.guard, True):
                self._launch(call, table, numbers, constants)
        self.rows.put()

    def _constants(self, aligned: bool) -> dict[str, Any]:
        import triton.language as tl

        dtype = self.members[0].dtype
        half = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
        real = tl.float64 if dtype == torch.float64 else tl.float32
        exact = not torch.backends.cuda.matmul.allow_tf32
        return {
            "KIND": half.get(dtype, real),
            "REAL": real,
            "DOT": half.get(dtype, real),
            # three products of TF32 are as exact as float32 to a few units, and run where products are fast
            "PRECISION": "ieee" if dtype == torch.float64 else "tf32x3" if exact else "tf32",
            "ALIGNED": aligned,
            "STORED": self.numbers.stored,
        }

    def _launch(self, call: Call, table: torch.Tensor, numbers: Sequence[Any], constants: dict[str, Any]) -> None:
        tensors = []
        for kind, key in call.tensors:
            if kind == "slot":
                tensors.append(self._slots[int(key)])
            else:
                tensors.append(self._parts_of[int(key)] if kind == "parts" else self._states[str(key)])
        getattr(self._module, call.kernel)[call.tiles, self.lanes](
            *tensors,
            *([table] if call.lanes else []),
            *(numbers[n] for n in call.numbers),
            **{name: constants[name] for name in call.constants},
            num_warps=call.warps,
            num_stages=STAGES,
        )
