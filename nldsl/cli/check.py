"""`nldsl check`: report the mistakes in programs."""

from __future__ import annotations

import json

import click

from nldsl.diagnostics.diagnostic import Diagnostic, Severity

from .output import print_diagnostics

__all__ = ["command"]


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on stdout.")
@click.option("-W", "--warnings-as-errors", is_flag=True, help="Fail on warnings too.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing about programs without mistakes.")
def command(files: tuple[str, ...], as_json: bool, warnings_as_errors: bool, quiet: bool) -> int:
    """Report the mistakes in programs, without compiling them.

    Exits with 0 if there is none, with 1 otherwise.
    """
    from nldsl.api import check_file

    found: list[Diagnostic] = []
    for path in files:
        diagnostics = check_file(path)
        found += diagnostics
        if not quiet and not as_json and not diagnostics:
            click.echo(f"{click.format_filename(path)}: no mistakes found")
    # A file that several others import is checked with each of them, and its mistakes are told once.
    found = list(dict.fromkeys(found))
    if as_json:
        click.echo(json.dumps([d.to_json() for d in found], indent=2))
    else:
        print_diagnostics(found)
    fatal = {Severity.ERROR, Severity.WARNING} if warnings_as_errors else {Severity.ERROR}
    return int(any(d.severity in fatal for d in found))
