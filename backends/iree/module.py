"""A whole program as one MLIR module, and what its functions take and give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nldsl.backends.iree.entries import Entry, Slot, write_forward, write_init, write_step
from nldsl.backends.iree.gradient import initial_is_learned, write_backward, write_init_backward
from nldsl.backends.iree.legality import check
from nldsl.backends.iree.parts import settle
from nldsl.backends.iree.training import write_train
from nldsl.ir.schedule import Schedule
from nldsl.ir.types import BATCH, TIME

Writer = Callable[[Schedule, dict[str, int]], Entry]
WRITERS: dict[str, Writer] = {
    "init": write_init,
    "forward": lambda s, f: write_forward(s, f, losses=False),
    "loss": lambda s, f: write_forward(s, f, losses=True),
    "step": write_step,
    "peek": lambda s, f: write_step(s, f, peek=True),
    "backward": write_backward,
    "init_backward": write_init_backward,
    "train": write_train,
}
DIFFERENTIATED = frozenset(("backward", "train"))
NAME = "nldsl"  # of the module: functions are called nldsl.forward


@dataclass(frozen=True)
class Module:
    """``text``: MLIR; ``entries``: the arguments and results of each function, in order."""

    text: str
    entries: dict[str, tuple[tuple[Slot, ...], tuple[Slot, ...]]]

    def described(self) -> dict[str, Any]:
        return {
            name: {"takes": [s.described() for s in takes], "gives": [s.described() for s in gives]}
            for name, (takes, gives) in self.entries.items()
        }


def offered(schedule: Schedule) -> tuple[str, ...]:
    """The functions that a program can have, without those for training steps."""
    program = schedule.program
    found = ["init", "forward", "step"]
    if needs_next(schedule):
        found.append("peek")
    if program.losses:
        found.append("loss")
    found.append("backward")
    if initial_is_learned(schedule):
        found.append("init_backward")
    return tuple(found)


def needs_next(schedule: Schedule) -> bool:
    """Whether the states of a tick depend on the inputs of the next one."""
    ahead = {i.name for i in schedule.program.inputs if i.ahead} - set(schedule.loss_inputs)
    return any(i.op == "input" and i.attr("input") in ahead for i in schedule.program.body)


def module(schedule: Schedule, entries: Sequence[str] = (), batch: int = 0, ticks: int = 0) -> Module:
    """The module with these functions (all that are ``offered`` by default). ``batch`` and ``ticks`` fix these sizes;
    otherwise they are known when the module runs. Raises DiagnosticError for what has no form."""
    names = tuple(entries) or offered(schedule)
    check(schedule, any(n in DIFFERENTIATED for n in names))
    fixed = {axis: size for axis, size in ((BATCH, batch), (TIME, ticks)) if size}
    made = [WRITERS[name](schedule, fixed) for name in names]
    parts = settle([e.text for e in made])
    text = f"module @{NAME} {{\n" + "\n".join([*(e.write() for e in made), *parts.values()]) + "}\n"
    return Module(text, {e.name: (tuple(e.takes), tuple(e.gives)) for e in made})
