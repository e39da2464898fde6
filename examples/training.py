"""What the experiments share: a training loop over a compiled program, and how results are written down."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nldsl.runtime.module import Module
from nldsl.runtime.optimizer import LevelOptimizers

OUT = Path(__file__).parents[1] / "docs" / "experiments"
PROGRAMS = Path(__file__).parent / "programs"
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """The losses of all steps and the seconds that they took, compilation not included."""

    losses: list[float]
    seconds: list[float]
    optimizers: LevelOptimizers


def train(module: Module, batches: Iterable[Batch], optimizers: LevelOptimizers | None = None) -> Trained:
    """One optimizer step per batch, with the optimizers that the program names, or those of an earlier call."""
    optimizers, losses, seconds = optimizers or LevelOptimizers(module), [], []
    start = time.perf_counter()
    for batch in batches:
        optimizers.zero_grad()
        loss, _ = module.loss(**batch)
        loss.backward()
        optimizers.step()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - start)
    return Trained(losses, seconds, optimizers)


def spread(values: Sequence[float], show: Callable[[float], str] = lambda x: f"{100 * x:.0f}") -> str:
    """The mean of the seeds, and the lowest and the highest if they differ."""
    mean, low, high = show(statistics.fmean(values)), show(min(values)), show(max(values))
    return mean if low == high else f"{mean} ({low} to {high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(name: str, page: str, numbers: object) -> None:
    """The page, and the numbers that it was made from."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.md").write_text(page.rstrip() + "\n", encoding="utf-8")
    (OUT / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {OUT / name}.md")


def read(name: str) -> Any:
    """The numbers of the last run, to write its page again."""
    return json.loads((OUT / f"{name}.json").read_text(encoding="utf-8"))


def options_of(description: str | None, **defaults: int) -> argparse.Namespace:
    """The options of an experiment: the counts given here, ``--quick`` and ``--page``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps, nothing written")
    parser.add_argument("--page", action="store_true", help="only write the page again, of the last numbers")
    parser.add_argument("--only", default="", help="run what begins with this again, and keep the other numbers")
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    torch.set_num_threads(1)
    return parser.parse_args()


def minutes(start: float) -> float:
    """Since the start."""
    return (time.perf_counter() - start) / 60


def cost(spent: float) -> str:
    """The sentence about what a run cost."""
    return f"It took {spent:.1f} minutes with one thread of a shared machine (PyTorch {torch.__version__})."
