"""Calls of native loops: tables of numbers and addresses, scratch memory, threads over lanes."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

from nldsl.backends.mlir.engine import Native
from nldsl.backends.mlir.function import HEADER, Kernel

_LOCAL = threading.local()


def scratch(size: int) -> int:
    """The address of scratch memory of this thread."""
    held: ctypes.Array[ctypes.c_char] | None = getattr(_LOCAL, "scratch", None)
    if held is None or len(held) < size + 64:
        held = _LOCAL.scratch = ctypes.create_string_buffer(size + 64)
    return (ctypes.addressof(held) + 63) // 64 * 64


@lru_cache(maxsize=4)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="nldsl-mlir")


def _range(native: Native, table: int, scratch: int, begin: int, end: int) -> None:
    numbers = (ctypes.c_int64 * 4)(table, scratch, begin, end)
    first = ctypes.addressof(numbers)
    native.address((ctypes.c_void_p * 4)(first, first + 8, first + 16, first + 24))


def call(
    native: Native,
    kernel: Kernel,
    tensors: Sequence[torch.Tensor],
    lanes: int,
    segments: int,
    total: int,
    offset: int,
    tick: int,
    first: int = 0,
    batches: int = 1,
    sequences: int = 1,
) -> None:
    """Run ``segments`` segments, the first of them ``offset`` ticks into the streams of ``total`` ticks.

    ``sequences``: how many there are, for a function whose lanes are several of them."""
    table = (ctypes.c_int64 * (HEADER + len(tensors)))(
        segments, total, offset, tick, first, batches, sequences, *(x.data_ptr() for x in tensors)
    )
    spread(native, kernel, ctypes.addressof(table), lanes)


def spread(native: Native, kernel: Kernel, address: int, lanes: int) -> None:
    """Run the function for all lanes, on the threads of PyTorch. ``address``: of its table."""
    workers = min(torch.get_num_threads(), lanes)
    if workers <= 1:
        _range(native, address, scratch(kernel.scratch), 0, lanes)
        return
    left = itertools.count()

    def work() -> None:
        own = scratch(kernel.scratch)
        while (lane := next(left)) < lanes:
            _range(native, address, own, lane, lane + 1)

    others = [_pool(workers - 1).submit(work) for _ in range(workers - 1)]
    work()
    for other in others:
        other.result()
