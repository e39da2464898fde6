"""Steps of optimizers on 10 million parameters in 60 tensors, beside PyTorch's and those of other packages.

    python -m bench.optimizers [--quick] [--only adamw] [--json out/bench_optimizers.json]

Ours and the peers of a row are timed in turn, so that a row means the same moment of the machine; the ratio is peer /
ours of the medians, and beside it that of the best rounds. ``sgemm`` above the table is the rate of one 1024 x 1024
product in float32. The rate of the matrix optimizers counts the operations of five Newton-Schulz steps on the smaller
side of each matrix.

SOAP is not here: the standard library's orthonormal basis is unrolled over the columns, which is for small matrices.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench.timing import CLOCKS, Clock, Times, in_turn, matrix_rate, memory_rate
from nldsl.api import load_program
from nldsl.runtime.optimizer import MemoryOptimizer

Shapes = list[tuple[int, ...]]
Step = Callable[[], Any]

RULE = """
{imports}
model Rule() {{
  level outer = every 1 step
  input x: [2]
  param w: [2] = normal(1.0)
  minimize sum((w - x)^2) at outer with {call}
}}
"""


def shapes(layers: int, width: int) -> Shapes:
    """The parameters of a small transformer: 10 tensors per layer, two tables, eight vectors."""
    layer: Shapes = [(width, width)] * 4 + [(4 * width, width), (width, 4 * width)] + [(width,)] * 4
    return layer * layers + [(2048, width)] * 2 + [(width,)] * 8


def parameters(chosen: Shapes) -> list[torch.nn.Parameter]:
    """Random parameters with random gradients, the same for everybody."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape in chosen:
        found.append(torch.nn.Parameter(0.02 * torch.randn(shape, generator=generator)))
        found[-1].grad = torch.randn(shape, generator=generator)
    return found


def newton_schulz_operations(chosen: Shapes, steps: int = 5) -> int:
    """Multiplications and additions of ``steps`` steps: 4 m m n + 2 m^3 each for an m x n matrix with m <= n."""
    sizes = [sorted(s) for s in chosen if len(s) == 2]
    return steps * sum(4 * m * m * n + 2 * m**3 for m, n in sizes)


@dataclass(frozen=True)
class Case:
    """``operations``: of Newton-Schulz for one step, 0 for elementwise optimizers."""

    name: str
    call: str
    file: str
    peers: tuple[tuple[str, Callable[[list[torch.nn.Parameter]], Step]], ...]
    operations: int = 0


@dataclass(frozen=True)
class Row:
    """Milliseconds per step; ``gflops`` at the best."""

    optimizer: str
    peer: str
    ours: Times
    theirs: Times
    gflops: float

    @property
    def ratio(self) -> float:
        return self.theirs.median / self.ours.median

    @property
    def best_ratio(self) -> float:
        return self.theirs.best / self.ours.best

    def shown(self) -> str:
        """A line of the table."""
        times = "".join(f"{t:9.1f}" for x in (self.ours, self.theirs) for t in (x.median, x.best))
        work = f"{self.gflops:10.0f}" if self.gflops else ""
        return f"{self.optimizer:10}{self.peer:20}{times}{self.ratio:8.2f}{self.best_ratio:8.2f}{work}"


HEAD = f"{'optimizer':10}{'peer':20}{'ours':>9}{'best':>9}{'peer':>9}{'best':>9}{'ratio':>8}{'best':>8}{'GFLOP/s':>10}"


def ours(file: str, call: str, params: list[torch.nn.Parameter]) -> Step:
    """A step of an optimizer of the standard library."""
    name = call.partition("(")[0]
    text = RULE.format(imports=f'from "{file}" import {name}', call=call)
    rule = load_program("rule", text=text).levels[0].optimizer
    return MemoryOptimizer(params, rule).step


def _torch(make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]) -> Callable[[Any], Step]:
    return lambda params: make(params).step


def _package(name: str, **options: Any) -> Callable[[Any], Step]:
    def build(params: list[torch.nn.Parameter]) -> Step:
        import pytorch_optimizer

        step: Step = getattr(pytorch_optimizer, name)(params, **options).step
        return step

    return build


def _muon(params: list[torch.nn.Parameter]) -> Step:
    """torch.optim.Muon takes matrices only; the rest gets fused AdamW."""
    matrices, rest = [p for p in params if p.dim() == 2], [p for p in params if p.dim() != 2]
    muon, adam = torch.optim.Muon(matrices, lr=1e-3), torch.optim.AdamW(rest, lr=1e-3, fused=True)

    def step() -> None:
        muon.step()  # type: ignore[no-untyped-call]
        adam.step()

    return step


def _muon_float(params: list[torch.nn.Parameter]) -> Step:
    """Muon written by hand for a CPU: one matrix at a time, Newton-Schulz in float32; fused AdamW for the rest."""
    matrices, rest = [p for p in params if p.dim() == 2], [p for p in params if p.dim() != 2]
    adam = torch.optim.AdamW(rest, lr=1e-3, fused=True)
    momenta = [torch.zeros_like(p) for p in matrices]

    @torch.no_grad()
    def step() -> None:
        for p, m in zip(matrices, momenta, strict=True):
            assert p.grad is not None
            m.lerp_(p.grad, 0.05)
            x = torch.lerp(p.grad, m, 0.95)
            tall = x.shape[0] > x.shape[1]
            x = x.mT if tall else x
            x = x / x.norm().clamp_min(1e-7)
            for _ in range(5):
                a = x @ x.mT
                x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
            p.mul_(1 - 1e-4).add_(x.mT if tall else x, alpha=-1e-3)
        adam.step()

    return step


def _nested_m3(params: list[torch.nn.Parameter]) -> Step:
    """nested-learning's M3 on matrices and fused AdamW on the rest."""
    from nested_learning.optim.m3 import M3  # type: ignore[import-not-found]

    matrices, rest = [p for p in params if p.dim() == 2], [p for p in params if p.dim() != 2]
    m3, adam = M3(matrices), torch.optim.AdamW(rest, lr=1e-3, fused=True)

    def step() -> None:
        m3.step()
        adam.step()

    return step


def cases(chosen: Shapes) -> Iterator[Case]:
    """Each optimizer with what it is measured against."""
    schulz = newton_schulz_operations(chosen)
    yield Case(
        "AdamW",
        "AdamW(rate = 1e-3)",
        "optimizers/adam",
        (
            ("torch fused", _torch(lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True))),
            ("torch foreach", _torch(lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True))),
        ),
    )
    yield Case("Lion", "Lion(rate = 1e-4)", "optimizers/sign", (("pytorch_optimizer", _package("Lion", lr=1e-4)),))
    yield Case(
        "Momentum",
        "Momentum(rate = 1e-3)",
        "optimizers/momentum",
        (("torch fused", _torch(lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True))),),
    )
    yield Case(
        "Muon",
        "Muon(rate = 1e-3)",
        "optimizers/muon",
        (("torch (bfloat16)", _muon), ("by hand, float32", _muon_float)),
        schulz,
    )
    yield Case("M3", "M3(rate = 1e-3)", "optimizers/m3", (("nested-learning", _nested_m3),), schulz)


def main() -> int:
    """Run the table and write it; Ctrl-C writes what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one layer of width 128")
    parser.add_argument("--only", default="", help="optimizers whose name contains this")
    parser.add_argument("--json", default="out/bench_optimizers.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="wall time, or the process's own")
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = shapes(1, 128) if options.quick else shapes(5, 384)
    entries = sum(torch.Size(s).numel() for s in chosen)
    clock = CLOCKS[options.clock]
    rates = {"sgemm": matrix_rate(clock=clock), "memory": memory_rate(clock=clock)}
    print(
        f"{entries / 1e6:.1f} M parameters in {len(chosen)} tensors, float32, "
        f"{options.threads} threads, {options.clock} clock"
    )
    print(f"sgemm {rates['sgemm']:.0f} GFLOP/s, in-place sum {rates['memory']:.0f} GB/s\n")
    print(HEAD)
    rows: list[Row] = []
    try:
        for case in cases(chosen):
            if options.only.lower() in case.name.lower():
                for row in compare(case, chosen, options.repetitions, clock):
                    rows.append(row)
                    print(row.shown(), flush=True)
    except KeyboardInterrupt:
        print("interrupted: what was measured is written")
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "rates": rates,
        "entries": entries,
        "rows": [asdict(r) | {"ratio": r.ratio, "best_ratio": r.best_ratio} for r in rows],
    }
    path.write_text(json.dumps(found, indent=1))
    print(f"\nwrote {path}")
    return 0


def compare(case: Case, chosen: Shapes, repetitions: int, clock: Clock) -> Iterator[Row]:
    """Ours against each peer that is installed."""
    for title, make in case.peers:
        try:
            theirs = make(parameters(chosen))
        except ImportError as problem:
            print(f"{case.name:12}{title:24} skipped: {problem}")
            continue
        mine = ours(case.file, case.call, parameters(chosen))
        a, b = in_turn([mine, theirs], repetitions, 30, clock)
        yield Row(case.name, title, a, b, case.operations / a.best / 1e6)


if __name__ == "__main__":
    raise SystemExit(main())
