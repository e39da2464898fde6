"""`nldsl train`: train a model on bytes or token files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .backend_option import require_backend
from .output import note
from .settings import OPTION_HELP, parse_settings

if TYPE_CHECKING:
    from nldsl.train.loop import RunResult, Trainer
    from nldsl.train.session import RunSettings

__all__ = ["command", "run_settings"]

PATH = click.Path(path_type=Path)


@click.command("train")
@click.argument("spec", type=PATH)
@click.argument("more", nargs=-1, type=PATH, metavar="")
@click.option("--data", multiple=True, type=PATH, metavar="PATH...", help="Files, or directories searched recursively.")
@click.option(
    "--eval-data", multiple=True, type=PATH, metavar="PATH", help="Evaluate on these instead of a held-out part."
)
@click.option(
    "--holdout", default=0.05, show_default=True, help="Fraction at the end of the data held out for evaluation."
)
@click.option("--suffix", "suffixes", multiple=True, help="Only files with this suffix, inside directories.")
@click.option("--exclude", multiple=True, metavar="NAME", help="No files or directories of this name.")
@click.option("--token-dtype", default="", help="Type of the integers in .bin files: uint16, int32, ...")
@click.option("--bytes", "as_bytes", is_flag=True, help="Read .npy and .bin files as bytes too.")
@click.option("--out", type=PATH, help="Directory of the run.  [default: out/NAME]")
@click.option("--steps", type=int, default=0, help="Training steps.  [default: 1000 unless --minutes is given]")
@click.option("--minutes", type=float, default=0.0, help="Minutes of training, earlier parts of the run included.")
@click.option("--batch", default=16, show_default=True, help="Sequences per step.")
@click.option("--length", default=256, show_default=True, help="Tokens per sequence.")
@click.option("--stream", is_flag=True, help="Consecutive segments; states go on from one batch to the next.")
@click.option("--set", "sizes", multiple=True, metavar="NAME=VALUE", help=OPTION_HELP)
@click.option("--entry", help="Which unit of the file to train.  [default: the last model]")
@click.option("--backend", default="auto", show_default=True, help="Which backend runs it.")
@require_backend
@click.option("--dtype", default="float32", show_default=True, help="float32, float64 or bfloat16.")
@click.option("--seed", default=0, show_default=True, help="Of the parameters and of the order of the data.")
@click.option("--threads", default=0, help="CPU threads.  [default: all, or those of the run that is resumed]")
@click.option("--clip", default=0.0, help="Largest norm of the gradient of all parameters.  [default: no limit]")
@click.option("--freeze", multiple=True, metavar="LEVEL,...", help="Levels whose parameters do not change.")
@click.option("--eval-every", default=0, help="Steps between evaluations.  [default: only at the start and the end]")
@click.option("--eval-tokens", default=1 << 16, show_default=True, help="Held-out tokens per evaluation; 0: all.")
@click.option("--save-every", default=0, help="Steps between checkpoints.")
@click.option("--save-minutes", default=5.0, show_default=True, help="Minutes between checkpoints; 0: only at the end.")
@click.option("--keep", default=3, show_default=True, help="Checkpoints to keep.")
@click.option("--log-every", default=10, show_default=True, help="Steps between log records.")
@click.option("--tensorboard", is_flag=True, help="Log to TensorBoard too (extra `train`).")
@click.option("--on-nonfinite", default="raise", show_default=True, help="raise, skip or rollback.")
@click.option("--resume", is_flag=True, help="Go on from the last complete checkpoint in --out.")
@click.option("--resume-from", type=PATH, help="Go on from this checkpoint.")
@click.option("--allow-changed-spec", is_flag=True, help="Resume although the program has changed.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only mistakes.")
def command(**arguments: Any) -> int:
    """Train the model in SPEC on bytes or token files.

    Each record of the log is a line of OUT/log.jsonl; checkpoints are OUT/step-000123. Ctrl-C saves and stops; the same
    command with --resume goes on.
    """
    from nldsl.extras import require

    require("torch", "train", "to train a model")
    require("safetensors", "train", "to write checkpoints")
    from nldsl.train.progress import progress_bar
    from nldsl.train.session import open_run

    quiet = bool(arguments.pop("quiet"))
    settings = run_settings(**arguments)
    say = (lambda line: None) if quiet else note
    with progress_bar(settings.options.steps, settings.options.minutes, hidden=quiet) as report:
        trainer = open_run(settings, report, say)
        try:
            result = trainer.run()
        finally:
            trainer.logs.close()
    if not quiet:
        click.echo(summary(trainer, result))
    return result.exit_code


def run_settings(
    *,
    spec: Path,
    more: tuple[Path, ...],
    data: tuple[Path, ...],
    sizes: tuple[str, ...],
    freeze: tuple[str, ...],
    suffixes: tuple[str, ...],
    exclude: tuple[str, ...],
    token_dtype: str,
    as_bytes: bool,
    out: Path | None,
    entry: str | None,
    backend: str,
    require_backend: bool,
    stream: bool,
    **rest: Any,
) -> RunSettings:
    """Turn the words of the command line into settings; `--data a b` leaves `b` among the arguments."""
    from nldsl.train.data import DataOptions
    from nldsl.train.loop import TrainOptions
    from nldsl.train.session import Program, RunSettings

    if more and not data:
        raise click.UsageError(f"unexpected argument `{more[0]}`; data comes after `--data`")
    names = TrainOptions.__dataclass_fields__.keys() - {"out", "freeze"}
    chosen = {name: rest.pop(name) for name in names}
    if not chosen["steps"] and not chosen["minutes"]:
        chosen["steps"] = 1000
    options = TrainOptions(out=out or Path("out") / spec.stem, freeze=_words(freeze), **chosen)
    return RunSettings(
        program=Program(spec, entry, tuple(sorted(parse_settings(sizes).items())), backend, None, require_backend),
        options=options,
        data=(*data, *more),
        files=DataOptions(_words(suffixes), _words(exclude), token_dtype, as_bytes),
        streaming=stream,
        **rest,
    )


def summary(trainer: Trainer, result: RunResult) -> str:
    """Return what a person wants to know after a run."""
    progress = result.progress
    unit = "byte" if trainer.sampler.stream.is_bytes else "token"
    lines = [f"{progress.step} steps, {progress.tokens} tokens, {progress.tokens_per_second:.0f} tokens per second"]
    if progress.first_bits is not None and progress.last_bits is not None:
        lines.append(f"held-out bits per {unit}: {progress.first_bits:.4f} -> {progress.last_bits:.4f}")
    if progress.skipped:
        lines.append(f"batches dropped because a value was not finite: {progress.skipped}")
    for level, count in progress.observed.items():
        period = trainer.meter.periods.get(level, 1)
        declared = 0 if level in trainer.options.freeze else progress.step // period
        said = "frozen" if level in trainer.options.freeze else f"every {period} step"
        lines.append(f"level {level} ({said}): {count} updates observed, {declared} declared")
    lines.append(f"checkpoint: {result.checkpoint}")
    if result.exit_code:
        lines.append("interrupted: the same command with --resume goes on")
    return "\n".join(lines)


def _words(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())
