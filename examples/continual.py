"""Class-incremental digits: does a continuum of levels forget less than one level?

    python -m examples.continual [--quick]

Five tasks come one after the other, two new digits in each, and nothing of a task comes back. At the end the network is
asked about all ten digits. Four feed-forward blocks learn at one level (every step), or at two, three, four levels.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

import nldsl
from examples.digits import Digits, load
from examples.picture import Curve, Panel, draw
from examples.training import PROGRAMS, cost, options_of, read, spread, table, train, write
from nldsl.runtime.module import Module

TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
FACTORS = (4, 6)


def accuracy(module: Module, digits: Digits) -> float:
    """The share of right labels, all ten classes being possible."""
    batch = digits.everything()
    with torch.no_grad():
        logits = module(**batch)
    return float((logits.argmax(-1) == batch["label"]).float().mean())


def run(levels: int, factor: int, seed: int, steps: int) -> list[list[float]]:
    """The accuracies on the tests of all tasks so far, after each task."""
    training, test = load(seed)
    module = nldsl.compile(PROGRAMS / "digits.nl", "Continual", levels=levels, factor=factor, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    optimizers, found = None, []
    for number, classes in enumerate(TASKS):
        own = training.of(classes)
        optimizers = train(module, (own.batch(32, generator) for _ in range(steps)), optimizers).optimizers
        found.append([accuracy(module, test.of(seen)) for seen in TASKS[: number + 1]])
    return found


def forgotten(after: list[list[float]]) -> float:
    """The mean over the first four tasks of what was lost since they were learned."""
    return statistics.fmean(after[n][n] - after[-1][n] for n in range(len(after) - 1))


def main() -> None:
    """Run all numbers of levels, and write the page."""
    options = options_of(__doc__, steps=64, seeds=5)
    if options.page:
        report(read("continual"))
        return
    start = time.perf_counter()
    seeds, steps = (1, 4) if options.quick else (options.seeds, options.steps)
    found: dict[str, list[list[list[float]]]] = {}
    for factor in FACTORS:
        for levels in (1, 2, 3, 4):
            if levels == 1 and factor != FACTORS[0]:
                continue
            periods = [factor**n for n in reversed(range(levels))]
            name = "every " + ", ".join(map(str, periods))
            found[name] = [run(levels, factor, seed, steps) for seed in range(seeds)]
            print(f"{name:24}{[round(statistics.fmean(r[-1]), 3) for r in found[name]]}", flush=True)
    if not options.quick:
        report({"found": found, "steps": steps, "seeds": seeds, "cost": cost(start)})


def report(numbers: dict[str, Any]) -> None:
    """The page and the picture."""
    found, steps, seeds = numbers["found"], numbers["steps"], numbers["seeds"]
    rows = []
    for name, runs in found.items():
        final = [statistics.fmean(after[-1]) for after in runs]
        learned = [statistics.fmean(after[n][n] for n in range(len(TASKS))) for after in runs]
        rows.append([name, spread(final), spread(learned), spread([forgotten(after) for after in runs])])
    curves = {}
    for name, runs in found.items():
        means = [[100 * statistics.fmean(after[n]) for after in runs] for n in range(len(TASKS))]
        x = [n + 1 for n in range(len(TASKS))]
        curves[name] = Curve(x, list(map(statistics.fmean, means)), list(map(min, means)), list(map(max, means)))
    draw("continual", [Panel("all tasks so far", "tasks learned", "% right, mean over tasks", curves)])
    page = f"""# Class-incremental digits

`python -m examples.continual` ([program](../../examples/programs/digits.nl), [script](../../examples/continual.py)).
Five tasks of two digits each, {steps} steps of 32 images for each task, four feed-forward blocks, AdamW with rate 3e-3,
{seeds} seeds. {numbers["cost"]}

Percent (the mean of the seeds, lowest and highest): of all ten digits at the end, of each task right after it was
learned, and the difference for the first four tasks.

{table(["periods in steps", "at the end", "when learned", "forgotten"], rows)}

![accuracy over the tasks](continual.svg)

{NOTES}"""
    write("continual", page, numbers)


NOTES = """## Reading it
"""

if __name__ == "__main__":
    main()
