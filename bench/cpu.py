"""Compiled memories beside hand-written ones on a CPU: one command, a table of ratios, JSON beside it.

    python -m bench.cpu [--quick] [--only delta] [--json out/bench_cpu.json]

Each row is timed in one process, ours and the peer in turn, forward and forward+backward, float32, two threads; the
ratio is peer / ours of the medians. Peers are the naive references of fla-core (an extra: ``pip install
"nldsl-compiler[peers]"``) and PyTorch's causal attention. The rate of batched matrix products stands above the table:
times drift on shared machines, and only ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.peers import PEERS, Case, cases

Run = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Row:
    """Median times in milliseconds; ``ratio`` is peer / ours."""

    program: str
    peer: str
    mode: str
    ours: float
    theirs: float
    error: float

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def main() -> int:
    """Run the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--quick", action="store_true", help="a quarter of the length, fewer repetitions")
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--json", default="out/bench_cpu.json")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    batch, heads, ticks, width = (2, 4, 512, 64) if options.quick else (2, 4, 2048, 64)
    print(f"(B, H, T, D) = ({batch}, {heads}, {ticks}, {width}), float32, {options.threads} threads")
    print(f"batched 64x64x64 products: {product_rate():.0f} GFLOP/s\n")
    print(f"{'program':24}{'peer':34}{'mode':9}{'ours ms':>10}{'peer ms':>10}{'ratio':>8}{'error':>10}")
    rows: list[Row] = []
    for case in cases(batch, heads, ticks, width, options.backend):
        if options.only in case.name:
            for row in compare(case, 2 if options.quick else 3):
                rows.append(row)
                times = f"{row.ours:10.1f}{row.theirs:10.1f}{row.ratio:8.2f}{row.error:10.1e}"
                print(f"{row.program:24}{row.peer:34}{row.mode:9}{times}", flush=True)
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"peers": PEERS, "rows": [asdict(r) | {"ratio": r.ratio} for r in rows]}, indent=1))
    print(f"\nwrote {path}")
    return 0


def compare(case: Case, repetitions: int) -> list[Row]:
    """Forward and forward+backward, in turn, so that both see the same machine."""
    rows = []
    with torch.no_grad():
        ours, theirs = case.ours(), case.theirs()
        error = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-9)) if case.same else float("nan")
        a, b = in_turn(case.ours, case.theirs, repetitions)
    rows.append(Row(case.name, case.peer, "fwd", a, b, error))
    for leaf in case.leaves:
        leaf.requires_grad_(True)
    a, b = in_turn(backward(case, case.ours), backward(case, case.theirs), repetitions)
    rows.append(Row(case.name, case.peer, "fwd+bwd", a, b, error))
    for leaf in case.leaves:
        leaf.requires_grad_(False)
        leaf.grad = None
    return rows


def backward(case: Case, run: Run) -> Run:
    """The same run, with the gradients of the leaves."""

    def both() -> torch.Tensor:
        for leaf in case.leaves:
            leaf.grad = None
        y = run()
        y.backward(torch.ones_like(y))
        return y

    return both


def in_turn(ours: Run, theirs: Run, repetitions: int) -> tuple[float, float]:
    """Median milliseconds of each; the first call of each warms up."""
    times: tuple[list[float], list[float]] = ([], [])
    for n in range(repetitions + 1):
        for run, found in ((ours, times[0]), (theirs, times[1])):
            start = time.perf_counter()
            run()
            if n:
                found.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def product_rate() -> float:
    """GFLOP/s of batched 64x64x64 products."""
    a, b = torch.randn(256, 64, 64), torch.randn(256, 64, 64)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        torch.bmm(a, b)
        times.append(time.perf_counter() - start)
    return 256 * 2 * 64**3 / statistics.median(times) / 1e9


if __name__ == "__main__":
    raise SystemExit(main())
