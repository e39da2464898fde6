"""`nldsl emit`: print a program at any stage of the compiler."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nldsl.diagnostics.suggest import did_you_mean

from .output import note
from .settings import OPTION_HELP, parse_settings

__all__ = ["command"]


@click.command("emit")
@click.argument("file", metavar="FILE")
@click.option("--stage", default="simplified", show_default=True, help="Which stage; `--stage list` names them.")
@click.option("--entry", metavar="NAME", help="The model, block or memory to compile; by default the last one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help=OPTION_HELP)
@click.option("-o", "--output", metavar="PATH", help="Where to write; by default to the terminal.")
def command(file: str, stage: str, entry: str | None, settings: tuple[str, ...], output: str | None) -> int:
    """Print what a program is at a stage of the compiler: its syntax, its IR, its loops, or the code of a backend."""
    from nldsl.explain.stages import ALIASES, STAGES, stage_text

    if stage == "list":
        click.echo("\n".join(STAGES))
        return 0
    stage = ALIASES.get(stage, stage)
    if stage not in STAGES:
        hint = "".join(f"; {text}" for text in did_you_mean(stage, STAGES))
        raise click.UsageError(f"there is no stage {stage!r}{hint}; the stages are {', '.join(STAGES)}")
    text, remark = stage_text(stage, file, entry, parse_settings(settings))
    if remark:
        note(remark)
    if output is None:
        sys.stdout.write(text)
        return 0
    Path(output).write_text(text, encoding="utf-8", newline="\n")
    note(f"wrote {output}")
    return 0
