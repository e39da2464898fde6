"""`nldsl bench`: how fast a program runs on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from .settings import OPTION_HELP, parse_settings

__all__ = ["command"]


@click.command("bench")
@click.argument("file")
@click.option("--entry", metavar="NAME", help="The model, block or memory; by default the last one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help=OPTION_HELP)
@click.option("--batch", default=4, show_default=True, type=click.IntRange(min=1), help="Sequences.")
@click.option("--ticks", default=512, show_default=True, type=click.IntRange(min=1), help="Tokens of each.")
@click.option("--repetitions", default=5, show_default=True, type=click.IntRange(min=1), help="Runs of each kind.")
@click.option("--threads", default=0, help="Of PyTorch; 0 leaves it as it is.")
@click.option("--loops", is_flag=True, help="Also time the loops over tokens that the parallel forms replace.")
@click.option("--json", "as_json", is_flag=True, help="Print the times as JSON.")
def command(
    file: str,
    entry: str | None,
    settings: tuple[str, ...],
    batch: int,
    ticks: int,
    repetitions: int,
    threads: int,
    loops: bool,
    as_json: bool,
) -> int:
    """Time the compiled program: forward, forward and backward, one decoded token.

    Random inputs, float32, the median of the repetitions. Comparisons with other packages are in `bench/` of the
    repository (`make bench`).
    """
    from nldsl.extras import require

    require("torch", extra="torch")
    import torch

    import nldsl
    from nldsl.bench.measure import measure

    if threads:
        torch.set_num_threads(threads)
    dims = parse_settings(settings)
    forms = {"parallel": frozenset[str]()} | ({"loops": frozenset({"chunk"})} if loops else {})
    found = {}
    for form, disabled in forms.items():
        module = nldsl.compile(file, entry, disabled=disabled, **dims)
        found[form] = measure(module, batch, ticks, repetitions)
        if as_json:
            continue
        for timing in found[form]:
            rate = f"{timing.tokens_per_second:,.0f} tokens/s"
            click.echo(f"{form:10}{timing.name:18}{timing.milliseconds:10.2f} ms  {rate:>20}")
    if as_json:
        click.echo(json.dumps({form: [asdict(t) for t in timings] for form, timings in found.items()}, indent=2))
    return 0
