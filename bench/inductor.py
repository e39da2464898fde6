"""One program twice: native loops of the MLIR backend, and the torch backend's module under ``torch.compile``.

    python -m bench.inductor [--only delta] [--shape 2,4,2048,64] [--json out/bench_inductor.json]

Forward and forward + backward in turn in one process, one thread, by the process's own clock; and the processor time
until the first call of both has ended, with empty caches, in this process and those it starts (the C++ compiler).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.peers import Run
from bench.sequences import SUBJECTS, Shape, Subject, data
from bench.timing import CLOCKS, Times, in_turn

USUAL = ("linear attention", "GLA", "DeltaNet", "Gated DeltaNet", "KDA", "delta rule with momentum", "TTT-Linear, 16")


@dataclass(frozen=True)
class Row:
    """Milliseconds of ours and of Inductor's, and the seconds that both took to compile."""

    program: str
    shape: str
    forward: tuple[Times, Times]
    both: tuple[Times, Times]
    compile: tuple[float, float]
    error: float

    def shown(self) -> str:
        """A row of the table."""
        cells = [self.program]
        for ours, theirs in (self.forward, self.both):
            cells += [f"{ours.best:.1f}", f"{theirs.best:.1f}", f"{theirs.best / ours.best:.2f}"]
        ours_seconds, their_seconds = self.compile
        cells += [f"{ours_seconds:.1f}", f"{their_seconds:.0f}", f"{their_seconds / ours_seconds:.0f}"]
        return "| " + " | ".join(cells) + " |"


HEAD = (
    "| program | forward, ours | Inductor | ratio | forward + backward, ours | Inductor | ratio "
    "| compile, ours (s) | Inductor | ratio |\n" + "| --- " * 10 + "|"
)


def spent() -> float:
    """Seconds of processor time, of this process and of those that it has started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def first(subject: Subject, shape: Shape, backend: str, streams: dict[str, torch.Tensor]) -> tuple[Run, Run, float]:
    """The run of a module, the same with gradients, and what it took until both have run once."""
    begin = spent()
    module = subject.compile(shape, backend)
    called = torch.compile(module, dynamic=False) if backend == "torch" else module
    run = subject.run(called, streams)
    with torch.no_grad():
        run()
    leaves = [streams[n] for n in subject.leaves.split()]

    def both() -> torch.Tensor:
        for leaf in leaves:
            leaf.grad = None
        y = run()
        y.sum().backward()  # type: ignore[no-untyped-call]
        return y

    both()
    return run, both, spent() - begin


def compare(subject: Subject, shape: Shape, rounds: int, seconds: float) -> Row:
    """One program."""
    streams = data(shape)
    for name in subject.leaves.split():
        streams[name].requires_grad_()
    torch.manual_seed(0)
    ours, ours_both, ours_seconds = first(subject, shape, "mlir", streams)
    theirs, theirs_both, their_seconds = first(subject, shape, "torch", streams)
    clock = CLOCKS["cpu"]
    with torch.no_grad():
        a, b = ours(), theirs()
        error = float((a - b).abs().max() / b.abs().max())
        one, two = in_turn([ours, theirs], rounds, seconds, clock)
    three, four = in_turn([ours_both, theirs_both], rounds, seconds, clock)
    return Row(subject.name, str(shape), (one, two), (three, four), (ours_seconds, their_seconds), error)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="programs whose name contains this, instead of the usual ones")
    parser.add_argument("--shape", default="2,4,2048,64", help="B,H,T,D")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="per program and mode")
    parser.add_argument("--json", default="out/bench_inductor.json")
    options = parser.parse_args()
    shape = Shape(*(int(n) for n in options.shape.split(",")))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NLDSL_CACHE"] = str(Path(folder) / "nldsl")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(folder) / "inductor")
        print(HEAD, flush=True)
        for subject in SUBJECTS:
            wanted = options.only.lower() in subject.name.lower() if options.only else subject.name in USUAL
            if wanted:
                rows.append(compare(subject, shape, options.rounds, options.seconds))
                print(rows[-1].shown(), flush=True)
    target = Path(options.json)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
