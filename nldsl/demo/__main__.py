"""`python -m nldsl.demo`: the whole path once. Ctrl-C saves; the same command goes on."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import click

from nldsl.diagnostics import DiagnosticError
from nldsl.diagnostics.render import render

__all__ = ["main"]


@click.command("demo")
@click.option("--backend", default="auto", show_default=True, help="Which backend trains.")
@click.option("--minutes", default=5.0, show_default=True, help="Minutes of training, both runs together.")
@click.option("--threads", default=2, show_default=True, help="CPU threads.")
@click.option("--seed", default=0, show_default=True, help="Of the parameters and of the order of the data.")
@click.option("--heldout-bytes", default=1 << 16, show_default=True, help="Bytes to evaluate on.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out") / "demo", show_default=True)
@click.option("--fresh", is_flag=True, help="Forget an earlier run of the demo.")
def command(backend: str, minutes: float, threads: int, seed: int, heldout_bytes: int, out: Path, fresh: bool) -> int:
    """Check, explain, draw, verify, train and sample HOPE on the sources of Python's standard library."""
    from nldsl.demo.run import run_demo
    from nldsl.demo.settings import DemoSettings

    if not minutes > 0 or heldout_bytes < 1000:
        raise click.UsageError("--minutes must be more than 0 and --heldout-bytes at least 1000")
    settings = DemoSettings(
        out=out, backend=backend, minutes=minutes, threads=threads, seed=seed, heldout_bytes=heldout_bytes
    )
    if fresh:
        for name in ("main", "frozen"):
            shutil.rmtree(out / name, ignore_errors=True)
    found, page = run_demo(settings, lambda line: click.echo(line, err=True))
    (out / "report.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (out / "report.md").write_text(page, encoding="utf-8")
    click.echo(page)
    click.echo(f"report: {out / 'report.md'}, {out / 'report.json'}")
    return 0 if all(i["ok"] for i in found["inspections"]) and found["beats_order2"] else 1


def main() -> int:
    """Run the demo and return its exit code."""
    from nldsl.demo.training import InterruptedDemoError

    try:
        result = command.main(prog_name="python -m nldsl.demo", standalone_mode=False)
    except click.exceptions.Exit as error:
        return int(error.exit_code)
    except click.ClickException as error:
        error.show()
        return 2
    except DiagnosticError as error:
        click.echo(render(error.diagnostics), err=True)
        return 1
    except InterruptedDemoError as error:
        click.echo("interrupted; what was learned is saved, and the same command goes on", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    return int(result or 0)


if __name__ == "__main__":
    sys.exit(main())
