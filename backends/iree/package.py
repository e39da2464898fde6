"""A compiled module with what there is to say about it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from nldsl.backends.iree.compiler import compile_text
from nldsl.backends.iree.entries import Entry
from nldsl.backends.iree.features import features_of
from nldsl.backends.iree.module import Module, module, offered
from nldsl.backends.iree.training import can_train, write_start
from nldsl.ir.program import Program
from nldsl.ir.row_limits import row_limits
from nldsl.ir.schedule import Schedule
from nldsl.ir.types import BATCH, TIME


def chosen(schedule: Schedule, entries: Sequence[str]) -> tuple[str, ...]:
    """The functions of a module: all that the program has, or those asked for and what they need."""
    if not entries:
        names = list(offered(schedule))
        return tuple(names + (["train", "begin"] if can_train(schedule.program) else []))
    found = ["init", *entries] if "init" not in entries else list(entries)
    return tuple(dict.fromkeys([*found, *(["begin"] if "train" in entries else [])]))


def whole_module(schedule: Schedule, entries: Sequence[str] = (), batch: int = 0, ticks: int = 0) -> Module:
    """The MLIR of a program with these functions."""
    names = chosen(schedule, entries)
    made = module(schedule, [n for n in names if n != "begin"], batch, ticks)
    if "begin" not in names:
        return made
    start: Entry = write_start(schedule, {})
    text = made.text[: made.text.rstrip().rindex("}")] + start.write() + "}\n"
    return Module(text, {**made.entries, "begin": (tuple(start.takes), tuple(start.gives))})


def built(
    schedule: Schedule, names: Sequence[str], batch: int, ticks: int, target: str, cpu: str, gpu: str
) -> tuple[dict[str, Any], bytes]:
    """The module, and what there is to say about it. ``names``, ``batch`` and ``ticks`` as in ``whole_module``."""
    made = whole_module(schedule, names, batch, ticks)
    data = compile_text(made.text, target, cpu, gpu)
    program = schedule.program
    about = {
        "program": program.name,
        "module_sha256": hashlib.sha256(data).hexdigest(),
        "target": target,
        "processor": cpu if target == "llvm-cpu" else gpu,
        "features": features_of(cpu) if target == "llvm-cpu" else [],
        "entries": made.described(),
        "ahead": {i.name: i.source for i in program.inputs if i.ahead},
        "limits": limits(program),
        "fixed": {axis: size for axis, size in ((BATCH, batch), (TIME, ticks)) if size},
    }
    return about, data


def limits(program: Program) -> dict[str, int]:
    """How many values an input of whole numbers may have, where it picks rows: by the name of the input."""
    found = row_limits(program)
    sources = {i.name: i.source if i.ahead else i.name for i in program.inputs}
    return {name: found[source] for name, source in sources.items() if source in found}
