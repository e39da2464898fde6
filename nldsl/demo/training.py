"""The parts of the demo that train: the main run, the run with frozen slow levels, the baselines, a sample."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from nldsl.demo.corpus import Corpus
from nldsl.demo.settings import DemoSettings
from nldsl.diagnostics import DiagnosticError
from nldsl.train.baselines import Smoothing, fit_order2, zlib_bits_per_byte
from nldsl.train.cadence import MemoryCadence, observe
from nldsl.train.disk import Disk, replace_file
from nldsl.train.interface import TrainableModule, levels_of
from nldsl.train.loop import Progress, Trainer, TrainOptions
from nldsl.train.progress import progress_bar
from nldsl.train.sample import SampleOptions, generate, logits_of
from nldsl.train.session import Program, RunSettings, compile_checkpoint, open_run

__all__ = [
    "Baselines",
    "Decoding",
    "InterruptedDemoError",
    "Run",
    "baselines",
    "cadence_of",
    "decode",
    "kept",
    "slow_levels",
    "train",
]

Say = Callable[[str], None]
# A checkpoint of other settings cannot be gone on with: another program, other data, other tensors, damage.
_STALE = ("NL0811", "NL0812", "NL0815", "NL0816")
_CADENCE_TOKENS = 96


class InterruptedDemoError(Exception):
    """A signal came; everything is saved."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Run:
    """A run that is over."""

    directory: Path
    progress: Progress
    periods: dict[str, int]
    frozen: tuple[str, ...]
    parameters: dict[str, int]


@dataclass(frozen=True)
class Baselines:
    """Bits per byte of the same held-out bytes."""

    order2: float
    smoothing: Smoothing
    zlib: float
    heldout_bytes: int
    train_bytes: int


@dataclass(frozen=True)
class Decoding:
    """A continuation of the prompt, what a byte costs at its beginning and at its end, and a comparison.

    `stepped` and `evaluated` are the bits per byte of the first held-out bytes, by single steps and as in evaluations.
    """

    text: bytes
    first_ms: float
    last_ms: float
    stepped: float
    evaluated: float


def baselines(settings: DemoSettings, corpus: Corpus) -> Baselines:
    """Fit the order-2 model to the training text; both on the bytes that the model is evaluated on."""
    train_text, heldout = corpus.streams(settings.heldout_bytes)
    text = heldout.raw_bytes()
    model = fit_order2(train_text.raw_bytes())
    bits = model.bits_per_byte(np.frombuffer(text, dtype=np.uint8))
    return Baselines(bits, model.smoothing, zlib_bits_per_byte(text), len(text), train_text.size)


def train(
    settings: DemoSettings, corpus: Corpus, name: str, minutes: float, say: Say, *, freeze: tuple[str, ...] = ()
) -> Run:
    """Train until the run has had its minutes; an interrupted run goes on, one of other settings starts again."""
    directory = settings.out / name
    try:
        return _train(settings, corpus, directory, minutes, say, freeze)
    except DiagnosticError as error:
        if not directory.exists() or not any(d.code in _STALE for d in error.diagnostics):
            raise
        say(f"{directory} is of other settings: starting again")
        shutil.rmtree(directory)
        return _train(settings, corpus, directory, minutes, say, freeze)


def _train(
    settings: DemoSettings, corpus: Corpus, directory: Path, minutes: float, say: Say, freeze: tuple[str, ...]
) -> Run:
    options = TrainOptions(
        out=directory,
        minutes=minutes,
        clip=1.0,
        eval_tokens=settings.heldout_bytes - 1,
        save_minutes=1.0,
        log_every=10,
        freeze=freeze,
        on_nonfinite="skip",
    )
    run = RunSettings(
        program=Program(settings.program, None, settings.dims, settings.backend),
        options=options,
        data=corpus.train,
        eval_data=corpus.heldout,
        batch=settings.batch,
        length=settings.length,
        seed=settings.seed,
        threads=settings.threads,
        resume=any(directory.glob("step-*/COMPLETE")),
    )
    with progress_bar(0, minutes) as report:
        trainer = open_run(run, report, say)
        try:
            result = trainer.run()
        finally:
            trainer.logs.close()
    if result.exit_code:
        raise InterruptedDemoError(result.exit_code)
    return Run(directory, result.progress, trainer.meter.periods, freeze, _parameters(trainer))


def kept(run: Run) -> Run:
    """Remember how far a run had come when this was first called; later calls return that."""
    path = run.directory / "comparison.json"
    if path.exists():
        return replace(run, progress=Progress(**json.loads(path.read_text(encoding="utf-8"))))
    replace_file(Disk(), path, json.dumps(asdict(run.progress)).encode())
    return run


def _parameters(trainer: Trainer) -> dict[str, int]:
    return {level: sum(p.numel() for _, p in group) for level, group in trainer.meter.groups.items()}


def slow_levels(run: Run) -> tuple[str, ...]:
    """The levels with parameters that tick less often than the fastest."""
    fastest = min(run.periods.values())
    return tuple(level for level in run.parameters if run.periods[level] > fastest)


def cadence_of(settings: DemoSettings, corpus: Corpus, run: Run) -> list[MemoryCadence]:
    """Watch the memories of the trained model while it reads held-out text token by token."""
    module = compile_checkpoint(run.directory, backend=settings.backend)
    periods = [level.period for level in levels_of(module, "token")]
    count = max([_CADENCE_TOKENS, *(2 * period for period in periods)])
    _, heldout = corpus.streams(settings.heldout_bytes)
    return observe(module, heldout.read(0, min(count, heldout.size)).tolist())


def decode(settings: DemoSettings, corpus: Corpus, run: Run) -> Decoding:
    """Continue the prompt with the trained model, one byte at a time."""
    module = compile_checkpoint(run.directory, backend=settings.backend)
    options = SampleOptions(settings.sample_bytes, temperature=0.7, seed=settings.seed)
    times, drawn = [time.perf_counter()], bytearray()
    for token in generate(module, settings.prompt.encode(), options):
        drawn.append(token)
        times.append(time.perf_counter())
    steps = np.diff(times)[1:] * 1000
    quarter = max(1, len(steps) // 4)
    _, heldout = corpus.streams(settings.heldout_bytes)
    text = torch.from_numpy(heldout.read(0, settings.length + 1))
    with torch.no_grad():
        whole = float(module.loss(text[None])[0])
    by_steps = _stepped(module, text)
    early, late = float(np.median(steps[:quarter])), float(np.median(steps[-quarter:]))
    return Decoding(bytes(drawn), early, late, by_steps / math.log(2), whole / math.log(2))


def _stepped(module: TrainableModule, text: torch.Tensor) -> float:
    """Return the mean code length in nats of all bytes but the first, predicting one after the other."""
    total, state = 0.0, module.init_state(1)
    with torch.no_grad():
        for now, after in pairwise(text):
            output, state = module.step(now[None], state)
            total -= float(logits_of(module, output).log_softmax(-1)[after])
    return total / (len(text) - 1)
