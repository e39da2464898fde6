"""The tensors that kernels of an optimizer work on, and the table on the device that says where each lies.

The table is made once, and again only when an address has changed. In a CUDA graph addresses are fixed, and the copy of
the table to the device is part of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

ALIGNED = 16  # entries: the states of each parameter begin at a multiple
MOST_TABLES = 8
MOST_SPARE = 2
HALF = (torch.float16, torch.bfloat16)
Shape = tuple[int, ...]


def state_type(dtype: torch.dtype) -> torch.dtype:
    """The type of states and workspaces: float32 for parameters in half precision."""
    return torch.float32 if dtype in HALF else dtype


class Rows:
    """A row for each copy in each parameter: ``leads`` are the leading dims of each parameter that count copies.

    ``counts`` and ``starts`` say how many entries each row has and where its states begin; ``spans`` has the first row
    and the number of rows of each parameter, ``places`` where its states begin and end.
    """

    def __init__(self, members: Sequence[torch.Tensor], leads: Sequence[Shape]) -> None:
        self.members = list(members)
        self.leads = list(leads)
        self.device = members[0].device
        self.counts: list[int] = []
        self.starts: list[int] = []
        self.spans: list[tuple[int, int]] = []
        self.places: list[tuple[int, int]] = []
        at = 0
        for param, lead in zip(members, leads, strict=True):
            copies, size = math.prod(lead), math.prod(param.shape[len(lead) :])
            self.spans.append((len(self.counts), copies))
            self.places.append((at, at + copies * size))
            self.counts += [size] * copies
            self.starts += [at + n * size for n in range(copies)]
            at = -(-(at + copies * size) // ALIGNED) * ALIGNED
        self.entries = at
        # parameters that do not lie in one piece are changed in a copy
        apart = {n: p for n, p in enumerate(members) if not p.is_contiguous()}
        self._apart = {n: torch.empty(p.shape, dtype=p.dtype, device=p.device) for n, p in apart.items()}
        self._zeros: torch.Tensor | None = None
        self._kept: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}
        self._spare: list[torch.Tensor] = []
        self._captured = False

    def gradients(self) -> list[torch.Tensor]:
        """One for each parameter, in its type and in one piece; zeros where there is none."""
        found = []
        for param in self.members:
            gradient = param.grad
            if gradient is None:
                if self._zeros is None:
                    most = max(p.numel() for p in self.members)
                    self._zeros = torch.zeros(most, dtype=param.dtype, device=param.device)
                gradient = self._zeros[: param.numel()]
            elif gradient.dtype != param.dtype or not gradient.is_contiguous():
                gradient = gradient.to(param.dtype).contiguous()
            found.append(gradient.detach())
        return found

    def weights(self) -> list[torch.Tensor]:
        """The weights in one piece each; ``put`` what has become of them afterwards."""
        for number, copy in self._apart.items():
            copy.copy_(self.members[number].detach())
        return [self._apart.get(n, p.detach()) for n, p in enumerate(self.members)]

    def put(self) -> None:
        """What has changed in a copy goes to its parameter; autograd notices that weights have changed."""
        for number, param in enumerate(self.members):
            if number in self._apart:
                param.copy_(self._apart[number])
            else:
                torch.autograd.graph.increment_version(param)

    def addresses(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        """Where each row begins, in tensors like the parameters."""
        found = []
        for tensor, (first, copies) in zip(tensors, self.spans, strict=True):
            size = self.counts[first] * tensor.element_size() if copies else 0
            found += [tensor.data_ptr() + n * size for n in range(copies)]
        return found

    def table(self, *columns: Sequence[int]) -> torch.Tensor:
        """These columns as a table on the device; the one of a former call if it is the same."""
        flat = tuple(number for row in zip(*columns, strict=True) for number in row)
        if flat not in self._kept:
            host = self._host(len(flat))
            host.copy_(torch.tensor(flat, dtype=torch.int64))
            self._kept[flat] = host.to(self.device, non_blocking=True), host
        return self._kept[flat][0]

    def _host(self, size: int) -> torch.Tensor:
        """Memory of the host to copy a table from. While a CUDA graph is made none can be had, so some is kept; what a
        graph copies from is never given up."""
        if self.device.type != "cuda":
            self._kept.clear()
            return torch.empty(size, dtype=torch.int64)
        if not torch.cuda.is_current_stream_capturing():
            if len(self._kept) >= MOST_TABLES and not self._captured:
                self._kept.clear()
            while len(self._spare) <= MOST_SPARE:
                self._spare.append(torch.empty(size, dtype=torch.int64, pin_memory=True))
        else:
            self._captured = True
        return self._spare.pop()

    def on_device(self) -> AbstractContextManager[object]:
        """Kernels are launched on the GPU that is the current one."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    def blocks(self, size: int, most: int | None = None) -> tuple[list[int], list[tuple[int, int, int]]]:
        """(row, first entry) of every block of ``size`` entries, at least one for each row, as one list; and of every
        row its first block, how many it has, their size. ``most``: so many per row at most, which then are larger."""
        flat: list[int] = []
        found = []
        for row, count in enumerate(self.counts):
            length = size if most is None else max(size, -(-count // (most * size)) * size)
            number = max(1, -(-count // length))
            found.append((len(flat) // 2, number, length))
            for n in range(number):
                flat += (row, n * length)
        return flat, found
