"""Trains a model again and again, each time killed with SIGKILL at a random moment and resumed.

`python -m tests.integration.crash_runs DIR KILLS SEED [compiled]` prints one line of JSON. The model is the
hand-written one or a compiled program. Children are forked from a process that has imported torch but not used it, so
that a round costs milliseconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from nldsl.train.checkpoint import latest_complete, load
from nldsl.train.loop import TrainOptions
from tests.unit.train.fakes import make_trainer, write_text

STEPS = 40


def train(directory: Path, out: Path) -> None:
    """Go on from the last complete checkpoint to the last step."""
    torch.set_num_threads(1)
    options = TrainOptions(out, steps=STEPS, save_every=2, keep=2, log_every=5, eval_every=10, eval_tokens=64)
    if sys.argv[4:] == ["compiled"]:
        return train_compiled(directory, options)
    newest = latest_complete(out)
    found = load(newest) if newest is not None else None
    after = found.step if found else 0
    trainer = make_trainer(directory / "text.txt", options, streaming=True, log=True, resume_after=after)
    if found:
        trainer.resume(found)
    trainer.run()
    return None


def train_compiled(directory: Path, options: TrainOptions) -> None:
    """The same with a compiled program."""
    from nldsl.train.session import Program, RunSettings, open_run

    program = Program(Path(__file__).with_name("small.nl"))
    data = (directory / "text.txt",)
    resume = latest_complete(options.out) is not None
    run = RunSettings(program, options, data, batch=4, length=16, streaming=True, threads=1, resume=resume)
    open_run(run).run()


def forked(directory: Path, out: Path, kill_after: float | None) -> bool:
    """Train in a child; True if it was killed before it was done."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(directory, out)
            code = 0
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status) != 0:
        raise SystemExit("the training process failed")
    return False


def main() -> None:
    """Kill, resume, and say what was seen."""
    directory, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    write_text(directory / "text.txt")
    started = time.monotonic()
    forked(directory, directory / "unbroken", None)
    whole = time.monotonic() - started
    killed = 0
    runs: list[str] = []
    while killed < kills:
        out = directory / f"killed-{len(runs)}"
        runs.append(str(out))
        while True:
            limit = rng.uniform(0.0, whole) if killed < kills else None
            if not forked(directory, out, limit):
                break
            killed += 1
            newest = latest_complete(out)
            if newest is not None:
                load(newest)
    print(json.dumps({"killed": killed, "runs": runs, "unbroken": str(directory / "unbroken")}))


if __name__ == "__main__":
    main()
