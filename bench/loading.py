"""From text until the first forward and backward have run: with an empty cache, and in new processes after that.

    python -m bench.loading [--file stdlib/models/hope.nl] [--entry HopeLM] [--backend mlir,torch] [--ticks 257]

Seconds of processor time of one thread after importing torch and nldsl (whose own modules are imported when they are
needed, so that is counted), best of the processes that found the cache full; ``call``: of the second forward and
backward alone, which the other two contain once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HEAD = "| backend | empty cache (s) | from the cache (s) | of which the call (s) |\n| --- | --- | --- | --- |"


def measure(options: argparse.Namespace, backend: str) -> dict[str, float]:
    """One process: this one."""
    import torch

    import nldsl.api

    torch.set_num_threads(1)
    tokens = torch.randint(0, 50, (2, options.ticks), generator=torch.Generator().manual_seed(0))
    start = time.process_time()
    module = nldsl.api.compile(options.file, options.entry, backend=backend)
    times = []
    for _ in range(2):
        loss, _ = module.loss(tokens)
        loss.backward()  # type: ignore[no-untyped-call]
        times.append(time.process_time() - start)
    return {"first": times[0], "call": times[1] - times[0]}


def process(arguments: list[str], backend: str, folder: str) -> dict[str, float]:
    """The same in a new process."""
    command = [sys.executable, "-m", "bench.loading", "--inside", *arguments, "--backend", backend]
    settings = {**os.environ, "NLDSL_CACHE": folder, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", default=str(ROOT / "stdlib/models/hope.nl"))
    parser.add_argument("--entry", default="HopeLM")
    parser.add_argument("--backend", default="mlir,torch")
    parser.add_argument("--ticks", type=int, default=257)
    parser.add_argument("--processes", type=int, default=5, help="that find the cache full")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options, options.backend)))
        return 0
    given = ["--file", options.file, "--entry", options.entry, "--ticks", str(options.ticks)]
    print(HEAD)
    for backend in options.backend.split(","):
        with tempfile.TemporaryDirectory() as folder:
            cold = process(given, backend, folder)
            warm = [process(given, backend, folder) for _ in range(options.processes)]
        best = min(warm, key=lambda row: row["first"])
        print(f"| {backend} | {cold['first']:.2f} | {best['first']:.2f} | {best['call']:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
