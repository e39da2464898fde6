"""One program twice: native loops of the MLIR backend, and the torch backend's module under ``torch.compile``.

    python -m bench.inductor [--only delta] [--shape 2,4,2048,64] [--limit 720] [--cache FOLDER] [--json FILE]

Each program has a process of its own with a limit, for Inductor compiles an unrolled loop for minutes. What was found
is appended to ``--json``, a file of JSON lines, at once: the processor time until the first call of both has ended, in
that process and those that it starts (the C++ compiler), then the milliseconds of forward + backward, and of forward,
in turn, of one process. The package is compiled to bytecode before, as installers do. With ``--cache`` caches are kept:
a second run then times what the first has compiled, in a quieter minute (its seconds of compiling are those from
caches). Chunk forms written by hand run beside them where there are any, under ``torch.compile``, too.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import nldsl
from bench.peers import Run
from bench.sequences import SUBJECTS, Shape, Subject, data
from bench.timing import CLOCKS, Times, in_turn, matrix_rate, product_rate

# What Inductor compiles in a few minutes comes first.
ORDER = (
    "linear attention", "CMS, 4 networks", "GLA", "LaCT, 256", "LaCT with Muon, 256", "self-modifying Titans, 64",
    "Gated DeltaNet", "DeltaNet", "delta rule with momentum", "Gated DeltaProduct, 2", "Titans, 2 layers, 64",
    "KDA", "RWKV-7 (DPLR)", "self-modifying Titans (HOPE)", "TTT-MLP, 16", "TTT-Linear, 16",
)  # fmt: skip
HAND = "by hand, torch.compile"


@dataclass(frozen=True)
class Candidate:
    """One side of a comparison. ``make`` gives its run; ``seconds``: what its first calls took, by mode."""

    name: str
    make: Callable[[], Run]
    seconds: dict[str, float]
    error: float | None = None


def spent() -> float:
    """Seconds of processor time, of this process and of those that it has started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def candidates(subject: Subject, shape: Shape, streams: dict[str, torch.Tensor]) -> list[Candidate]:
    """Ours, Inductor's of the torch backend, and what is written by hand where there is any."""

    def ours() -> Run:
        return subject.run(subject.compile(shape, "mlir"), streams)

    def theirs() -> Run:
        return subject.run(torch.compile(subject.compile(shape, "torch"), dynamic=False), streams)

    found = [Candidate("ours", ours, {}), Candidate("Inductor", theirs, {})]
    by_hand = [peer for peer in subject.peers if peer.title == HAND]
    return found + [Candidate(HAND, lambda: by_hand[0].make(streams), {}) for _ in by_hand]


def with_gradients(run: Run, leaves: list[torch.Tensor]) -> Run:
    """The same run with the gradients of the leaves."""

    def both() -> torch.Tensor:
        for leaf in leaves:
            leaf.grad = None
        y: torch.Tensor = run()
        y.sum().backward()  # type: ignore[no-untyped-call]
        return y

    return both


def compare(
    subject: Subject, shape: Shape, options: argparse.Namespace, report: Callable[[dict[str, Any]], None]
) -> None:
    """One program: a line for what compiling took, and one for the times, of each mode."""
    if subject.longest is not None:
        shape = replace(shape, ticks=min(shape.ticks, subject.longest))
    streams = data(shape)
    leaves = [streams[name].requires_grad_() for name in subject.leaves.split()]
    sides = candidates(subject, shape, streams)
    runs: dict[str, Run] = {}
    for mode in ("forward + backward",) if options.no_forward else ("forward + backward", "forward"):
        taken, results = [], []
        with torch.set_grad_enabled(mode != "forward"):
            for side in sides:
                begin = spent()
                if side.name not in runs:
                    runs[side.name] = side.make()
                run = runs[side.name]
                taken.append(run if mode == "forward" else with_gradients(run, leaves))
                results.append(taken[-1]().detach())
                side.seconds[mode] = spent() - begin
                key = {"kind": "compile", "program": subject.name, "shape": str(shape), "mode": mode}
                report(key | {"side": side.name, "seconds": side.seconds[mode]})
            times = in_turn(taken, options.rounds, options.seconds, CLOCKS[options.clock])
        errors = [float((y - results[0]).abs().max() / results[0].abs().max()) for y in results]
        key = {"kind": "times", "program": subject.name, "shape": str(shape), "mode": mode, "threads": options.threads}
        rates = {"bmm": product_rate(clock=CLOCKS["cpu"]), "sgemm": matrix_rate(clock=CLOCKS["cpu"])}
        sides_found = {
            c.name: {"median": t.median, "best": t.best, "error": e}
            for c, t, e in zip(sides, times, errors, strict=True)
        }
        report(key | {"clock": options.clock, "rates": rates, "sides": sides_found, "load": os.getloadavg()[0]})
        print(shown(subject.name, str(shape), mode, sides, times), flush=True)


def shown(name: str, shape: str, mode: str, sides: list[Candidate], times: list[Times]) -> str:
    """A row: milliseconds of ours, then of each other side with its ratio by medians (by the best rounds)."""
    cells = [name, shape, mode, f"{times[0].median:.1f}"]
    for side, found in zip(sides[1:], times[1:], strict=True):
        ratio = f"{found.median / times[0].median:.2f} ({found.best / times[0].best:.2f})"
        slower = side.seconds[mode] / max(sides[0].seconds[mode], 1e-9)
        cells += [side.name, f"{found.median:.1f}", ratio, f"first call {side.seconds[mode]:.0f} s, {slower:.0f}x"]
    return "| " + " | ".join(cells) + " |"


def alone(name: str, arguments: list[str], limit: float) -> str:
    """Runs one program in a process group of its own; what ended it, if it did not end by itself."""
    command = [sys.executable, "-m", "bench.inductor", "--alone", name, *arguments]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(limit)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as problem:
        os.killpg(process.pid, signal.SIGKILL)  # its C++ compilers with it
        process.wait()
        if isinstance(problem, KeyboardInterrupt):
            raise
        return f"did not end within {limit:.0f} s"
    return "" if code == 0 else f"ended with {code}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--shape", default="2,4,2048,64", help="B,H,T,D")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="per program and mode")
    parser.add_argument("--limit", type=float, default=720.0, help="seconds until a program is given up")
    parser.add_argument("--no-forward", action="store_true", help="forward + backward alone, in two thirds of the time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="cpu")
    parser.add_argument("--cache", default="", help="a folder for the caches of both, kept; else a new empty one")
    parser.add_argument("--json", default="out/bench_inductor.jsonl")
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = Shape(*(int(n) for n in options.shape.split(",")))
    target = Path(options.json)
    target.parent.mkdir(parents=True, exist_ok=True)

    def report(line: dict[str, Any]) -> None:
        with target.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    subjects = {subject.name: subject for subject in SUBJECTS}
    if options.alone:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        warnings.simplefilter("ignore")
        compare(subjects[options.alone], shape, options, report)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(options.cache or folder).resolve()
        package = Path(nldsl.__file__).parent
        for source in (package, *(path for path in package.iterdir() if path.is_symlink())):
            compileall.compile_dir(source, quiet=2)
        for variable, name in (("NLDSL_CACHE", "nldsl"), ("TORCHINDUCTOR_CACHE_DIR", "inductor")):
            (root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
            os.environ[variable] = str(root / name)
        passed = ["shape", "rounds", "seconds", "threads", "clock", "json"]
        arguments = [part for name in passed for part in (f"--{name}", str(getattr(options, name)))]
        arguments += ["--no-forward"] if options.no_forward else []
        for name in ORDER:
            if options.only.lower() in name.lower():
                problem = alone(name, arguments, options.limit)
                if problem:
                    report({"kind": "failed", "program": name, "shape": str(shape), "problem": problem})
                    print(f"| {name} | {shape} | {problem} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
