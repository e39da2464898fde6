"""Timing: candidates in turn, medians; the machine's own rates."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Run = Callable[[], Any]


@dataclass(frozen=True)
class Times:
    """Milliseconds. On a machine that others use too, the best of many rounds says more than the median."""

    median: float
    best: float


Clock = Callable[[], float]
# The time of this process's own work: with one thread, what a machine that nobody else uses would take.
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def in_turn(
    runs: Sequence[Run], repetitions: int, seconds: float = float("inf"), clock: Clock = time.perf_counter
) -> list[Times]:
    """Milliseconds of each. All take part in every round, so that they see the same machine.

    The first round warms up and does not count. After ``seconds`` no new round begins; one round is always measured.
    """
    times: list[list[float]] = [[] for _ in runs]
    begin = time.perf_counter()
    for number in range(repetitions + 1):
        for run, found in zip(runs, times, strict=True):
            start = clock()
            run()
            if number:
                found.append(1e3 * (clock() - start))
        if number and time.perf_counter() - begin > seconds:
            break
    return [Times(statistics.median(found), min(found)) for found in times]


def rate(operations: int, run: Run, repetitions: int = 20, clock: Clock = time.perf_counter) -> float:
    """GFLOP/s of a run of so many operations, at its best."""
    (times,) = in_turn([run], repetitions, clock=clock)
    return operations / times.best / 1e6


def product_rate(size: int = 64, batch: int = 256, clock: Clock = time.perf_counter) -> float:
    """GFLOP/s of batched products of square matrices, in float32."""
    a, b = torch.randn(batch, size, size), torch.randn(batch, size, size)
    out = torch.empty(batch, size, size)
    return rate(2 * batch * size**3, lambda: torch.bmm(a, b, out=out), clock=clock)


def matrix_rate(size: int = 1024, clock: Clock = time.perf_counter) -> float:
    """GFLOP/s of one product of square matrices, in float32."""
    return product_rate(size, 1, clock)


def memory_rate(entries: int = 1 << 24, clock: Clock = time.perf_counter) -> float:
    """GB/s of ``a += b`` on float32 tensors larger than any cache."""
    a, b = torch.zeros(entries), torch.ones(entries)
    return rate(12 * entries, lambda: a.add_(b), clock=clock)
