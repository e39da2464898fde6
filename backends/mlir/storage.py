"""Memory for the large results of a call: in huge pages where the system has them.

New memory costs a page fault for every 4 KiB, which can take longer than the loop that writes it.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch

LARGE = 1 << 25  # bytes: what is smaller comes from memory that was used before


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """As ``torch.empty`` on the CPU."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(*shape, dtype=dtype)
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        return torch.empty(*shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype).view(*shape)
