"""`nldsl explain`: what a program does once its equations are worked out, or what an error code means."""

from __future__ import annotations

import re
from typing import Any

import click

from nldsl.diagnostics.catalogue import Entry, all_codes, lookup
from nldsl.diagnostics.suggest import did_you_mean

from .settings import OPTION_HELP, parse_settings

__all__ = ["command"]

_CODE = re.compile(r"NL\d{4}", re.IGNORECASE)


@click.command("explain")
@click.argument("target", metavar="FILE|CODE")
@click.argument("name", required=False)
@click.option("--fusion", is_flag=True, help="Show loops, contractions and bytes before and after each fusion.")
@click.option("--memory", is_flag=True, help="Show the peak memory of training; needs PyTorch.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help=OPTION_HELP)
@click.option("--latex", is_flag=True, help="Write the mathematics as LaTeX.")
def command(target: str, name: str | None, fusion: bool, memory: bool, settings: tuple[str, ...], latex: bool) -> int:
    """Explain a program, or a code such as NL0301.

    For a program: the updates that follow from its equations. NAME picks one memory, block or model of the file.
    """
    if _CODE.fullmatch(target):
        _explain_code(target.upper())
        return 0
    from nldsl.explain import explain_file, fusion_file

    if fusion:
        click.echo(fusion_file(target, name=name, dims=parse_settings(settings)))
        return 0
    if memory:
        click.echo(_memory_page(target, name, parse_settings(settings)))
        return 0
    click.echo(explain_file(target, name=name, latex=latex, dims=parse_settings(settings)))
    return 0


def _memory_page(target: str, name: str | None, dims: dict[str, Any]) -> str:
    from nldsl.extras import require

    require("torch", extra="torch", why="to run the emitted code without data")
    import nldsl
    from nldsl.bench.memory import peak_formula, predicted_peak

    module = nldsl.compile(target, name, **dims)
    lines = ["peak memory of training in float32 (forward and backward, without parameters and inputs)"]
    lines.append(f"  {peak_formula(module)}")
    module = module.to("meta")
    for batch, ticks in ((1, 2048), (8, 2048), (1, 16384)):
        lines.append(f"  {predicted_peak(module, batch, ticks) / 2**20:12,.1f} MiB for {batch} x {ticks:,} tokens")
    return "\n".join(lines)


def _explain_code(code: str) -> None:
    entry = lookup(code)
    if entry is None:
        hint = "".join(f"; {text}" for text in did_you_mean(code, all_codes()))
        raise click.ClickException(f"there is no code {code}{hint}")
    click.echo(page(entry))


def page(entry: Entry) -> str:
    """Lay out a page of the catalogue for a terminal."""
    blocks = (("Wrong", entry.bad), ("Right", entry.fixed))
    parts = [f"{entry.code}: {entry.title}", f"({entry.group})", "", entry.explanation]
    for title, text in blocks:
        parts += ["", f"{title}:", "", *(f"    {line}".rstrip() for line in text.rstrip("\n").split("\n"))]
    return "\n".join(parts)
