"""Which updates of an optimizer are kernels, and how parameters are put together for them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from nldsl.backends.triton.provider import BackendRemark
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.update_entries import write_entries
from nldsl.backends.triton.update_matrix import MatrixKernels, write_matrices
from nldsl.extras import require
from nldsl.ir.entrywise import Entrywise, Tensorwise, merged
from nldsl.ir.program import Program
from nldsl.passes.entrywise import tensorwise
from nldsl.runtime.optimizer_entries import EntryBatch
from nldsl.runtime.optimizer_kernels import KernelEntryBatch
from nldsl.runtime.optimizer_matrices import KernelMatrixBatch, operand_kind
from nldsl.runtime.optimizer_rows import Shape
from nldsl.runtime.optimizer_stacked import Compiled, StackedBatch

BACKENDS = ("torch", "triton")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
Batch = EntryBatch | StackedBatch | KernelEntryBatch


@dataclass(frozen=True)
class Matrices:
    """Parameters of a shape whose update has kernels for that shape."""

    shape: Shape


Kind = Shape | Entrywise | Tensorwise | Matrices  # what the parameters of a batch have in common


@dataclass
class Kernels:
    """Updates as Triton kernels. What has none is said once, with the reason, and keeps the form of PyTorch."""

    fallback: bool
    capturable: bool
    _said: set[str] = field(default_factory=set)
    _rules: dict[Shape, Tensorwise | None] = field(default_factory=dict)
    _matrices: dict[tuple[Shape, str], MatrixKernels] = field(default_factory=dict)

    @staticmethod
    def wanted(backend: str, fallback: bool, capturable: bool) -> Kernels | None:
        """None for PyTorch's operations. Raises ValueError for a backend that has no form for updates."""
        if backend not in BACKENDS:
            raise ValueError(f"no backend `{backend}` for optimizers; there are {', '.join(BACKENDS)}")
        if backend == "torch":
            if capturable:
                raise ValueError("`capturable` needs backend='triton'")
            return None
        require("triton", extra="triton", why="to run kernels")
        return Kernels(fallback, capturable)

    def kind(self, program: Program, shape: Shape, param: torch.Tensor) -> Kind | None:
        """What a parameter has in common with those of its batch; None where there are no kernels for it. Raises
        RuntimeError for a parameter that no kernel reaches."""
        import triton

        if param.device.type != "cuda" and not triton.knobs.runtime.interpret:
            if self.fallback:
                return None
            raise RuntimeError(
                f"the kernels of `{program.name}` need parameters on a GPU, these are on {param.device.type}: move "
                "them, use backend='torch', or set TRITON_INTERPRET=1 to run them slowly"
            )
        try:
            if type(param) not in (torch.Tensor, torch.nn.Parameter):  # it may have no memory of its own
                raise UnsupportedError(f"parameters that are of the type {type(param).__name__}")
            if param.dtype not in DTYPES:
                raise UnsupportedError(f"parameters of {param.dtype}")
            rule = self._rule(program, shape)
            if rule is None:
                key = shape, operand_kind(param.dtype)
                if key not in self._matrices:
                    self._matrices[key] = write_matrices(program, key[1])
                return Matrices(shape)
            return rule.skeleton() if rule.has_sums or not rule.numbers else rule
        except UnsupportedError as reason:
            self._refuse(program, reason)
            return None

    def _rule(self, program: Program, shape: Shape) -> Tensorwise | None:
        if shape not in self._rules:
            rule = tensorwise(program, shape)
            if rule is not None:
                write_entries(rule)
            self._rules[shape] = rule
        return self._rules[shape]

    def _refuse(self, program: Program, reason: UnsupportedError) -> None:
        text = f"the update of `{program.name}` has no kernels: {reason}; it keeps the form of the torch backend"
        if self.capturable:
            raise RuntimeError(text.partition(";")[0] + ", and no other form counts its ticks on the device")
        if text not in self._said:
            self._said.add(text)
            warnings.warn(text, BackendRemark, stacklevel=4)

    def matrices(self, compiled: Compiled, members: list[torch.Tensor], shape: Shape) -> KernelMatrixBatch:
        """The batch of parameters of one shape."""
        kernels = self._matrices[shape, operand_kind(members[0].dtype)]
        return KernelMatrixBatch(kernels, compiled, members, shape, self.capturable)

    def entries(self, programs: Sequence[tuple[Program, Shape]], members: list[torch.Tensor]) -> KernelEntryBatch:
        """The batch of parameters whose rules differ in constants alone; programs and shapes one for each."""
        rules = [self._rule(*pair) for pair in programs]
        rule, given = merged([r for r in rules if r is not None])
        leads = [tuple(p.shape[: p.dim() - len(shape)]) for p, (_, shape) in zip(members, programs, strict=True)]
        return KernelEntryBatch(rule, members, leads, given, self.capturable)
