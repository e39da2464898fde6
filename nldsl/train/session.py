"""From what a user asks for to a trainer: compile, open the data, open the logs, and find the place to go on from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nldsl import api
from nldsl.diagnostics import DiagnosticBag, DiagnosticError
from nldsl.driver import Options, names_of
from nldsl.runtime.optimizer import LevelOptimizers
from nldsl.train import rng
from nldsl.train.checkpoint import Checkpoint, Spec, latest_complete, load
from nldsl.train.data import DataOptions, TokenStream, open_data
from nldsl.train.errors import problem
from nldsl.train.guard import POLICIES
from nldsl.train.interface import parameters_by_level
from nldsl.train.logs import JsonlLog, Logs, LogSink, TensorBoardLog
from nldsl.train.loop import Trainer, TrainOptions
from nldsl.train.restore import check_parameters, check_spec
from nldsl.train.sampler import Sampler
from nldsl.train.trainable import check_levels, check_tokens, check_trainable, vocabulary

__all__ = ["DTYPES", "Program", "RunSettings", "compile_checkpoint", "open_run", "read_program"]

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Program:
    """Which program to compile, and how. `text` overrides what is in the file `path`; `required`: what the backend
    has no form for is an error."""

    path: Path
    entry: str | None = None
    dims: tuple[tuple[str, Any], ...] = ()
    backend: str = "auto"
    text: str | None = None
    required: bool = False


@dataclass(frozen=True)
class RunSettings:
    """Everything that `nldsl train` can be told."""

    program: Program
    options: TrainOptions
    data: tuple[Path, ...]
    eval_data: tuple[Path, ...] = ()
    holdout: float = 0.05
    files: DataOptions = field(default_factory=DataOptions)
    batch: int = 16
    length: int = 256
    streaming: bool = False
    seed: int = 0
    dtype: str = "float32"
    threads: int = 0
    tensorboard: bool = False
    resume: bool = False
    resume_from: Path | None = None
    allow_changed_spec: bool = False


def open_run(
    settings: RunSettings,
    report: Callable[[dict[str, Any]], None] = lambda record: None,
    say: Callable[[str], None] = lambda line: None,
) -> Trainer:
    """Return a trainer that is ready to run. `say` is told what is being done, `report` each record of the log."""
    _check_options(settings)
    found = _checkpoint(settings)
    _set_threads(settings, found)
    stream, heldout = _streams(settings)
    say(f"compiling {settings.program.path}")
    spec = read_program(settings.program)
    rng.seed_all(settings.seed)
    module = _compile(settings.program, settings.seed).to(DTYPES[settings.dtype])
    check_trainable(module.program)
    _check_data(stream, heldout, vocabulary(module.program))
    _freeze(module, settings.options.freeze)
    sampler = Sampler(
        stream, batch=settings.batch, length=settings.length, seed=settings.seed, streaming=settings.streaming
    )
    if found:  # here, because opening the logs cuts off what comes after the checkpoint
        if not settings.allow_changed_spec:
            check_spec(found, spec)
        check_parameters(found.params, module.state_dict(), "parameters")
    trainer = Trainer(
        module,
        _optimizers(module),
        sampler,
        heldout,
        spec,
        settings.options,
        _logs(settings, found.step if found else None),
        report,
    )
    if found:
        trainer.resume(found, allow_changed_spec=settings.allow_changed_spec)
        say(f"going on from step {found.step}")
    return trainer


def read_program(program: Program) -> Spec:
    """Return the text of a program, with a hash of everything it imports."""
    bag = DiagnosticBag()
    names = names_of(program.path, Options(program.entry, program.dims), bag, program.text)
    bag.raise_if_errors()
    if names is None:
        raise DiagnosticError(bag.diagnostics)
    texts = [names.loaded.files[key].span.file.text for key in names.loaded.order]
    digest = hashlib.sha256()
    for text in texts[:-1]:
        digest.update(f"{len(text)}\n{text}".encode())
    return Spec(texts[-1], program.entry or "", program.dims, digest.hexdigest(), str(program.path))


def compile_checkpoint(
    path: Path,
    program_file: Path | None = None,
    backend: str = "auto",
    *,
    allow_changed_spec: bool = False,
    required: bool = False,
) -> Any:
    """Return the module of a checkpoint, compiled from the program in it (or from `program_file`), with its weights."""
    found = load(path)
    file = program_file or Path(found.spec.path)
    # The file itself, if it is still the same, because what it imports may be beside it.
    moved = program_file is None and not _holds(file, found.spec.text)
    text = found.spec.text if moved else None
    program = Program(file, found.spec.entry or None, found.spec.dims, backend, text, required)
    spec = read_program(program)
    if not allow_changed_spec:
        check_spec(found, spec)
    module = _compile(program, 0)
    check_tokens(module.program)
    example = next(iter(found.params.values()), None)
    if example is not None and example.is_floating_point():
        module = module.to(example.dtype)
    check_parameters(found.params, module.state_dict(), "parameters")
    module.load_state_dict(found.params)
    return module


def _holds(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


def _compile(program: Program, seed: int) -> Any:
    return api.compile(
        program.path,
        program.entry,
        backend=program.backend,
        seed=seed,
        text=program.text,
        require_backend=program.required,
        **dict(program.dims),
    )


def _check_options(settings: RunSettings) -> None:
    options = settings.options
    for name, value in {"--batch": settings.batch, "--length": settings.length, "--keep": options.keep}.items():
        if value < 1:
            raise problem("NL0820", f"`{name} {value}` must be 1 or more")
    not_negative = {
        "--steps": options.steps,
        "--minutes": options.minutes,
        "--clip": options.clip,
        "--eval-every": options.eval_every,
        "--eval-tokens": options.eval_tokens,
        "--save-every": options.save_every,
        "--save-minutes": options.save_minutes,
        "--log-every": options.log_every,
        "--threads": settings.threads,
        "--seed": settings.seed,
    }
    for name, number in not_negative.items():
        if not number >= 0:
            raise problem("NL0820", f"`{name} {number}` must be 0 or more")
    if settings.dtype not in DTYPES:
        raise problem("NL0820", f"`--dtype {settings.dtype}` is not one of {', '.join(DTYPES)}")
    if options.on_nonfinite not in POLICIES:
        raise problem("NL0820", f"`--on-nonfinite {options.on_nonfinite}` is not one of {', '.join(POLICIES)}")


def _checkpoint(settings: RunSettings) -> Checkpoint | None:
    out = settings.options.out
    if settings.resume_from is not None:
        return load(settings.resume_from)
    newest = latest_complete(out)
    if settings.resume:
        return load(newest or out)
    if newest is not None:
        raise problem(
            "NL0817",
            f"`{out}` holds a run already",
            notes=(f"its last checkpoint is `{newest}`",),
            hints=("go on with it: `--resume`; or name another directory: `--out`",),
        )
    return None


def _set_threads(settings: RunSettings, found: Checkpoint | None) -> None:
    """Use the threads asked for, or those of the run that goes on: sums in another order have other bits."""
    threads = settings.threads or (int(found.trainer.get("threads", 0)) if found else 0)
    if threads:
        torch.set_num_threads(threads)


def _streams(settings: RunSettings) -> tuple[TokenStream, TokenStream]:
    return open_data(settings.data, settings.eval_data, settings.holdout, settings.files)


def _check_data(stream: TokenStream, heldout: TokenStream, ids: int | None) -> None:
    if ids is not None:
        stream.check_vocabulary(ids)
        heldout.check_vocabulary(ids)


def _freeze(module: Any, names: tuple[str, ...]) -> None:
    check_levels(module.program, names)
    groups = parameters_by_level(module)
    for name in names:
        for _, parameter in groups.get(name, ()):
            parameter.requires_grad_(False)


def _optimizers(module: Any) -> LevelOptimizers:
    try:
        return LevelOptimizers(module)
    except ValueError as error:  # a level without an optimizer
        raise problem("NL0806", str(error)) from None


def _logs(settings: RunSettings, resume_after: int | None) -> Logs:
    out = settings.options.out
    out.mkdir(parents=True, exist_ok=True)
    # A directory without a checkpoint may hold the log of a run that was killed before its first one.
    sinks: list[LogSink] = [JsonlLog(out, resume_after=-1 if resume_after is None else resume_after)]
    if settings.tensorboard:
        sinks.append(TensorBoardLog(out, resume_after=resume_after))
    return Logs(tuple(sinks))
