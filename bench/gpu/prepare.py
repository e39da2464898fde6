"""Compile the kernels of all programs beforehand, several processes at a time.

Triton keeps what it has compiled on disk, so that the benchmark itself then finds all of it. A process runs each
program once, forward and backward, for few ticks: kernels do not depend on how many there are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch

from bench.gpu import deep, sequence, ticks
from bench.gpu.measure import Machine, Shape, inputs_of

TICKS = 128
PARTS = "sequence", "deep", "step"


def tasks(quick: bool) -> list[str]:
    """What one process compiles: part, entry, heads, width; last with the states kept."""
    widths = {shape[2:] for shape in (sequence.QUICK if quick else sequence.SHAPES)}
    found = [f"sequence,{entry},{h},{d}" for entry in sequence.ENTRIES for h, d in sorted(widths, reverse=True)]
    if not quick:
        found = [f"deep,{entry},{deep.SHAPE[2]},{deep.SHAPE[3]}" for entry in deep.ENTRIES] + found
        found += [f"step,{entry},{ticks.STEPS[0][2]},{ticks.STEPS[0][3]}" for entry in sequence.ENTRIES]
    return [*found, *(f"{task},kept" for task in found if not task.startswith("step"))]


def compile_one(task: str, machine: Machine) -> None:
    """Run a program once in the type that is timed."""
    part, entry, heads, d, *kept = task.split(",")
    shape: Shape = (2, TICKS, int(heads), int(d))
    if part == "step":
        ours, plain = ticks.step_modules(entry, shape, machine)
        x = inputs_of(ours, shape, machine.low, machine.device, machine.low)
        ticks.steps(ours.to(machine.low), plain.to(machine.low), x, "cpu")["step, kernels"]()
        return
    maker = deep if part == "deep" else sequence
    module = maker.kernels(entry, shape, keep_states=True if kept else None).to(machine.device, machine.low)
    x = (
        deep.streams(module, shape, machine.low, machine.device)
        if part == "deep"
        else inputs_of(module, shape, machine.low, machine.device, machine.low)
    )
    y = module(**x)
    torch.autograd.grad(y, list(x.values()), torch.ones_like(y), allow_unused=True)


def compile_all(quick: bool, machine: Machine, seconds: float) -> list[str]:
    """Compile everything that the time allows; the tasks that failed or were cut off."""
    waiting, running, failed = tasks(quick), dict[str, subprocess.Popen[bytes]](), list[str]()
    most = max(1, (os.cpu_count() or 2) - 2)
    end = machine.budget.left - seconds
    while waiting or running:
        while waiting and len(running) < most:
            task = waiting.pop(0)
            command = [sys.executable, "-m", "bench.gpu", "--compile", task]
            running[task] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if machine.budget.left < end:
            for process in running.values():
                process.kill()
            return [*failed, *running, *waiting]
        for task, process in list(running.items()):
            try:
                if process.wait(timeout=0.2):
                    failed.append(task)
            except subprocess.TimeoutExpired:
                continue
            del running[task]
    return failed


def shown(failed: Sequence[str]) -> str:
    """What is said of them."""
    return f"not compiled beforehand: {'; '.join(failed)}" if failed else "all kernels are compiled"
