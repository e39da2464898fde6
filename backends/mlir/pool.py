"""Memory for what calls keep for their way back, used again by later calls.

A tensor of tens of megabytes is fresh memory from the system in every call, which clears it page by page as it is
written: that takes longer than to write it. Here it comes from blocks that earlier calls have given back. A block is
given back when the last tensor that lies in it is gone, wherever that was held.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Sequence
from functools import lru_cache

import torch

SMALLEST = 1 << 20  # bytes: what is smaller is left to the allocator
MOST_FREE = 1 << 30  # bytes that are held for later calls


class Pool:
    """Blocks that are free. Threads share it, and a block may come back at any time: each change is one operation of a
    dictionary."""

    def __init__(self) -> None:
        self.free: dict[int, torch.Tensor] = {}  # by address; those given back first stand first

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A tensor of a shape that holds anything."""
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return torch.empty(shape, dtype=dtype)
        block = self._taken(size)
        place = (ctypes.c_char * size).from_address(block.data_ptr())
        weakref.finalize(place, self._give_back, block).atexit = False
        return torch.frombuffer(place, dtype=dtype).view(*shape)  # it holds ``place``

    def _taken(self, size: int) -> torch.Tensor:
        """A free block that fits, and of which at least half is used; else a new one."""
        for block in sorted([*self.free.values()], key=len):
            if size <= len(block) <= 2 * size and self.free.pop(block.data_ptr(), None) is not None:
                return block
        return torch.empty(size, dtype=torch.uint8)

    def _give_back(self, block: torch.Tensor) -> None:
        self.free[block.data_ptr()] = block
        while sum(len(b) for b in [*self.free.values()]) > MOST_FREE:
            self.free.pop(next(iter(self.free), 0), None)


@lru_cache(maxsize=1)
def pool() -> Pool:
    """That of the process: what one loop has given back serves another one."""
    return Pool()
