"""What Triton's compiler says about the generated kernels of programs, for GPUs that need not be there.

    python -m bench.cubin [--target 90] [--only NAME] [--width 64 128] [--dtype bf16 fp16 fp32] [--jobs 2]

For each program a line: kernels forward and backward, the most registers of a thread, bytes spilled (the worst kernel
of each direction), the most shared memory of a program, and how long compiling took. Kernels are compiled as they are
launched for vectors of each type: bf16, fp16, fp32, and tf32 for float32 with TensorFloat-32 allowed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

PROGRAMS = (
    ("stdlib/memories/gated_linear.nl", "Mamba2"),
    ("stdlib/memories/gated_linear.nl", "GatedLinearAttention"),
    ("stdlib/memories/delta.nl", "DeltaNet"),
    ("stdlib/memories/delta.nl", "GatedDelta"),
    ("stdlib/memories/delta.nl", "KimiDelta"),
    ("stdlib/memories/low_rank.nl", "RWKV7"),
    ("stdlib/memories/ttt.nl", "TTTLinear"),
    ("stdlib/memories/ttt.nl", "TTTMlp"),
    ("stdlib/memories/titans.nl", "Titans"),
)


@dataclass(frozen=True)
class Line:
    """``kernels``, ``registers``, ``spilled``: forward, backward. ``shared`` in bytes."""

    program: str
    width: int
    dtype: str
    kernels: tuple[int, int] = (0, 0)
    registers: tuple[int, int] = (0, 0)
    spilled: tuple[int, int] = (0, 0)
    spilling: tuple[str, ...] = ()
    shared: int = 0
    seconds: float = 0.0
    problem: str = ""

    def __str__(self) -> str:
        head = f"| {self.program}, {self.width}, {self.dtype} |"
        if self.problem:
            return f"{head} {self.problem} |"
        pairs = (f"{a}, {b}" for a, b in (self.kernels, self.registers, self.spilled))
        shared, seconds = f"{self.shared / 1024:.0f} KiB", f"{self.seconds:.0f} s"
        return f"{head} {' | '.join(pairs)} | {len(self.spilling)} | {shared} | {seconds} |"


HEAD = (
    "| program, width, type | kernels | registers | bytes spilled | kernels that spill | shared | compiled in |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


def sizes(entry: str, width: int) -> dict[str, Any]:
    """The static arguments of a program for heads of this width."""
    return {"d": width} if entry.startswith("TTT") else {"dk": width, "dv": width}


def compile_here(path: str, entry: str, width: int, target: int, dtype: str) -> dict[str, dict[str, object]]:
    """The reports of all kernels of a program, by name."""
    from nldsl.api import load_program
    from nldsl.backends.torch.backend import TorchBackend
    from nldsl.backends.triton.cubin import compile_jobs
    from nldsl.backends.triton.provider import LoopKernelWriter
    from nldsl.passes.plan import plan

    schedule = plan(load_program(path, entry, **sizes(entry, width)))
    writer = LoopKernelWriter(required=True, capability=target)
    backend = TorchBackend("triton", kernels=writer)
    module = backend.load(backend.emit(schedule), schedule).module
    return {report.name: asdict(report) for report in compile_jobs(writer.written, module, target, "", dtype)}


def line(chosen: tuple[str, str, int, str], target: int) -> Line:
    """The reports of a program, made in a process of its own, in a line."""
    path, entry, width, dtype = chosen
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    task = json.dumps([path, entry, width, target, dtype])
    command = [sys.executable, "-m", "bench.cubin", "--task", task]
    begin = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return Line(entry, width, dtype, problem=(done.stderr.strip().splitlines() or ["stopped"])[-1][:150])
    found = json.loads(done.stdout.splitlines()[-1])
    ways = [{n: r for n, r in found.items() if ("_bwd" in n) == back} for back in (False, True)]

    def most(what: str) -> tuple[int, int]:
        forward, backward = (max((int(r[what]) for r in way.values()), default=0) for way in ways)
        return forward, backward

    spilling = tuple(f"{n} {r['spilled']}" for n, r in found.items() if r["spilled"])
    shared, seconds = max(most("shared")), time.perf_counter() - begin
    counts = (len(ways[0]), len(ways[1]))
    return Line(entry, width, dtype, counts, most("registers"), most("spilled"), spilling, shared, seconds)


def lines(options: argparse.Namespace) -> Iterator[Line]:
    """All lines, in order, a few programs at a time."""
    names = [(p, e) for p, e in PROGRAMS if not options.only or any(o.lower() in e.lower() for o in options.only)]
    chosen = [(p, e, w, d) for d in options.dtype for w in options.width for p, e in names]
    with ThreadPoolExecutor(options.jobs) as pool:
        yield from pool.map(lambda task: line(task, options.target), chosen)


def main() -> int:
    """Print the table; 1 if a program could not be compiled."""
    parser = argparse.ArgumentParser(prog="python -m bench.cubin", description=__doc__)
    parser.add_argument("--target", type=int, default=90, help="80 for sm_80, 90 for sm_90")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="programs with this in their names")
    parser.add_argument("--width", type=int, nargs="+", default=[64], help="width of a head")
    types = ("bf16", "fp16", "fp32", "tf32")
    parser.add_argument("--dtype", nargs="+", default=["bf16"], choices=types, help="types of vectors")
    parser.add_argument("--jobs", type=int, default=2, help="programs at a time")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(compile_here(*json.loads(options.task))))
        return 0
    print(f"sm_{options.target}; pairs are forward, backward\n\n{HEAD}")
    failed = False
    for found in lines(options):
        failed = failed or bool(found.problem)
        print(found, flush=True)
        for kernel in found.spilling:
            print(f"    spills: {kernel} bytes", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
