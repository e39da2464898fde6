"""Generated Triton kernels on a GPU: right against the loop over ticks, then timed beside their peers.

    python -m bench.gpu [--quick] [--output FILE]

Forward and forward+backward in bfloat16 at the shapes that the field reports, against fla's kernels (where it is
installed), ``torch.compile`` of the torch backend, and causal ``scaled_dot_product_attention``; deep memories against
their compiled sequential form; single ticks, a loop over ticks, and steps of optimizers beside PyTorch's. All times are
medians; rates are beside what a matrix product and a copy reach on the same device. Takes less than 8 minutes: what
would not fit into the time is left out and named. Without a GPU it says so and ends with code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from bench.gpu import deep, optimizers, prepare, sequence, ticks
from bench.gpu.measure import Budget, Machine, Row, said, timed

SECONDS = 480.0
PREPARE_SECONDS = 180.0
OPTIMIZER_SECONDS = 60.0
LOW_BOUND = 2e-2  # sums of all outputs over 100 ticks; a wrong kernel is off by far more


@dataclass
class Report:
    """``checks``: by name the largest relative error; a check that failed to run is NaN and has a note."""

    device: str
    versions: dict[str, str]
    ceilings: dict[str, float] = field(default_factory=dict)
    prepared: str = ""
    checks: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    steps: list[optimizers.StepRow] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        return [name for name, error in self.checks.items() if not error < self.bounds[name]]


def main() -> int:
    """Check, measure, print; 1 if a check fails, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes; also runs in Triton's interpreter")
    parser.add_argument("--output", type=Path, help="write the report as JSON")
    parser.add_argument("--compile", metavar="TASK", help=argparse.SUPPRESS)
    options = parser.parse_args()
    import triton

    machine = Machine("cuda" if torch.cuda.is_available() else "cpu", Budget(SECONDS))
    if not machine.real and not (options.quick and triton.knobs.runtime.interpret):
        print("There is no GPU here: no kernel was timed. (--quick with TRITON_INTERPRET=1 runs the benchmark itself.)")
        return 2
    if options.compile:
        prepare.compile_one(options.compile, machine)
        return 0
    name = torch.cuda.get_device_name() if machine.real else "CPU, Triton's interpreter: times say nothing"
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "triton": triton.__version__}
    report = Report(name, versions)
    print(f"{name}; {versions}")
    try:
        _run(report, machine, options.quick)
    except KeyboardInterrupt:
        print("stopped: what was measured so far counts")
    if options.output:
        options.output.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    if report.wrong:
        print(f"WRONG: {', '.join(report.wrong)}")
    return int(bool(report.wrong))


def _run(report: Report, machine: Machine, quick: bool) -> None:
    report.ceilings = ceilings(machine.device)
    print("ceilings: " + ", ".join(f"{v:.1f} {k}" for k, v in report.ceilings.items()), flush=True)
    if machine.real:
        report.prepared = prepare.shown(prepare.compile_all(quick, machine, PREPARE_SECONDS))
        print(f"{report.prepared}; {machine.budget.left:.0f} s are left", flush=True)
    bound = 1e-3 if machine.real else 1e-4  # TF32 products on a GPU
    for name, run, most in _checks(machine, bound):
        report.bounds[name] = most
        try:
            report.checks[name] = run()
        except Exception as problem:  # noqa: BLE001  the other checks still say something
            report.checks[name], report.notes[name] = float("nan"), said(problem)
        print(f"{name}: {report.checks[name]:.1e} (bound {most:.0e}) {report.notes.get(name, '')}", flush=True)
    for entry in deep.ENTRIES if not (quick and machine.real) else ():
        _print(report, deep.rows(entry, machine))
    shapes = (sequence.QUICK if quick else sequence.SHAPES) if machine.real else (sequence.TINY,)
    for shape in shapes[:1]:
        for entry in sequence.ENTRIES:
            _print(report, sequence.rows(entry, shape, machine))
    for step in optimizers.rows(machine.device, timed, not machine.real, OPTIMIZER_SECONDS):
        report.steps.append(step)
        print(step.shown(), flush=True)
    for shape in shapes[1:]:
        for entry in sequence.ENTRIES:
            _print(report, sequence.rows(entry, shape, machine))
    if quick and machine.real:
        return
    for size in ticks.STEPS if machine.real else ticks.TINY_STEPS:
        for entry in sequence.ENTRIES:
            for row in ticks.step_rows(entry, size, machine):
                report.rows.append(row)
                print(f"  {entry:18} {'x'.join(map(str, size)):18} {row.what:18} {row.forward:9.4f} ms {row.note}")
    _print(report, ticks.loop_rows(machine))


def _checks(machine: Machine, bound: float) -> Iterator[tuple[str, Callable[[], float], float]]:
    """Name, check, and how large its error may be."""
    for entry in sequence.ENTRIES:
        yield f"{entry}, against the loop over ticks", partial(sequence.check, entry, machine), bound
        if machine.real:  # Triton's interpreter has no products of bfloat16
            yield f"{entry} in bfloat16, relative RMSE", partial(sequence.check_low, entry, machine), LOW_BOUND
        yield f"{entry}, single ticks", partial(ticks.check_steps, entry, machine), bound
    for entry in deep.ENTRIES:
        yield (
            f"{entry}, against the loop over ticks",
            partial(deep.check, entry, machine),
            10 * bound if machine.real else bound,
        )
    yield "a loop over ticks, against PyTorch", partial(ticks.check_loop, machine), bound
    for name in optimizers.CALLS:
        yield f"{name}, against PyTorch's operations", partial(optimizers.check, name, machine.device), bound


def _print(report: Report, rows: Iterator[tuple[Row, Row]]) -> None:
    for row, base in rows:
        report.rows.append(row)
        print(row.shown(base), flush=True)


def ceilings(device: str) -> dict[str, float]:
    """What a matrix product (TFLOP/s, bfloat16) and a copy (GB/s) reach."""
    n = 8192 if device == "cuda" else 256
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    product = timed(lambda: a @ a, device, 1.0)
    b = torch.empty(n * n * 4, device=device)
    copy = timed(lambda: b.clone(), device, 1.0)
    return {"TFLOP/s": 2e-9 * n**3 / product, "GB/s": 2e-6 * b.numel() * 4 / copy}


if __name__ == "__main__":
    raise SystemExit(main())
