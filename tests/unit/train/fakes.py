"""A small recurrent byte model and its optimizers, written by hand, with the interface of a compiled program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nldsl.ir.program import Initializer, Level, ParamDecl, Program, StateDecl
from nldsl.ir.types import Type
from nldsl.runtime.state import State
from nldsl.train import rng
from nldsl.train.checkpoint import Spec
from nldsl.train.data import open_data
from nldsl.train.logs import JsonlLog, Logs
from nldsl.train.loop import Trainer, TrainOptions
from nldsl.train.sampler import Sampler

PERIODS = {"step": 1, "slow": 3}
SPEC = Spec("model Fake() { level slow = every 3 step }\n", "Fake", (("d", 8),))


class FakeModule(torch.nn.Module):
    """x_t = E[token]; h_t = 0.9 h + W x; logits = h V. The table `E` belongs to the slow level."""

    def __init__(self, vocab: int = 256, d: int = 8, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(torch.randn(vocab, d, generator=generator) * 0.1)
        self.mix = torch.nn.Parameter(torch.randn(d, d, generator=generator) * 0.3)
        self.head = torch.nn.Parameter(torch.randn(d, vocab, generator=generator) * 0.1)
        self.poison = ""  # the next loss turns out bad in this way
        levels = {"table": "slow", "mix": "step", "head": "step"}
        self._program = Program(
            name="Fake",
            params=tuple(
                ParamDecl(n, Type(tuple(p.shape)), Initializer("normal"), levels[n]) for n, p in self.named_parameters()
            ),
            states=(StateDecl("h", Type((d,)), 0, owner="cell"),),
            levels=tuple(Level(n, "step", p) for n, p in PERIODS.items()),
        )

    @property
    def program(self) -> Program:
        return self._program

    def init_state(self, batch_size: int = 1) -> State:
        return State(0, {"h": self.mix.new_zeros(batch_size, self.mix.shape[0])})

    def carried_state(self) -> dict[str, torch.Tensor]:
        return {}

    def set_carried_state(self, states: Mapping[str, torch.Tensor]) -> None:
        assert not states

    def step(self, x: torch.Tensor, state: Mapping[str, Any]) -> tuple[torch.Tensor, State]:
        h = 0.9 * state["states"]["h"] + self.table[x] @ self.mix
        return h @ self.head, State(state["tick"] + 1, {"h": h})

    def forward(self, x: torch.Tensor, state: Any = None) -> Any:
        now = self.init_state(x.shape[0]) if state is None else state
        out = []
        for t in range(x.shape[1]):
            y, now = self.step(x[:, t], now)
            out.append(y)
        stacked = torch.stack(out, 1)
        return stacked if state is None else (stacked, now)

    def loss(self, tokens: torch.Tensor, *, state: Any = None) -> tuple[torch.Tensor, dict[str, Any]]:
        logits, after = self(tokens[:, :-1], self.init_state(tokens.shape[0]) if state is None else state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss = loss + 0.0 * torch.rand(())  # uses a random number: the generator must be part of a checkpoint
        gate = torch.sigmoid(logits[..., 0])
        if self.poison == "loss":
            loss = loss * float("nan")
        if self.poison == "probe":
            gate = gate / 0.0
        if self.poison == "state":
            after.states["h"] = after.states["h"] + float("inf")
        if self.poison == "gradient":
            loss = loss + (self.mix[0, 0] * 0.0).sqrt()  # 0 with the derivative 0 * inf
        if self.poison in ("loss", "probe", "state", "gradient"):
            self.poison = ""
        info = {"losses": {"step": loss}, "probes": {"cell.gate": gate}, "state": after}
        return loss, info


class FakeOptimizers:
    """Momentum on each level, with noise in it; gradients are summed between the ticks of the slow level."""

    def __init__(self, module: FakeModule, rate: float = 0.1) -> None:
        self.rate = rate
        self.steps = 0
        self.groups = {
            level: {d.name: module.get_parameter(d.name) for d in module.program.params if d.level == level}
            for level in PERIODS
        }
        self.moments = {n: torch.zeros_like(p) for g in self.groups.values() for n, p in g.items()}
        self.sums = {n: torch.zeros_like(p) for g in self.groups.values() for n, p in g.items()}
        self.cadence = dict.fromkeys(PERIODS, 0)

    def step(self) -> None:
        self.steps += 1
        with torch.no_grad():
            for level, group in self.groups.items():
                for name, p in group.items():
                    if p.grad is not None:
                        self.sums[name] += p.grad
                if self.steps % PERIODS[level]:
                    continue
                self.cadence[level] += 1
                for name, p in group.items():
                    if not p.requires_grad:
                        continue
                    self.moments[name].mul_(0.9).add_(self.sums[name])
                    p.sub_(self.rate * self.moments[name] + 1e-6 * torch.randn(p.shape))
                    self.sums[name].zero_()

    def zero_grad(self) -> None:
        for group in self.groups.values():
            for p in group.values():
                p.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self.steps,
            "cadence": dict(self.cadence),
            "moments": {n: t.clone() for n, t in self.moments.items()},
            "sums": {n: t.clone() for n, t in self.sums.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.cadence.update(state["cadence"])
        for name in self.moments:
            self.moments[name].copy_(state["moments"][name])
            self.sums[name].copy_(state["sums"][name])


def write_text(path: Path, size: int = 6000) -> Path:
    """Write text that can be learned: lines of a small grammar."""
    random = np.random.default_rng(7)
    words = ["def", "return", "self", "x", "y", "(", ")", ":", "import", "\n"]
    text = " ".join(words[i] for i in random.integers(0, len(words), size))
    path.write_text(text[:size])
    return path


def make_trainer(
    data: Path, options: TrainOptions, *, streaming: bool = False, log: bool = False, resume_after: int | None = None
) -> Trainer:
    """Return a trainer that is the same every time."""
    rng.seed_all(11)
    module = FakeModule()
    train, heldout = open_data([data], fraction=0.1)
    sampler = Sampler(train, batch=4, length=16, seed=3, streaming=streaming)
    logs = Logs()
    if log:
        options.out.mkdir(parents=True, exist_ok=True)
        logs = Logs((JsonlLog(options.out, resume_after=resume_after),))
    return Trainer(module, FakeOptimizers(module), sampler, heldout, SPEC, options, logs)
