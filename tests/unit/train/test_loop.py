"""The training loop: what it measures, saves, resumes, and does about values that are not finite."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.diagnostics import DiagnosticError
from nldsl.train.checkpoint import Checkpoint, Spec, complete_checkpoints, load
from nldsl.train.logs import JsonlLog, Logs, read_log, scalars
from nldsl.train.loop import Trainer, TrainOptions
from nldsl.train.tree import split
from tests.unit.train.fakes import FakeModule, make_trainer, write_text


def options(tmp_path: Path, **fields: Any) -> TrainOptions:
    return TrainOptions(tmp_path / "out", **{"steps": 12, "log_every": 4, "eval_tokens": 64, **fields})


def weights(trainer: Trainer) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in trainer.module.state_dict().items()}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path / "text.txt")


def test_training_learns_and_measures_each_level(tmp_path: Path, text: Path) -> None:
    trainer = make_trainer(text, options(tmp_path, steps=60, log_every=20), log=True)
    result = trainer.run()
    progress = result.progress
    assert result.exit_code == 0
    assert (progress.step, progress.tokens) == (60, 60 * 4 * 16)
    assert progress.first_bits is not None
    assert progress.last_bits is not None
    assert progress.last_bits < progress.first_bits - 2
    assert progress.observed == {"step": 60, "slow": 20}
    records = list(read_log(tmp_path / "out" / "log.jsonl"))
    kinds = [record["kind"] for record in records]
    assert kinds == "start evaluation step step step step evaluation checkpoint end".split()
    last = [record for record in records if record["kind"] == "step"][-1]
    assert last["step"] == 60
    assert last["levels"]["slow"]["updates_observed"] == last["levels"]["slow"]["updates_declared"] == 20
    assert last["levels"]["step"]["ticks"] == 60
    assert 0 < last["levels"]["step"]["loss"] == pytest.approx(last["loss"])
    assert 0 < last["memories"]["cell"]["gate"] < 1
    assert last["memories"]["cell"]["state_norm"] > 0
    assert all(
        last["levels"][level][what] > 0
        for level in ("step", "slow")
        for what in ("gradient_norm", "update_norm", "parameter_norm")
    )


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("stop_at", [1, 5, 6])
def test_a_resumed_run_has_the_same_bits(tmp_path: Path, text: Path, streaming: bool, stop_at: int) -> None:
    whole = make_trainer(text, options(tmp_path), streaming=streaming)
    whole.run()
    halves = options(tmp_path / "halves", steps=stop_at)
    make_trainer(text, halves, streaming=streaming).run()
    torch.rand(7)  # whatever the process did in between
    second = make_trainer(text, replace(halves, steps=12), streaming=streaming)
    second.resume(load(halves.out))
    second.run()
    assert weights(second) == weights(whole)
    a, b = load(tmp_path / "out"), load(halves.out)
    for name in ("optimizers", "carried", "rng", "data"):
        (left, lefts), (right, rights) = split(getattr(a, name)), split(getattr(b, name))
        assert left == right, name
        assert {k: t.numpy().tobytes() for k, t in lefts.items()} == {k: t.numpy().tobytes() for k, t in rights.items()}
    assert second.progress.observed == whole.progress.observed


def test_other_data_options_or_program_are_refused(tmp_path: Path, text: Path) -> None:
    make_trainer(text, options(tmp_path)).run()
    saved = load(tmp_path / "out")
    other = make_trainer(write_text(tmp_path / "other.txt", 5000), options(tmp_path))
    with pytest.raises(DiagnosticError, match=r"NL0815.*other training data"):
        other.resume(saved)
    streamed = make_trainer(text, options(tmp_path), streaming=True)
    with pytest.raises(DiagnosticError, match="--stream"):
        streamed.resume(saved)
    changed = make_trainer(text, options(tmp_path))
    changed.spec = Spec("model Other() {}")
    with pytest.raises(DiagnosticError, match="another program"):
        changed.resume(saved)
    changed.resume(saved, allow_changed_spec=True)
    wider = make_trainer(text, options(tmp_path))
    wider.module = FakeModule(d=9)
    with pytest.raises(DiagnosticError) as error:
        wider.resume(saved)
    assert "different: `table` is [256, 8] float32 there, [256, 9] float32 in the program" in str(
        error.value.diagnostics[0].notes
    )
    broken = Checkpoint(1, saved.spec, saved.params, {"steps": 1}, None, saved.rng, saved.data, saved.trainer)
    with pytest.raises(DiagnosticError, match="state of the run"):
        make_trainer(text, options(tmp_path)).resume(broken)


def test_a_signal_saves_and_stops(tmp_path: Path, text: Path) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == 8:
            os.kill(os.getpid(), signal.SIGINT)

    trainer = make_trainer(text, options(tmp_path, steps=100))
    trainer.report = interrupt
    before = signal.getsignal(signal.SIGINT)  # a background job of a shell may begin with the signal ignored
    result = trainer.run()
    assert result.exit_code == 130
    assert load(tmp_path / "out").step == 8
    assert signal.getsignal(signal.SIGINT) is before
    second = make_trainer(text, options(tmp_path))
    second.resume(load(tmp_path / "out"))
    assert second.run().progress.step == 12
    whole = make_trainer(text, options(tmp_path / "whole"))
    whole.run()
    assert weights(second) == weights(whole)


def test_a_second_signal_stops_at_once(tmp_path: Path, text: Path) -> None:
    def interrupt(record: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    trainer = make_trainer(text, options(tmp_path, steps=100))
    trainer.report = interrupt
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def test_the_minutes_are_those_of_the_whole_run(tmp_path: Path, text: Path) -> None:
    trainer = make_trainer(text, options(tmp_path, steps=0, minutes=0.005))
    assert trainer.run().progress.training_seconds >= 0.3
    second = make_trainer(text, options(tmp_path, steps=0, minutes=0.005))
    second.resume(load(tmp_path / "out"))
    step = second.progress.step
    assert second.run().progress.step == step


def test_checkpoints_every_few_steps(tmp_path: Path, text: Path) -> None:
    make_trainer(text, options(tmp_path, steps=10, save_every=3, keep=2)).run()
    assert [p.name for p in complete_checkpoints(tmp_path / "out")] == ["step-000009", "step-000010"]


def test_clipping_limits_the_gradient(tmp_path: Path, text: Path) -> None:
    seen: list[float] = []
    trainer = make_trainer(text, options(tmp_path, clip=0.01))
    step = trainer.optimizers.step

    def record() -> None:
        grads = [p.grad for p in trainer._parameters if p.grad is not None]
        seen.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))
        step()

    trainer.optimizers.step = record  # type: ignore[method-assign]
    trainer.run()
    assert max(seen) == pytest.approx(0.01, rel=1e-4)


WHERE = {
    "loss": "the loss of level `step` is not finite: it is nan",
    "probe": "the probe `gate` of the memory `cell` is not finite",
    "gradient": "the gradient `mix` of level `step` is not finite: 1 of 64 entries, the first at [0, 0]",
    "state": "the state after the batch `h` of the memory `cell` is not finite",
}


@pytest.mark.parametrize("what", WHERE)
def test_a_bad_value_stops_the_run_and_is_named(tmp_path: Path, text: Path, what: str) -> None:
    trainer = make_trainer(text, options(tmp_path), streaming=True)
    _poison_at(trainer, 5, what)
    with pytest.raises(DiagnosticError) as error:
        trainer.run()
    found = error.value.diagnostics[0]
    assert found.code == "NL0821"
    assert found.message.startswith("at training step 5 ")
    assert WHERE[what] in found.message


@pytest.mark.parametrize("what", WHERE)
def test_skip_drops_the_batch(tmp_path: Path, text: Path, what: str) -> None:
    trainer = make_trainer(text, options(tmp_path, on_nonfinite="skip"), streaming=True)
    _poison_at(trainer, 5, what)
    progress = trainer.run().progress
    assert (progress.step, progress.skipped, trainer.sampler.cursor) == (12, 1, 13)
    assert all(torch.isfinite(t).all() for t in trainer.module.state_dict().values())
    assert torch.isfinite(trainer.carried["states"]["h"]).all()


def test_skip_gives_up_when_nothing_works(tmp_path: Path, text: Path) -> None:
    trainer = make_trainer(text, options(tmp_path, on_nonfinite="skip"))
    assert isinstance(trainer.module, FakeModule)
    with torch.no_grad():
        trainer.module.mix[1, 2] = float("nan")
    with pytest.raises(DiagnosticError, match=r"the parameter `mix` of level `step` is not finite: 1 of 64"):
        trainer.run()


def test_rollback_goes_back_to_the_last_checkpoint(tmp_path: Path, text: Path) -> None:
    trainer = make_trainer(text, options(tmp_path, on_nonfinite="rollback", save_every=4), log=True)
    _poison_at(trainer, 7, "parameter")
    progress = trainer.run().progress
    assert progress.step == 12
    assert all(torch.isfinite(t).all() for t in trainer.module.state_dict().values())
    records = {r["kind"]: r for r in read_log(tmp_path / "out" / "log.jsonl")}
    assert records["rollback"]["step"] == 4
    assert records["rollback"]["came_from"] == 7
    assert records["nonfinite"]["cause"]["name"] == "mix"


def test_rollback_gives_up(tmp_path: Path, text: Path) -> None:
    trainer = make_trainer(text, options(tmp_path, on_nonfinite="rollback"))
    _poison_at(trainer, 3, "parameter", always=True)
    with pytest.raises(DiagnosticError, match="at training step 3"):
        trainer.run()


def _poison_at(trainer: Trainer, step: int, what: str, *, always: bool = False) -> None:
    """Make the training step `step` go wrong, once or always."""
    module = trainer.module
    assert isinstance(module, FakeModule)
    train_step, done = trainer.train_step, [False]

    def poisoned() -> bool:
        if trainer.progress.step + 1 == step and (always or not done[0]):
            done[0] = True
            if what == "parameter":
                with torch.no_grad():
                    module.mix[0, 1] = float("inf")
            else:
                module.poison = what
        return train_step()

    trainer.train_step = poisoned  # type: ignore[method-assign]


def test_a_log_is_cut_where_the_run_goes_on(tmp_path: Path) -> None:
    log = JsonlLog(tmp_path)
    logs = Logs((log,))
    for step in range(5):
        logs.write("step", step, loss=float("nan"), nested={"x": 1.0, "y": float("inf")})
    logs.close()
    with log.path.open("a") as file:
        file.write('{"kind": "step", "step": 5, "lo')
    logs = Logs((JsonlLog(tmp_path, resume_after=2),))
    logs.write("step", 3)
    logs.close()
    records = list(read_log(log.path))
    assert [r["step"] for r in records] == [0, 1, 2, 3]
    assert records[0]["loss"] == "nan"
    assert dict(scalars({"a": {"b": 1, "c": True, "d": "x"}, "e": 2.5})) == {"a/b": 1.0, "e": 2.5}
