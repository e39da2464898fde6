"""`nldsl verify`: compare the compiled program with its definition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from .backend_option import require_backend
from .output import note, progress
from .settings import OPTION_HELP, parse_settings

if TYPE_CHECKING:
    from nldsl.verify import Verdict

__all__ = ["command"]


@click.command("verify")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--entry", metavar="NAME", help="The model, block or memory to verify; by default the last one.")
@click.option("--all", "every", is_flag=True, help="Verify every memory, block and model of the files.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help=OPTION_HELP)
@click.option("--backend", "backends", multiple=True, metavar="NAME", help="By default all of them.")
@require_backend
@click.option("--ticks", type=click.IntRange(min=2), help="Tokens of a sequence; by default from the clocks.")
@click.option("--seed", default=0, show_default=True, help="Of the random inputs and parameters.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    files: tuple[str, ...],
    entry: str | None,
    every: bool,
    settings: tuple[str, ...],
    backends: tuple[str, ...],
    require_backend: bool,
    ticks: int | None,
    seed: int,
    as_json: bool,
) -> int:
    """Compare what programs compile to with the reference interpreter, on random inputs and small sizes.

    Values and gradients; a sequence cut into calls; one token at a time; a batch row by row; rates of zero; passes left
    out. Exits with 1 if anything differs, and names the first value that does.
    """
    from nldsl.verify import verify_file
    from nldsl.verify.table import text, to_json

    if entry and every:
        raise click.UsageError("--entry and --all exclude each other")
    dims = parse_settings(settings)
    _known(backends)
    jobs: list[tuple[str, str | None, dict[str, Any]]] = [(file, entry, dims) for file in files]
    if every:
        jobs = [(file, name, own) for file in files for name, own in _entries(file, dims)]
        if unknown := dims.keys() - {n for _, _, own in jobs for n in own}:
            raise click.UsageError(f"no memory, block or model has a parameter {', '.join(sorted(unknown))}")
    verdicts: list[Verdict] = []
    with progress("verifying", total=len(jobs)) as step:
        for file, name, own in jobs:
            verdicts.append(verify_file(file, name, own, backends, ticks or 0, seed, required=require_backend))
            step(1)
            if not as_json:
                click.echo(("\n" if len(verdicts) > 1 else "") + text(verdicts[-1]), nl=False)
    if as_json:
        click.echo(json.dumps([to_json(v) for v in verdicts], indent=2, ensure_ascii=False))
    return 0 if all(v.ok for v in verdicts) else 1


def _known(backends: tuple[str, ...]) -> None:
    from nldsl.backends.registry import BACKENDS

    for name in backends:
        if name not in BACKENDS:
            raise click.UsageError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")


def _entries(file: str, given: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The units of a file that can stand alone, and the arguments that are theirs; what is left out is said."""
    from nldsl.diagnostics.diagnostic import DiagnosticBag
    from nldsl.driver import Options, names_of
    from nldsl.frontend import ast
    from nldsl.standalone import values_needed

    bag = DiagnosticBag()
    names = names_of(file, Options(), bag)
    bag.raise_if_errors()
    assert names is not None
    found = []
    for unit in names.file.declarations:
        if not isinstance(unit, ast.Unit):
            continue
        needed = values_needed(unit, given)
        if needed:
            note(f"{file}: {unit.name} is left out: its {', '.join(p.name for p in needed)} has no default")
        else:
            known = {p.name for p in unit.params}
            found.append((unit.name, {n: v for n, v in given.items() if n in known}))
    return found
