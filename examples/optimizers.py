"""Optimizers that are memories: AdamW, Muon and M3 on the same small network.

    python -m examples.optimizers [--quick]

The rates are chosen by a small search with another seed than those reported.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

import nldsl
from examples.digits import load
from examples.picture import Curve, Panel, draw
from examples.training import PROGRAMS, Trained, cost, minutes, options_of, read, spread, table, train, write

MODELS = {
    "AdamW": ("ByAdamW", (1e-3, 3e-3, 1e-2)),
    "Muon": ("ByMuon", (3e-3, 1e-2, 3e-2)),
    "M3, means": ("ByM3", (1e-4, 3e-4, 1e-3)),
    "M3, sums as printed": ("ByPrintedM3", (3e-4, 1e-3, 3e-3)),
}
EVERY = 10  # a curve has one point for so many steps


def run(entry: str, rate: float, seed: int, steps: int) -> tuple[Trained, float]:
    """The training losses, and the accuracy on the test images."""
    training, test = load(seed)
    module = nldsl.compile(PROGRAMS / "digits.nl", entry, rate=rate, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    found = train(module, (training.batch(64, generator) for _ in range(steps)))
    batch = test.everything()
    with torch.no_grad():
        right = module(**batch).argmax(-1) == batch["label"]
    return found, float(right.float().mean())


def smooth(values: list[float]) -> list[float]:
    """Means over EVERY steps."""
    return [statistics.fmean(values[n : n + EVERY]) for n in range(0, len(values) - EVERY + 1, EVERY)]


def main() -> None:
    """Search the rates, train with each optimizer, and write the page."""
    options = options_of(__doc__, steps=300, seeds=3)
    if options.page:
        report(read("optimizers"))
        return
    start = time.perf_counter()
    seeds, steps = (1, 20) if options.quick else (options.seeds, options.steps)
    found: dict[str, Any] = {}
    for name, (entry, rates) in MODELS.items():
        if not name.startswith(options.only):
            continue
        tried = {rate: smooth(run(entry, rate, 100, steps)[0].losses)[-1] for rate in rates}
        rate = min(tried, key=lambda r: tried[r])
        runs = [run(entry, rate, seed, steps) for seed in range(seeds)]
        found[name] = {
            "rate": rate,
            "tried": {str(r): loss for r, loss in tried.items()},
            "losses": [smooth(r.losses) for r, _ in runs],
            "seconds": [r.seconds[-1] for r, _ in runs],
            "accuracy": [accuracy for _, accuracy in runs],
        }
        print(f"{name:24}{rate:8}{found[name]['tried']}{found[name]['accuracy']}", flush=True)
    if not options.quick:
        before = read("optimizers") if options.only else {"found": {}, "minutes": 0.0}
        found, spent = before["found"] | found, before["minutes"] + minutes(start)
        report({"found": found, "steps": steps, "seeds": before.get("seeds", seeds), "minutes": spent})


def report(numbers: dict[str, Any]) -> None:
    """The page and the picture."""
    found, steps, seeds = numbers["found"], numbers["steps"], numbers["seeds"]
    rows, by_steps, by_seconds = [], {}, {}
    for name, r in found.items():
        points = list(zip(*r["losses"], strict=True))
        y, low, high = (list(map(f, points)) for f in (statistics.fmean, min, max))
        x = [EVERY * (n + 1) for n in range(len(y))]
        second = statistics.fmean(r["seconds"]) / steps
        by_steps[name] = Curve(x, y, low, high)
        by_seconds[name] = Curve([second * step for step in x], y, low, high)
        rows.append(
            [
                name,
                f"{r['rate']:g}",
                spread([losses[len(losses) // 3] for losses in r["losses"]], "{:.3f}".format),
                spread([losses[-1] for losses in r["losses"]], "{:.4f}".format),
                spread(r["accuracy"], lambda a: f"{100 * a:.1f}"),
                f"{1e3 * second:.1f}",
            ]
        )
    panels = [
        Panel("loss against steps", "steps", "training loss", by_steps, log_y=True),
        Panel("loss against seconds", "seconds", "training loss", by_seconds, log_y=True),
    ]
    draw("optimizers", panels)
    head = ["optimizer", "rate", f"loss at {steps // 3}", f"loss at {steps}", "% right (test)", "ms a step"]
    tried = [
        [name, ", ".join(f"{float(rate):g}: {loss:.4f}" for rate, loss in r["tried"].items())]
        for name, r in found.items()
    ]
    page = f"""# Optimizers

`python -m examples.optimizers` ([program](../../examples/programs/digits.nl), [script](../../examples/optimizers.py)).
Three layers of width 64 on the digits of scikit-learn, {steps} steps of 64 images, {seeds} seeds.
{cost(numbers["minutes"])}

The mean of the seeds, lowest and highest; losses are means over {EVERY} training batches.

{table(head, rows)}

![loss against steps and seconds](optimizers.svg)

The last loss at each rate that was tried, with a seed of its own:

{table(["optimizer", "rate: loss"], tried)}

{NOTES}"""
    write("optimizers", page, numbers)


NOTES = """## Reading it

- Muon is first both in steps and in seconds on this network; AdamW has the cheapest step.
- M3 with means in the place of sums ends below AdamW's training loss in the mean, within its spread, and its test
  accuracy is lower. A step of either M3 orthogonalizes twice at the slow ticks and divides besides, and costs as
  much as Muon's or more. The paper (figure 11) has M3 ahead of Muon for vision transformers on ImageNet, at a scale
  that this cannot reach.
- M3 as printed divides by the root of a sum that only grows: its steps shrink like those of AdaGrad, and it is the
  slowest here. After Newton-Schulz the division makes rows and columns unequal again, so the update is not
  orthogonal.
- Times are those of a machine that other work shared.
"""

if __name__ == "__main__":
    main()
