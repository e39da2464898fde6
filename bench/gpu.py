"""Generated Triton kernels on a GPU: right against the loop over ticks, then timed beside their peers.

    python -m bench.gpu [--quick] [--output FILE]

Forward and forward+backward in bfloat16 at the shapes that the field reports, against fla's kernels (where it is
installed), ``torch.compile`` of the torch backend, and causal ``scaled_dot_product_attention``; before that steps of
optimizers beside PyTorch's (``gpu_optimizers.py``). All times are medians; rates are beside what a matrix product and a
copy reach on the same device. Takes less than 8 minutes: peers that would not fit into the time are left out and named.
Without a GPU it says so and ends with code 2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import gpu_optimizers, gpu_ticks

MINUTES = 8.0
OPTIMIZER_SECONDS = 60.0
LOW_BOUND = 2e-2  # sums of all outputs over 100 ticks; a wrong kernel is off by far more
SHAPES = ((8, 2048, 16, 128), (1, 32768, 16, 128), (8, 2048, 16, 64), (1, 32768, 16, 64))
QUICK = ((2, 512, 4, 64),)
HEADS = """
from "memories/delta" import DeltaNet, GatedDelta, KimiDelta
from "memories/gated_linear" import GatedLinearAttention

block Mixer_Gla(q: [heads, d], k: [heads, d], v: [heads, d], keep: [heads, d], heads: dim, d: dim) {
  memory m: heads of GatedLinearAttention(d, d)
  return m.step(q, k, v, keep)
}
block Mixer_Delta(q: [heads, d], k: [heads, d], v: [heads, d], rate: [heads], heads: dim, d: dim) {
  memory m: heads of DeltaNet(d, d)
  return m.step(q, k, v, rate)
}
block Mixer_GatedDelta(q: [heads, d], k: [heads, d], v: [heads, d], rate: [heads], keep: [heads], heads: dim, d: dim) {
  memory m: heads of GatedDelta(d, d)
  return m.step(q, k, v, rate, keep)
}
block Mixer_Kimi(q: [heads, d], k: [heads, d], v: [heads, d], rate: [heads], keep: [heads, d], heads: dim, d: dim) {
  memory m: heads of KimiDelta(d, d)
  return m.step(q, k, v, rate, keep)
}
"""
ENTRIES = ("Mixer_GatedDelta", "Mixer_Delta", "Mixer_Gla", "Mixer_Kimi")
Tensors = dict[str, torch.Tensor]


@dataclass
class Row:
    """Milliseconds; ``error`` is the largest difference from the loop over ticks, relative to the largest value."""

    program: str
    shape: tuple[int, ...]
    what: str
    forward: float = float("nan")
    both: float = float("nan")
    memory: float = float("nan")
    note: str = ""


@dataclass
class Report:
    device: str
    versions: dict[str, str]
    ceilings: dict[str, float] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)
    low_checks: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    steps: list[gpu_optimizers.StepRow] = field(default_factory=list)


def inputs_of(module: Any, shape: tuple[int, ...], dtype: torch.dtype, device: str, gates: torch.dtype) -> Tensors:
    """Random streams: keys of length 1, gates near 1 (in a type of their own: the peers want them in float32)."""
    batch, ticks, _, _ = shape
    generator = torch.Generator(device=device).manual_seed(0)
    found = {}
    for declared in module.program.inputs:
        sizes = [int(str(s)) for s in declared.type.shape]
        x = torch.randn(batch, ticks, *sizes, generator=generator, device=device)
        if declared.name == "k":
            x = torch.nn.functional.normalize(x, dim=-1)
        if declared.name in ("rate", "keep"):
            gate = torch.sigmoid(x + (4.0 if declared.name == "keep" else 0.0))
            found[declared.name] = gate.to(gates).requires_grad_()
        else:
            found[declared.name] = x.to(dtype).requires_grad_()
    return found


def timed(run: Callable[[], Any], device: str, seconds: float) -> float:
    """The median in milliseconds, after two runs that do not count."""
    for _ in range(2):
        run()
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 30 and (len(times) < 3 or time.perf_counter() - begin < seconds):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure(row: Row, run: Callable[[Tensors], torch.Tensor], x: Tensors, device: str, seconds: float) -> Row:
    """Fill in the times of a row; what fails is said in its note."""

    def both() -> None:
        y = run(x)
        torch.autograd.grad(y, list(x.values()), torch.ones_like(y), allow_unused=True)

    try:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with torch.no_grad():
            row.forward = timed(lambda: run(x), device, seconds)
        row.both = timed(both, device, seconds)
        if device == "cuda":
            row.memory = torch.cuda.max_memory_allocated() / 2**30
    except Exception as problem:  # noqa: BLE001  a table is worth more than its weakest row
        row.note = f"{type(problem).__name__}: {str(problem).splitlines()[0][:90]}"
    return row


def check(entry: str, ticks: int, heads: int, d: int, device: str) -> float:
    """The largest relative difference between kernels and the loop over ticks, values and gradients, in float32."""
    import nldsl

    found = []
    for backend, disabled in (("torch", frozenset({"chunk"})), ("triton", frozenset[str]())):
        options: dict[str, Any] = {"backend": backend, "disabled": disabled, "require_backend": backend == "triton"}
        module = nldsl.compile("mixers.nl", entry, text=HEADS, **options, heads=heads, d=d).to(device)
        x = inputs_of(module, (2, ticks, heads, d), torch.float32, device, torch.float32)
        y = module(**x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(x.values()))])
    errors = [((a - b).abs().max() / a.abs().max()).detach() for a, b in zip(*found, strict=True)]
    return float(torch.stack(errors).max())  # NaN if one is


def check_low(entry: str, ticks: int, heads: int, d: int, device: str) -> float:
    """The largest relative root mean square difference of what is timed, the module in bfloat16, from the loop over
    ticks in float32 with the same (rounded) inputs."""
    import nldsl

    dims: dict[str, Any] = {"heads": heads, "d": d}
    plain = nldsl.compile("mixers.nl", entry, text=HEADS, disabled=frozenset({"chunk"}), **dims).to(device)
    ours = nldsl.compile("mixers.nl", entry, text=HEADS, backend="triton", require_backend=True, **dims).to(
        device, torch.bfloat16
    )
    x = inputs_of(ours, (2, ticks, heads, d), torch.bfloat16, device, torch.bfloat16)
    wide = {name: value.detach().float().requires_grad_() for name, value in x.items()}
    found = []
    for module, given in ((plain, wide), (ours, x)):
        y = module(**given)
        found.append([y, *torch.autograd.grad(y, list(given.values()), torch.ones_like(y))])
    errors = []
    for want, got in zip(*found, strict=True):
        errors.append(((got.float() - want).square().mean().sqrt() / want.square().mean().sqrt()).detach())
    return float(torch.stack(errors).max())


def peer(entry: str) -> Callable[[Tensors], torch.Tensor] | None:
    """fla's kernel for the same recurrence, or None."""
    try:
        from fla.ops.delta_rule import chunk_delta_rule
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        from fla.ops.gla import chunk_gla
        from fla.ops.kda import chunk_kda
    except Exception:  # noqa: BLE001  fla fails to import in many ways where it does not fit
        return None

    def args(x: Tensors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return x["q"], x["k"], x["v"]

    table: Mapping[str, Callable[[Tensors], Any]] = {
        "Mixer_Delta": lambda x: chunk_delta_rule(*args(x), x["rate"].to(x["q"].dtype), scale=1.0),
        "Mixer_GatedDelta": lambda x: chunk_gated_delta_rule(
            *args(x), g=x["keep"].log(), beta=x["rate"].to(x["q"].dtype), scale=1.0
        ),
        "Mixer_Gla": lambda x: chunk_gla(*args(x), x["keep"].log(), scale=1.0),
        "Mixer_Kimi": lambda x: chunk_kda(*args(x), g=x["keep"].log(), beta=x["rate"].to(x["q"].dtype), scale=1.0),
    }
    run = table[entry]
    return lambda x: run(x)[0]


def attention(x: Tensors) -> torch.Tensor:
    """Causal softmax attention over the same queries, keys and values."""
    q, k, v = (x[n].transpose(1, 2) for n in "qkv")
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2)


def ceilings(device: str) -> dict[str, float]:
    """What a matrix product (TFLOP/s, bfloat16) and a copy (GB/s) reach."""
    n = 8192 if device == "cuda" else 256
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    product = timed(lambda: a @ a, device, 1.0)
    b = torch.empty(n * n * 4, device=device)
    copy = timed(lambda: b.clone(), device, 1.0)
    return {"TFLOP/s": 2e-9 * n**3 / product, "GB/s": 2e-6 * b.numel() * 4 / copy}


def main() -> int:
    """Check, measure, print; 1 if a check fails, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes; also runs in Triton's interpreter")
    parser.add_argument("--output", type=Path, help="write the report as JSON")
    options = parser.parse_args()
    begin = time.perf_counter()
    import triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not (options.quick and triton.knobs.runtime.interpret):
        print("There is no GPU here: no kernel was timed. (--quick with TRITON_INTERPRET=1 runs the benchmark itself.)")
        return 2
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, Triton's interpreter: times say nothing"
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "triton": triton.__version__}
    report = Report(name, versions)
    print(f"{name}; {versions}")
    report.ceilings = ceilings(device)
    print("ceilings: " + ", ".join(f"{v:.1f} {k}" for k, v in report.ceilings.items()))
    for entry in ENTRIES:
        size = (100, 4, 64) if device == "cuda" else (20, 1, 16)
        report.checks[entry] = check(entry, *size, device)
        print(f"{entry}: relative error against the loop over ticks {report.checks[entry]:.1e}", flush=True)
        if device == "cuda":  # Triton's interpreter has no products of bfloat16
            report.low_checks[entry] = check_low(entry, *size, device)
            print(f"{entry} in bfloat16: relative RMSE {report.low_checks[entry]:.1e}", flush=True)
    for name in gpu_optimizers.CALLS:
        report.checks[name] = gpu_optimizers.check(name, device)
        print(f"{name}: relative error against PyTorch's operations {report.checks[name]:.1e}", flush=True)
    for step in gpu_optimizers.rows(device, timed, device == "cpu", OPTIMIZER_SECONDS):
        report.steps.append(step)
        print(step.shown(), flush=True)
    for shape in QUICK if options.quick else SHAPES:
        if device == "cpu":
            shape = (1, 20, 1, 16)
        for entry in ENTRIES:
            _compare(report, entry, shape, device, begin)
    if not options.quick or device == "cpu":
        _steps(report, device, begin)
        _loop_over_ticks(report, device, begin)
    if options.output:
        options.output.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
    bound = 1e-3 if device == "cuda" else 1e-4
    wrong = [entry for entry, error in report.checks.items() if not error < bound]
    wrong += [f"{entry} in bfloat16" for entry, error in report.low_checks.items() if not error < LOW_BOUND]
    if wrong:
        print(f"WRONG: {', '.join(wrong)}")
    return int(bool(wrong))


def _steps(report: Report, device: str, begin: float) -> None:
    """Milliseconds a token of ``module.step``."""
    import nldsl

    for shape in gpu_ticks.STEPS if device == "cuda" else ((1, 3, 1, 16),):
        dims: dict[str, Any] = {"heads": shape[2], "d": shape[3]}
        for entry in ENTRIES:
            if device == "cuda" and 60 * MINUTES - (time.perf_counter() - begin) < 20:
                report.rows.append(Row(entry, shape, "step", note="left out: no time"))
                continue
            ours = nldsl.compile("mixers.nl", entry, text=HEADS, backend="triton", **dims).to(device)
            plain = nldsl.compile("mixers.nl", entry, text=HEADS, **dims).to(device)
            exact = inputs_of(ours, (2, 3, *shape[2:]), torch.float32, device, torch.float32)
            report.checks[f"{entry}, step"] = gpu_ticks.step_error(ours, plain, exact, 3)
            low = torch.bfloat16 if device == "cuda" else torch.float32
            ours, plain = ours.to(low), plain.to(low)
            x = inputs_of(ours, shape, low, device, low)
            runs = gpu_ticks.steps(ours, plain, x, device)
            theirs = gpu_ticks.peer_step(entry, x) if device == "cuda" else None
            for what, run in (runs | ({"step, fla": theirs} if theirs else {})).items():
                row = Row(entry, shape, what)
                try:
                    row.forward = timed(run, device, 0.5)
                except Exception as problem:  # noqa: BLE001  a table is worth more than its weakest row
                    row.note = f"{type(problem).__name__}: {str(problem).splitlines()[0][:90]}"
                print(
                    f"  {entry:18} {'x'.join(map(str, shape)):18} {what:18} {row.forward:9.4f} ms {row.note}",
                    flush=True,
                )
                report.rows.append(row)


def _called(module: Any, x: Tensors) -> torch.Tensor:
    found: torch.Tensor = module(**x)
    return found


def _loop_over_ticks(report: Report, device: str, begin: float) -> None:
    """A loop that no algebra makes parallel, by kernels and tick by tick in PyTorch."""
    import nldsl

    shape = gpu_ticks.LOOP if device == "cuda" else (1, 9, 1, 16)
    entry, low = "Mixer_Squashed", torch.bfloat16 if device == "cuda" else torch.float32
    dims: dict[str, Any] = {"heads": shape[2], "d": shape[3]}
    modules = {
        "ticks, kernels": nldsl.compile(
            "ticks.nl", entry, text=gpu_ticks.SQUASHED, backend="triton", require_backend=True, **dims
        ),
        "ticks, torch": nldsl.compile("ticks.nl", entry, text=gpu_ticks.SQUASHED, **dims),
    }
    found = []
    for module in modules.values():
        x = inputs_of(module.to(device), (2, 20, *shape[2:]), torch.float32, device, torch.float32)
        y = module(**x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(x.values()))])
    errors = [((a - b).abs().max() / b.abs().max()).detach() for a, b in zip(*found, strict=True)]
    report.checks["a loop over ticks"] = float(torch.stack(errors).max())
    for what, module in modules.items():
        row = Row(entry, shape, what)
        if device == "cuda" and 60 * MINUTES - (time.perf_counter() - begin) < 20:
            row.note = "left out: no time"
        else:
            x = inputs_of(module.to(low), shape, low, device, low)
            measure(row, partial(_called, module), x, device, 1.0)
        times = f"{row.forward:9.3f} {row.both:9.3f} ms {row.memory:6.2f} GiB"
        print(f"  {entry:18} {'x'.join(map(str, shape)):18} {what:18} {times} {row.note}", flush=True)
        report.rows.append(row)


def _compare(report: Report, entry: str, shape: tuple[int, ...], device: str, begin: float) -> None:
    import nldsl

    def left() -> float:
        if device == "cpu":
            return float("inf")
        return 60 * MINUTES - (time.perf_counter() - begin)

    rows = []
    dims: dict[str, Any] = {"heads": shape[2], "d": shape[3]}
    low = torch.bfloat16  # the module has to be in bfloat16 itself: it takes inputs in its own type
    ours = nldsl.compile("mixers.nl", entry, text=HEADS, backend="triton", require_backend=True, **dims).to(device, low)
    x = inputs_of(ours, shape, low, device, low)
    wide = inputs_of(ours, shape, low, device, torch.float32)
    runs: list[tuple[str, Callable[[Tensors], torch.Tensor], float]] = [("nldsl triton", lambda x: ours(**x), 20)]
    theirs = peer(entry)
    if theirs is not None:
        runs.append(("fla", theirs, 40))
    runs.append(("attention", attention, 10))
    if shape[1] <= 4096 and device == "cuda":
        plain = nldsl.compile("mixers.nl", entry, text=HEADS, **dims).to(device, low)
        runs.append(("torch.compile", torch.compile(lambda x: plain(**x)), 150))
    for what, run, needs in runs:
        row = Row(entry, shape, what)
        if left() < needs:
            row.note = "left out: no time"
        else:
            measure(row, run, wide if what == "fla" else x, device, 1.0)
        rows.append(row)
    base = rows[0].both
    for row in rows:
        ratio = f"{row.both / base:6.2f}x" if base == base and row.both == row.both else "       "
        times = f"{row.forward:9.3f} {row.both:9.3f} ms {ratio} {row.memory:6.2f} GiB"
        print(f"  {entry:18} {'x'.join(map(str, shape)):18} {row.what:14} {times} {row.note}", flush=True)
    report.rows += rows


if __name__ == "__main__":
    raise SystemExit(main())
