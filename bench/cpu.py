"""Compiled memories beside their peers on a CPU: one command, a table of ratios, JSON beside it.

    python -m bench.cpu [--quick] [--only delta] [--backend torch] [--shape 1,8,4096,64] [--json out/bench_cpu.json]

Each program and all its peers are timed in one process, in turn, forward and forward + backward, float32, two threads.
A ratio is peer / ours of the medians, ``best`` that of the best rounds: times drift on shared machines, and only ratios
of one run mean anything. ``rate`` is the fraction of the machine's batched matrix products (64 x 64 x 64) that ours
reaches at its best, with the operations of the chosen form as the cost model counts them, three times as many for
forward + backward. Peers that are not installed are named and skipped. Ctrl-C keeps what was measured.

``--threads 1 --clock cpu`` counts the work of this process alone, for machines that others use at the same time.
``--growth`` measures one sequence from 1,024 to 65,536 ticks, and the cost of one token after 100 and 100,000.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.growth import LENGTHS, growth
from bench.peers import Missing, Run, Tensors, versions
from bench.sequences import SUBJECTS, Peer, Shape, Subject, data
from bench.timing import CLOCKS, Times, in_turn, matrix_rate, memory_rate, product_rate
from nldsl.api import load_program
from nldsl.passes.cost_schedule import work
from nldsl.passes.plan import plan

SHAPES = (Shape(2, 4, 2048, 64), Shape(1, 8, 4096, 64))
LINEAR = ("linear attention", "GLA", "DeltaNet", "Gated DeltaNet", "KDA", "RWKV-7 (DPLR)", "delta rule with momentum")


@dataclass(frozen=True)
class Row:
    """Milliseconds. ``error``: the largest difference, relative to the largest value, where both compute the same."""

    program: str
    shape: str
    peer: str
    mode: str
    ours: Times
    theirs: Times
    error: float | None
    goal: float | None
    rate: float | None

    @property
    def ratio(self) -> float:
        return self.theirs.median / self.ours.median

    @property
    def best_ratio(self) -> float:
        return self.theirs.best / self.ours.best

    def shown(self) -> str:
        """A line of the table."""
        error = "" if self.error is None else f"{self.error:.0e}"
        goal = "" if self.goal is None else f"{self.goal:g}x{' ok' if self.ratio >= self.goal else ''}"
        rate = "" if self.rate is None else f"{100 * self.rate:.0f} %"
        times = f"{self.ours.median:10.1f}{self.theirs.median:10.1f}{self.ratio:8.2f}{self.best_ratio:8.2f}"
        return f"{self.program:29}{self.peer:31}{self.mode:9}{times}{goal:>9}{rate:>7}{error:>8}"


HEAD = f"{'program':29}{'peer':31}{'mode':9}{'ours ms':>10}{'peer ms':>10}{'ratio':>8}{'best':>8}"
HEAD += f"{'goal':>9}{'rate':>7}{'error':>8}"


def main() -> int:
    """Run the tables and write them."""
    options = _options()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = CLOCKS[options.clock]
    rates = {"bmm": product_rate(clock=clock), "sgemm": matrix_rate(clock=clock), "memory": memory_rate(clock=clock)}
    print(f"float32, {options.threads} threads, {options.clock} clock, torch {torch.__version__}")
    shown = f"batched 64x64x64 products {rates['bmm']:.0f} GFLOP/s, sgemm {rates['sgemm']:.0f} GFLOP/s"
    print(f"{shown}, memory {rates['memory']:.0f} GB/s")
    rows: list[Row] = []
    grown = []
    try:
        for shape in [] if options.growth else _shapes(options):
            print(f"\n(B, H, T, D) = {shape}\n{HEAD}")
            for subject in SUBJECTS:
                if options.only.lower() not in subject.name.lower():
                    continue
                try:
                    for row in compare(subject, shape, options):
                        rows.append(row)
                        print(row.shown(), flush=True)
                except Exception as problem:  # noqa: BLE001  (one program that fails is a line of the table)
                    print(f"{subject.name:29}failed: {type(problem).__name__}: {str(problem)[:140]}", flush=True)
                _write(options.json, rates, rows, [])
        if options.growth:
            lengths = LENGTHS[:2] if options.quick else LENGTHS
            places = (100, 10_000 if options.quick else 100_000)
            for subject in SUBJECTS:
                if subject.name in LINEAR and options.only.lower() in subject.name.lower():
                    grown.append(growth(subject, options.backend, lengths, places, CLOCKS[options.clock]))
                    print(grown[-1].shown(), flush=True)
    except KeyboardInterrupt:
        print("interrupted: what was measured is written")
    _write(options.json, rates, rows, [asdict(g) for g in grown])
    print(f"\nwrote {options.json}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--quick", action="store_true", help="512 ticks, two rounds, no torch.compile")
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--peers", default="", help="peers whose name contains this")
    parser.add_argument("--shape", default="", help="B,H,T,D instead of the two usual ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=40.0, help="per program and mode")
    parser.add_argument("--no-compile", action="store_true", help="leave out peers under torch.compile (minutes)")
    parser.add_argument("--growth", action="store_true", help="lengths up to 65,536 and decoding instead of the table")
    parser.add_argument("--json", default="out/bench_cpu.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="wall time, or the process's own")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.no_compile = 2, 10.0, True
    return options


def _shapes(options: argparse.Namespace) -> tuple[Shape, ...]:
    if options.shape:
        return (Shape(*(int(n) for n in options.shape.split(","))),)
    return (Shape(2, 4, 512, 64),) if options.quick else SHAPES


def _write(file: str, rates: dict[str, float], rows: list[Row], grown: list[dict[str, Any]]) -> None:
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = [asdict(r) | {"ratio": r.ratio, "best_ratio": r.best_ratio} for r in rows]
    found = {"versions": versions(), "rates": rates, "rows": table, "growth": grown}
    path.write_text(json.dumps(found, indent=1))


def compare(subject: Subject, shape: Shape, options: argparse.Namespace) -> Iterator[Row]:
    """Ours and every peer that is here, forward and forward + backward."""
    if subject.longest is not None:
        shape = replace(shape, ticks=min(shape.ticks, subject.longest))
    streams = data(shape)
    module = subject.compile(shape, options.backend)
    ours = subject.run(module, streams)
    peers = list(_peers(subject, streams, options))
    if not peers:
        return
    total = operations(subject, shape)
    clock = CLOCKS[options.clock]
    speed = product_rate(clock=clock)  # beside the measurement: the machine's clock drifts
    with torch.no_grad():
        expected = ours()
        errors = [_error(expected, run()) if peer.same else None for peer, run in peers]
        times = in_turn([ours, *(run for _, run in peers)], options.rounds, options.seconds, clock)
    for (peer, _), found, error in zip(peers, times[1:], errors, strict=True):
        rate = total / times[0].best / 1e6 / speed
        yield Row(subject.name, str(shape), peer.title, "fwd", times[0], found, error, None, rate)
    leaves = [streams[n].requires_grad_() for n in subject.leaves.split()]
    peers = [(peer, run) for peer, run in peers if peer.gradient]
    runs = [_both(run, leaves) for run in (ours, *(run for _, run in peers))]
    times = in_turn(runs, options.rounds, options.seconds, clock)
    for (peer, _), found in zip(peers, times[1:], strict=True):
        rate = 3 * total / times[0].best / 1e6 / speed
        yield Row(subject.name, str(shape), peer.title, "fwd+bwd", times[0], found, None, peer.goal, rate)


def _peers(subject: Subject, streams: Tensors, options: argparse.Namespace) -> Iterator[tuple[Peer, Run]]:
    for peer in subject.peers:
        if options.peers.lower() not in peer.title.lower() or (peer.compiled and options.no_compile):
            continue
        try:
            start = time.perf_counter()
            run = peer.make(streams)
            with torch.no_grad():
                run()
        except Missing as problem:
            print(f"{subject.name:29}{peer.title:31}skipped: {problem}")
            continue
        except Exception as problem:  # noqa: BLE001  (a peer that fails is a line of the table)
            print(f"{subject.name:29}{peer.title:31}failed: {type(problem).__name__}: {str(problem)[:120]}")
            continue
        if peer.compiled:
            print(f"{subject.name:29}{peer.title:31}compiled in {time.perf_counter() - start:.0f} s")
        yield peer, run


def operations(subject: Subject, shape: Shape) -> int:
    """Of one forward pass, in the form that the compiler chose."""
    program = load_program(subject.path(), subject.entry, **subject.dims(shape))
    lanes = shape.batch if subject.whole else shape.batch * shape.heads
    found = work(plan(program)).operations
    assert isinstance(found, int)
    return found * lanes * shape.ticks


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))


def _both(run: Run, leaves: list[torch.Tensor]) -> Run:
    """The same run with the gradients of the leaves."""

    def both() -> torch.Tensor:
        for leaf in leaves:
            leaf.grad = None
        y = run()
        y.backward(torch.ones_like(y))  # type: ignore[no-untyped-call]
        return y.detach()

    return both


if __name__ == "__main__":
    raise SystemExit(main())
