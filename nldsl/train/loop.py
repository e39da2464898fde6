"""The training loop: batches in, one optimizer step per batch, logs, evaluations and checkpoints on the way.

Learning rates and their schedules belong to the program; the loop adds none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from nldsl.train import checkpoint as checkpoints
from nldsl.train import guard, rng
from nldsl.train.checkpoint import Checkpoint, Spec
from nldsl.train.data import TokenStream
from nldsl.train.errors import problem
from nldsl.train.evaluate import Evaluation, evaluate
from nldsl.train.interface import Optimizers, TrainableModule
from nldsl.train.interrupts import Interrupts
from nldsl.train.logs import Logs
from nldsl.train.meters import LevelMeter, norm
from nldsl.train.restore import check_parameters, check_spec
from nldsl.train.sampler import Sampler
from nldsl.train.tree import join, split, tensors_of

__all__ = ["RunResult", "TrainOptions", "Trainer"]

_MOST_SKIPS = 20  # bad batches in a row
_MOST_ROLLBACKS = 3  # without getting past the step that went wrong


@dataclass(frozen=True)
class TrainOptions:
    """How to run. Zero means: no limit, never, or off. `minutes` are those spent training, not evaluating or saving."""

    out: Path
    steps: int = 0
    minutes: float = 0.0
    clip: float = 0.0
    eval_every: int = 0
    eval_tokens: int = 1 << 16
    save_every: int = 0
    save_minutes: float = 5.0
    keep: int = 3
    log_every: int = 10
    on_nonfinite: str = "raise"
    freeze: tuple[str, ...] = ()


@dataclass
class Progress:
    """What a run counts, apart from the weights; part of the checkpoint."""

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0  # of the whole run, evaluations and checkpoints included
    training_seconds: float = 0.0
    first_bits: float | None = None
    last_bits: float | None = None
    evaluated_at: int = -1
    observed: dict[str, int] = field(default_factory=dict)
    update_norm: dict[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """The speed of training alone."""
        return self.tokens / self.training_seconds if self.training_seconds else 0.0


@dataclass(frozen=True)
class RunResult:
    """How a run ended. `exit_code` is 0, or 128 + the signal that stopped it."""

    progress: Progress
    checkpoint: Path | None
    exit_code: int


class Trainer:
    """Trains one module. `report` is told each logged record, for a progress display."""

    def __init__(
        self,
        module: TrainableModule,
        optimizers: Optimizers,
        sampler: Sampler,
        heldout: TokenStream | None,
        spec: Spec,
        options: TrainOptions,
        logs: Logs | None = None,
        report: Callable[[dict[str, Any]], None] = lambda record: None,
    ) -> None:
        self.module = module
        self.optimizers = optimizers
        self.sampler = sampler
        self.heldout = heldout if heldout is not None and heldout.size > 1 else None
        self.spec = spec
        self.options = options
        self.logs = logs or Logs()
        self.report = report
        self.meter = LevelMeter(module, options.freeze)
        self.progress = Progress(observed=self.meter.cadence.observed, update_norm=self.meter.update_norm)
        self.carried: Any = None
        self.saved: Path | None = None
        self.threads = torch.get_num_threads()
        self._parameters = [p for _, p in module.named_parameters()]
        self._changed_spec = False
        self._skips = 0
        self._rollbacks = 0
        self._worst_step = -1
        self._clock = 0.0
        self._last_save = 0.0

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> RunResult:
        """Train until the steps or the minutes are over, or a signal comes; the last state is always saved."""
        with Interrupts() as interrupts:
            self._clock = time.monotonic()
            self._last_save = self._clock
            if self.progress.step == 0 and self.progress.evaluated_at < 0:
                self.logs.write("start", 0, options=_plain_options(self.options), data=self.sampler.state_dict())
                self._evaluate(lambda: bool(interrupts.received))
                if self.options.on_nonfinite == "rollback":
                    self.save()
            while not interrupts.received and not self._is_over():
                if not self.train_step():
                    continue
                self._after_step(lambda: bool(interrupts.received))
            if not interrupts.received and self.progress.evaluated_at != self.progress.step:
                self._evaluate(lambda: bool(interrupts.received))
            self.save()
            self._tick()
            self.logs.write("end", self.progress.step, progress=asdict(self.progress), signal=interrupts.received)
            return RunResult(self.progress, self.saved, interrupts.exit_code)

    def train_step(self) -> bool:
        """Train on the next batch; False if it was dropped because something was not finite."""
        started = time.perf_counter()
        batch = self.sampler.next()
        carried = self.carried if batch.continues else None
        self.optimizers.zero_grad()
        held = self.module.carried_state()
        loss, info, after = self._forward(batch.tokens, carried)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        total = norm(gradients)
        if not guard.is_finite((loss, *self._parameters, *gradients, *_floats(after), *_floats(info))):
            self.module.set_carried_state(held)
            self._handle_nonfinite(loss, info, carried or held, after)
            return False
        by_level = self.meter.gradient_norms() if self._logs_at(self.progress.step + 1) else {}
        if self.options.clip and total > self.options.clip:
            torch._foreach_mul_(gradients, self.options.clip / total)
        self.meter.before_step(self.progress.step + 1, self._next_log())
        self._optimize()
        self.meter.after_step()
        self.carried = after if self.sampler.streaming else None
        self._skips = 0
        self.progress.step += 1
        self.progress.tokens += batch.tokens.shape[0] * (batch.tokens.shape[1] - 1)
        self.progress.training_seconds += time.perf_counter() - started
        if self._logs_at(self.progress.step):
            self._log_step(float(loss.detach()), total, by_level, info, after)
        return True

    def _optimize(self) -> None:
        try:
            self.optimizers.step()
        except (KeyError, ValueError, RuntimeError) as error:
            if not self._changed_spec:
                raise
            raise problem(
                "NL0816",
                "the state of the optimizers in the checkpoint does not fit the changed program",
                notes=(str(error),),
                hints=("a level has another optimizer now: start a new run",),
            ) from None

    def _forward(self, tokens: torch.Tensor, carried: Any) -> tuple[torch.Tensor, dict[str, Any], Any]:
        loss, info = self.module.loss(tokens) if carried is None else self.module.loss(tokens, state=carried)
        info = _detached(info)
        return loss, info, info.pop("state", None)

    def _after_step(self, stop: Callable[[], bool]) -> None:
        options, step = self.options, self.progress.step
        if options.eval_every and step % options.eval_every == 0:
            self._evaluate(stop)
        due = bool(options.save_minutes) and time.monotonic() - self._last_save >= options.save_minutes * 60
        if due or (options.save_every and step % options.save_every == 0):
            self.save()

    def _is_over(self) -> bool:
        self._tick()
        options = self.options
        return bool(
            (options.steps and self.progress.step >= options.steps)
            or (options.minutes and self.progress.training_seconds >= options.minutes * 60)
        )

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now

    # -- evaluation and logs -----------------------------------------------------------------------------------------

    def evaluate(self, stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
        """Return the loss on the held-out tokens."""
        if self.heldout is None:
            return None
        return evaluate(
            self.module,
            self.heldout,
            batch=self.sampler.batch,
            length=self.sampler.length,
            limit=self.options.eval_tokens,
            stop=stop,
        )

    def _evaluate(self, stop: Callable[[], bool]) -> None:
        found = self.evaluate(stop)
        if found is None:
            return
        self.progress.evaluated_at = self.progress.step
        self.progress.last_bits = found.bits
        if self.progress.first_bits is None:
            self.progress.first_bits = found.bits
        self.report(
            self.logs.write(
                "evaluation", self.progress.step, loss=found.nats, bits_per_token=found.bits, predicted=found.tokens
            )
        )

    def _logs_at(self, step: int) -> bool:
        return self.options.log_every > 0 and (step == 1 or step % self.options.log_every == 0)

    def _next_log(self) -> int:
        step, every = self.progress.step + 1, self.options.log_every
        return step if self._logs_at(step) else -(-step // every) * every if every else 0

    def _log_step(
        self, loss: float, total: float, by_level: dict[str, float], info: dict[str, Any], after: Any
    ) -> None:
        progress = self.progress
        self.report(
            self.logs.write(
                "step",
                progress.step,
                loss=loss,
                gradient_norm=total,
                tokens=progress.tokens,
                tokens_per_second=progress.tokens_per_second,
                training_seconds=progress.training_seconds,
                skipped=progress.skipped,
                levels=self.meter.levels(progress.step, by_level, self.optimizers, info),
                memories=self.meter.memories(info, after),
            )
        )

    # -- values that are not finite ----------------------------------------------------------------------------------

    def _handle_nonfinite(self, loss: torch.Tensor, info: dict[str, Any], before: Any, after: Any) -> None:
        found = guard.find(self.module, loss, info, before, after) or guard.NonFinite("loss")
        step, policy = self.progress.step + 1, self.options.on_nonfinite
        self.report(self.logs.write("nonfinite", step, cause=asdict(found), policy=policy))
        self.optimizers.zero_grad()
        self.progress.skipped += 1
        # Parameters and carried states that are bad already stay bad: skipping a batch cannot help.
        spoilt = found.what in ("parameter", "state before the batch")
        if policy == "raise" or (policy == "skip" and spoilt):
            raise found.error(step, "raise")
        self._skips += 1
        if policy == "skip" and self._skips >= _MOST_SKIPS:
            raise found.error(step, policy)
        if policy == "rollback":
            self._rollback(found)

    def _rollback(self, found: guard.NonFinite) -> None:
        """Go back to the newest checkpoint, and on with other batches."""
        went_wrong = self.progress.step + 1
        self._rollbacks = self._rollbacks + 1 if went_wrong <= self._worst_step else 1
        self._worst_step = max(self._worst_step, went_wrong)
        newest = checkpoints.latest_complete(self.options.out)
        if self._rollbacks > _MOST_ROLLBACKS or newest is None:
            raise found.error(went_wrong, "rollback")
        cursor, skipped = self.sampler.cursor, self.progress.skipped
        self.restore(checkpoints.load(newest))
        self.sampler.cursor, self.progress.skipped = cursor, skipped
        self.carried = None
        self.logs.write("rollback", self.progress.step, came_from=went_wrong, checkpoint=str(newest))

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def snapshot(self) -> Checkpoint:
        """Return everything the run needs to go on."""
        return Checkpoint(
            step=self.progress.step,
            spec=self.spec,
            params={name: tensor.detach() for name, tensor in self.module.state_dict().items()},
            optimizers=self.optimizers.state_dict(),
            carried={"stream": self.carried, "module": self.module.carried_state()},
            rng=rng.capture(),
            data={**self.sampler.state_dict(), "fingerprint": self.sampler.stream.fingerprint()},
            trainer={
                "progress": asdict(self.progress),
                "options": _plain_options(self.options),
                "threads": self.threads,
            },
        )

    def save(self) -> Path:
        """Write a checkpoint of this step, unless there is one."""
        self._tick()
        saved = checkpoints.save(self.options.out, self.snapshot(), keep=self.options.keep)
        if saved != self.saved:
            self.logs.write("checkpoint", self.progress.step, path=str(saved))
        self.saved = saved
        self._last_save = time.monotonic()
        return saved

    def resume(self, checkpoint: Checkpoint, *, allow_changed_spec: bool = False) -> None:
        """Go on from a checkpoint of the same program, data and options."""
        if not allow_changed_spec:
            check_spec(checkpoint, self.spec)
        if checkpoint.data.get("fingerprint") != self.sampler.stream.fingerprint():
            raise problem(
                "NL0815",
                "the checkpoint was written with other training data",
                hints=("resume with the same `--data`, or start a new run in another `--out`",),
            )
        self.restore(checkpoint)
        self._changed_spec = checkpoint.spec.sha256 != self.spec.sha256
        self.logs.write("resume", self.progress.step)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Copy a checkpoint into the module, the optimizers, the generators and the counters."""
        check_parameters(checkpoint.params, self.module.state_dict(), "parameters")
        self.sampler.load_state_dict(checkpoint.data)
        self.module.load_state_dict(checkpoint.params)
        try:
            self.optimizers.load_state_dict(checkpoint.optimizers)
            rng.restore(checkpoint.rng)
            self.progress = Progress(**checkpoint.trainer["progress"])
            self.module.set_carried_state(checkpoint.carried["module"])
            self.carried = checkpoint.carried["stream"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise problem("NL0816", "the state of the run does not fit the program", notes=(str(error),)) from None
        self.meter.cadence.forget_writes()
        self.meter.cadence.observed.update(self.progress.observed)
        self.meter.update_norm.update(self.progress.update_norm)
        self.progress.observed, self.progress.update_norm = self.meter.cadence.observed, self.meter.update_norm
        self._clock = time.monotonic()


def _plain_options(options: TrainOptions) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}


def _floats(value: Any) -> list[torch.Tensor]:
    return [t for t in tensors_of(value).values() if t.is_floating_point()] if value is not None else []


def _detached(state: Any) -> Any:
    skeleton, tensors = split(state)  # `split` detaches
    return join(skeleton, tensors)
