"""`nldsl train` and `nldsl sample` with a compiled program: learn, stop, go on to the same bits, continue a text."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nldsl.cli.main import main
from nldsl.diagnostics import DiagnosticError
from nldsl.train.checkpoint import load
from nldsl.train.logs import read_log
from nldsl.train.loop import Trainer, TrainOptions
from nldsl.train.session import Program, RunSettings, open_run
from tests.integration.test_crash import assert_same_bits
from tests.unit.train.fakes import write_text

PROGRAM = Path(__file__).with_name("small.nl")
SMALL = ["--batch", "4", "--length", "16", "--eval-tokens", "200", "--log-every", "5"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path / "text.txt", 4000)


def train(text: Path, out: Path, *more: str) -> int:
    return main(["train", str(PROGRAM), "--data", str(text), "--out", str(out), *SMALL, *more])


def test_train_writes_what_it_says(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert train(text, out, "--steps", "12", "--save-every", "6") == 0
    said = capsys.readouterr()
    assert "level slow (every 3 step): 4 updates observed, 4 declared" in said.out
    assert "held-out bits per byte: 8.0" in said.out
    assert said.err == f"compiling {PROGRAM}\n"
    assert sorted(p.name for p in out.iterdir()) == ["log.jsonl", "step-000006", "step-000012"]
    last = [r for r in read_log(out / "log.jsonl") if r["kind"] == "step"][-1]
    assert set(last["levels"]) == {"fast", "slow"}
    assert last["memories"]["m"]["state_norm"] > 0
    assert last["memories"]["m"]["rate"] == 0.5
    assert load(out).spec.text == PROGRAM.read_text()

    assert train(text, out) == 1
    assert "error[NL0817]: " in capsys.readouterr().err
    assert main(["sample", str(out), "--prompt", "def", "--tokens", "10", "--ids"]) == 0
    assert len(capsys.readouterr().out.split()) == 10


@pytest.mark.parametrize("more", [[], ["--stream"], ["--clip", "0.1", "--dtype", "float64"]])
def test_resume_has_the_same_bits(tmp_path: Path, text: Path, more: list[str]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(text, whole, "--steps", "10", *more) == 0
    assert train(text, parts, "--steps", "4", *more) == 0
    assert train(text, parts, "--steps", "10", "--resume", *more) == 0
    a, b = load(whole), load(parts)
    assert a.trainer["progress"].pop("evaluated_at") == b.trainer["progress"].pop("evaluated_at")
    assert_same_bits(a, b)


NEVER = ("  state S: [d, d] = 0\n", "  state S: [d, d] = 0 reset never\n")
FAST_WEIGHTS = (
    "  level slow = every slow_period step with Momentum(rate = 0.05, beta = 0.9)\n",
    "  level slow = every 4 token with Momentum(rate = 0.5, beta = 0.9)\n",
)


@pytest.mark.parametrize("change", [NEVER, FAST_WEIGHTS], ids=["never", "fast"])
@pytest.mark.parametrize("more", [[], ["--stream"]], ids=["random", "stream"])
def test_states_that_outlive_a_call(tmp_path: Path, text: Path, change: tuple[str, str], more: list[str]) -> None:
    """A state that no sequence resets, and weights that learn within the sequence."""
    program = tmp_path / "changed.nl"
    assert change[0] in PROGRAM.read_text()
    program.write_text(PROGRAM.read_text().replace(*change))
    command = ["train", str(program), "--data", str(text), *SMALL, *more]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    # an evaluation on the way must not disturb the states either
    assert main([*command, "--out", str(whole), "--steps", "8"]) == 0
    assert main([*command, "--out", str(parts), "--steps", "3", "--eval-every", "1"]) == 0
    assert main([*command, "--out", str(parts), "--steps", "8", "--resume"]) == 0
    a, b = load(whole), load(parts)
    a.trainer["progress"].pop("evaluated_at"), b.trainer["progress"].pop("evaluated_at")
    assert_same_bits(a, b)
    if change is NEVER:
        assert set(a.carried["module"]) == {"m.S"}
        assert a.carried["module"]["m.S"].abs().sum() > 0


def test_another_optimizer_with_the_state_of_the_old_one(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "changed.nl"
    program.write_text(PROGRAM.read_text())
    command = ["train", str(program), "--data", str(text), "--out", str(tmp_path / "out"), *SMALL]
    assert main([*command, "--steps", "4"]) == 0
    program.write_text(PROGRAM.read_text().replace("Momentum(rate = 0.05, beta = 0.9)", "AdamW(rate = 0.05)"))
    assert main([*command, "--steps", "8", "--resume"]) == 1
    assert "error[NL0812]" in capsys.readouterr().err
    assert main([*command, "--steps", "8", "--resume", "--allow-changed-spec"]) == 1
    assert "error[NL0816]: the state of the optimizers" in capsys.readouterr().err


def bad_parameter(trainer: Trainer, name: str) -> None:
    with torch.no_grad():
        dict(trainer.module.named_parameters())[name].view(-1)[0] = float("nan")


def bad_gradient(trainer: Trainer, name: str) -> None:
    dict(trainer.module.named_parameters())[name].register_hook(  # type: ignore[no-untyped-call]
        lambda g: g * float("inf")
    )


def bad_state(trainer: Trainer, name: str) -> None:
    trainer.carried["states"][name][0, 0, 0] = float("inf")


@pytest.mark.parametrize(
    ("spoil", "name", "said"),
    [
        (bad_parameter, "table", "the parameter `table` of level `slow` is not finite: 1 of 2048 entries"),
        (bad_parameter, "head", "the parameter `head` of level `fast` is not finite: 1 of 2048 entries"),
        (bad_gradient, "table", "the gradient `table` of level `slow` is not finite"),
        (bad_gradient, "wq", "the gradient `wq` of level `fast` is not finite: 64 of 64 entries"),
        (bad_state, "m.S", "the state before the batch `m.S` of the memory `m` is not finite: 1 of 256 entries"),
    ],
)
def test_values_that_are_not_finite(
    tmp_path: Path, text: Path, spoil: Callable[[Trainer, str], None], name: str, said: str
) -> None:
    options = TrainOptions(tmp_path / "out", steps=5)
    run = RunSettings(Program(PROGRAM), options, (text,), batch=4, length=16, streaming=True)
    trainer = open_run(run)
    assert trainer.train_step()
    spoil(trainer, name)
    with pytest.raises(DiagnosticError) as error:
        trainer.train_step()
    assert said in error.value.diagnostics[0].message
    assert "at training step 2 " in error.value.diagnostics[0].message


def test_freeze(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, end = tmp_path / "start", tmp_path / "end"
    assert train(text, start, "--steps", "1", "--freeze", "slow,fast") == 1
    assert "nothing to train" in capsys.readouterr().err
    assert train(text, start, "--steps", "1", "--freeze", "slow") == 0
    assert train(text, end, "--steps", "7", "--freeze", "slow") == 0
    assert "level slow (frozen): 0 updates observed, 0 declared" in capsys.readouterr().out
    a, b = load(start).params, load(end).params
    assert torch.equal(a["table"], b["table"])
    assert not torch.equal(a["head"], b["head"])
    assert train(text, tmp_path / "x", "--freeze", "slwo") == 1
    said = capsys.readouterr().err
    assert "error[NL0820]: the program has no level `slwo`" in said
    assert "did you mean `slow`?" in said


def test_token_files_and_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = tmp_path / "ids.npy"
    np.save(ids, np.random.default_rng(0).integers(0, 300, 3000).astype(np.uint16))
    assert train(ids, tmp_path / "a", "--steps", "2") == 1
    said = capsys.readouterr().err
    assert "error[NL0804]: token id " in said
    assert "is outside the vocabulary of the program, 0 to 255" in said
    assert train(ids, tmp_path / "b", "--steps", "2", "--set", "vocab=300") == 0
    assert "held-out bits per token" in capsys.readouterr().out
    assert train(ids, tmp_path / "b", "--steps", "2", "--resume", "--set", "vocab=301") == 1
    assert "`vocab` was 300, now it is 301" in capsys.readouterr().err
    assert train(ids, tmp_path / "b", "--steps", "2", "--resume", "--set", "vocab=301", "--allow-changed-spec") == 1
    said = capsys.readouterr().err
    assert "error[NL0816]: " in said
    assert "different: `table` is [300, 8] float32 there, [301, 8] float32 in the program" in said
    assert main(["sample", str(tmp_path / "b")]) == 1
    assert "say `--ids`" in capsys.readouterr().err


UNTRAINED = """
memory M(d: dim = 2) {
  state S: [d] = 0
  step(x: [d]) -> [d] every token { S <- S + x; return S }
}
"""
NO_TOKENS = """
from "optimizers/sgd" import SGD
model A() {
  level step
  input x: [3]
  param w: [3] = ones
  minimize sum(w * x) at step with SGD(rate = 0.1)
}
"""


@pytest.mark.parametrize(
    ("program", "said"), [(UNTRAINED, "nothing to train"), (NO_TOKENS, "does not read one stream of tokens")]
)
def test_programs_that_cannot_be_trained(
    tmp_path: Path, text: Path, program: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.nl").write_text(program)
    assert main(["train", str(tmp_path / "p.nl"), "--data", str(text), "--out", str(tmp_path / "out")]) == 1
    found = capsys.readouterr().err
    assert "NL0806" in found
    assert said in found


@pytest.mark.parametrize(
    "more",
    [
        ["--batch", "0"],
        ["--holdout", "1.5"],
        ["--dtype", "float8"],
        ["--on-nonfinite", "pray"],
        ["--minutes", "-1"],
        ["--eval-data", "missing"],
        ["--resume"],
        ["--resume-from", "missing"],
    ],
)
def test_options_that_do_not_fit(
    tmp_path: Path, text: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(text, tmp_path / "out", *more) == 1
    found = capsys.readouterr().err
    assert "error[NL08" in found
    assert "Traceback" not in found


def test_usage(text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(PROGRAM), "stray"]) == 2
    assert main(["train", str(PROGRAM), "--data", str(text), "--set", "d"]) == 2
    assert main(["train", str(PROGRAM)]) == 1
    assert "no data was named" in capsys.readouterr().err


def test_tensorboard(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    assert train(text, tmp_path / "a", "--steps", "5", "--tensorboard") == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"levels/slow/update_norm", "memories/m/state_norm", "step/loss", "evaluation/bits_per_token"} <= set(tags)
    assert [e.step for e in events.Scalars("step/loss")] == [1, 5]
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert train(text, tmp_path / "b", "--steps", "5", "--tensorboard") == 1
    assert "nldsl-compiler[train]" in capsys.readouterr().err


def test_interrupted_from_outside(tmp_path: Path, text: Path, repository: Path) -> None:
    """Ctrl-C ends with 130 and a checkpoint; the same command with --resume ends where an unbroken run ends."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [sys.executable, "-m", "nldsl", "train", str(PROGRAM), "--data", str(text), "--threads", "1", *SMALL]
    child = subprocess.Popen(
        [*command, "--out", str(out), "--steps", "1000000"], cwd=repository, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not _has_step(out):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 130, error
    step = load(out).step
    assert step >= 1
    for where, more in ((out, ["--resume"]), (whole, [])):
        done = subprocess.run(
            [*command, "--out", str(where), "--steps", str(step + 5), *more],
            cwd=repository,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert_same_bits(load(out), load(whole))


def _has_step(out: Path) -> bool:
    log = out / "log.jsonl"
    return log.exists() and any(r["kind"] == "step" for r in read_log(log))


def test_samples_are_the_same_bytes(tmp_path: Path, text: Path, repository: Path) -> None:
    assert train(text, tmp_path / "out", "--steps", "3") == 0
    command = [sys.executable, "-m", "nldsl", "sample", str(tmp_path / "out"), "--prompt", "é", "--tokens", "30"]
    runs = [subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].startswith("é".encode())
    assert len(runs[0]) == 32


def test_step_by_step_and_whole_sequences_agree(tmp_path: Path, text: Path) -> None:
    """The bits that the evaluation reports are those with which decoding predicts the text."""
    from nldsl.train.session import compile_checkpoint

    assert train(text, tmp_path / "out", "--steps", "3", "--dtype", "float64") == 0
    module = compile_checkpoint(tmp_path / "out")
    tokens = torch.tensor([list(text.read_bytes()[:40])])
    with torch.no_grad():
        whole = float(module.loss(tokens)[0])
        state, total = module.init_state(1), 0.0
        for now, after in zip(tokens[0, :-1], tokens[0, 1:], strict=True):
            logits, state = module.step(now[None], state)
            total -= float(logits.log_softmax(-1)[0, after])
    assert total / 39 == pytest.approx(whole, abs=1e-12)


def test_the_log_is_strict_json(tmp_path: Path, text: Path) -> None:
    assert train(text, tmp_path / "out", "--steps", "2") == 0
    for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(word))
