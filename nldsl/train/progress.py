"""A line of progress on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["progress_bar"]

Report = Callable[[dict[str, Any]], None]


@contextmanager
def progress_bar(steps: int, minutes: float, *, hidden: bool = False) -> Iterator[Report]:
    """Yield what is to be told each record of the log. The bar shows steps, or minutes if only they are limited."""
    if hidden or not sys.stderr.isatty():
        yield lambda record: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[shown]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=steps or minutes * 60 or None, shown="")
        state = {"loss": "", "bits": ""}

        def report(record: dict[str, Any]) -> None:
            if record["kind"] == "evaluation":
                state["bits"] = f"held-out {record['bits_per_token']:.3f} bits"
            if record["kind"] == "step":
                state["loss"] = (
                    f"step {record['step']}  loss {record['loss']:.3f}  {record['tokens_per_second']:.0f} tok/s"
                )
            done = record["step"] if steps else record.get("training_seconds", 0.0)
            bar.update(task, completed=done, shown=f"{state['loss']}  {state['bits']}")

        yield report
