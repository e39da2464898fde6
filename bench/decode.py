"""One token: ``module.step`` without gradients by the MLIR backend, and as the torch backend does it, eagerly.

    python -m bench.decode [--only delta] [--batch 1,8] [--rounds 15] [--json out/bench_decode.json]

Every memory of the standard library whose sizes may be 64, and its models with their own sizes. Microseconds of one
thread's processor time (the best of the rounds, both in turn), float32; ``ratio`` = torch / ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.frontend import ast
from nldsl.frontend.parse import parse
from nldsl.runtime.build import build_module
from nldsl.runtime.module import Module
from nldsl.source import SourceFile
from nldsl.standalone import Request, load

Call = Callable[[], Any]
WIDTH = 64
SLICE = 0.004  # seconds of one run of calls


@dataclass(frozen=True)
class Row:
    """Microseconds of a token. ``error``: of the outputs after eight ticks, relative to the largest entry."""

    program: str
    batch: int
    torch: float
    ours: float
    error: float

    @property
    def ratio(self) -> float:
        """How many times ours is faster."""
        return self.torch / self.ours

    def shown(self) -> str:
        """A row of the table."""
        return f"| {self.program} | {self.batch} | {self.torch:.0f} | {self.ours:.1f} | {self.ratio:.1f} |"


HEAD = "| program | sequences | torch backend, eager (us) | native (us) | ratio |\n| --- | --- | --- | --- | --- |"


def programs(only: str) -> Iterator[tuple[str, Request]]:
    """The memories and models of the standard library whose name contains a text."""
    root = Path(str(files("nldsl.stdlib")))
    for folder, keyword in (("memories", "memory"), ("models", "model")):
        for path in sorted((root / folder).glob("*.nl")):
            file = parse(SourceFile(path.name, path.read_text(encoding="utf-8")), DiagnosticBag())
            assert file is not None
            for unit in file.declarations:
                if isinstance(unit, ast.Unit) and unit.keyword == keyword and only.lower() in unit.name.lower():
                    yield unit.name, Request(path, unit.name, sizes=(WIDTH,))


def token(module: Module, batch: int) -> dict[str, torch.Tensor]:
    """Inputs of one tick: unit vectors, rates below a fifth."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for declared in module.streams.now:
        shape = (batch, *(int(str(n)) for n in declared.type.shape))
        if declared.type.kind == "int":
            limit = module.streams.limits.get(declared.name, 2)
            found[declared.name] = torch.randint(0, limit, shape, generator=generator)
        else:
            x = torch.randn(shape, generator=generator)
            found[declared.name] = x / x.norm(dim=-1, keepdim=True) if declared.type.shape else 0.2 * x.sigmoid()
    return found


def flat(outputs: Any) -> torch.Tensor:
    """All outputs as one vector."""
    given = outputs.values() if isinstance(outputs, dict) else [outputs]
    return torch.cat([y.flatten() for y in given])


def run_of(module: Module, inputs: dict[str, torch.Tensor], batch: int) -> tuple[Call, torch.Tensor]:
    """A call of ``step``, each going on where the last one ended, and the outputs of the first eight ticks."""
    state, given, outputs = module.init_state(batch), tuple(inputs.values()), []
    for _ in range(8):
        y, state = module.step(*given, state)
        outputs.append(flat(y))

    def run() -> None:
        nonlocal state
        _, state = module.step(*given, state)

    return run, torch.cat(outputs)


def best_of(runs: list[Call], rounds: int) -> list[float]:
    """Microseconds of a call of each, taken in turn."""
    numbers, found = [], [float("inf")] * len(runs)
    for run in runs:
        start = time.process_time()
        for _ in range(5):
            run()
        numbers.append(max(3, int(SLICE / max((time.process_time() - start) / 5, 1e-7))))
    for _ in range(rounds):
        for n, (run, number) in enumerate(zip(runs, numbers, strict=True)):
            start = time.process_time()
            for _ in itertools.repeat(None, number):
                run()
            found[n] = min(found[n], 1e6 * (time.process_time() - start) / number)
    return found


@torch.no_grad()
def rows_of(name: str, request: Request, batches: list[int], rounds: int) -> Iterator[Row]:
    """One program for each size of the batch."""
    program = load(request).program
    modules = [build_module(program, backend) for backend in ("torch", "mlir")]
    modules[1].load_state_dict(modules[0].state_dict())
    for batch in batches:
        inputs = token(modules[0], batch)
        (torch_run, expected), (own_run, found) = (run_of(m, inputs, batch) for m in modules)
        error = float((found - expected).abs().max() / expected.abs().max())
        theirs, ours = best_of([torch_run, own_run], rounds)
        yield Row(name, batch, theirs, ours, error)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="programs whose name contains this")
    parser.add_argument("--batch", default="1", help="numbers of sequences")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", default="out/bench_decode.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    print(HEAD, flush=True)
    for name, request in programs(options.only):
        for row in rows_of(name, request, [int(n) for n in options.batch.split(",")], options.rounds):
            rows.append(row)
            print(row.shown() + (f" error {row.error:.1e}" if row.error > 1e-4 else ""), flush=True)
    target = Path(options.json)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
