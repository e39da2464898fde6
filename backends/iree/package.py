"""A compiled module with what is needed to run it: a description, and the loader as a file of its own."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nldsl.backends.iree import loader
from nldsl.backends.iree.compiler import compile_text
from nldsl.backends.iree.entries import Entry
from nldsl.backends.iree.module import Module, module, offered
from nldsl.backends.iree.training import can_train, write_start
from nldsl.ir.schedule import Schedule
from nldsl.ir.types import BATCH, TIME

ALL = ("init", "forward", "step", "peek", "loss", "backward", "init_backward", "train", "begin")


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


def package(
    made: Module, schedule: Schedule, parameters_file: str, more: Mapping[str, Any], target: str, cpu: str, gpu: str
) -> dict[str, bytes]:
    """By the ending of their names: the module, its description, the loader."""
    data = compile_text(made.text, target, cpu, gpu)
    program = schedule.program
    sizes = {a: n for a in (BATCH, TIME) for n in [more.get("fixed", {}).get(a)] if n}
    said = {
        **more,
        "program": program.name,
        "module_sha256": hashlib.sha256(data).hexdigest(),
        "target": target,
        "processor": cpu if target == "llvm-cpu" else gpu,
        "parameters_file": parameters_file,
        "entries": made.described(),
        "ahead": {i.name: i.source for i in program.inputs if i.ahead},
        "limits": limits(schedule),
        "fixed": sizes,
    }
    about = (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()
    return {".vmfb": data, ".json": about, ".py": inspect.getsource(loader).encode()}


def limits(schedule: Schedule) -> dict[str, int]:
    """How many values an input of whole numbers may have, where it picks rows."""
    program, found = schedule.program, dict[str, int]()
    for instr in program.body:
        if instr.op not in ("take", "one_hot", "scatter_add"):
            continue
        index = program.body[instr.args[-1]]
        rows = program.body[instr.args[0]].type.shape[0] if instr.op == "take" else instr.attr("n")
        if index.op == "input" and isinstance(rows, int):
            name = index.attr("input")
            found[name] = min(rows, found.get(name, rows))
    for declared in program.inputs:
        if declared.ahead and declared.source in found:
            found.setdefault(declared.name, found[declared.source])
    return found
