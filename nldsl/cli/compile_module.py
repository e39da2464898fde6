"""`nldsl compile -o OUT.vmfb`: a program as one module of IREE, with its parameters and a loader."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .output import note

__all__ = ["Choices", "write_module"]


@dataclass(frozen=True)
class Choices:
    """What a user may choose about a module; sizes of 0 are known only when it runs."""

    target: str = "llvm-cpu"
    cpu: str = "host"
    gpu: str = "sm_80"
    entries: tuple[str, ...] = ()
    batch: int = 0
    ticks: int = 0


def write_module(
    file: str, output: Path, entry: str | None, dims: dict[str, Any], seed: int, choices: Choices
) -> list[Path]:
    """Write OUT.vmfb, OUT.json, OUT.py (the loader) and the parameters; each file whole or not at all."""
    from nldsl import __version__
    from nldsl.backends.iree.package import ALL, package, whole_module
    from nldsl.driver import Options, front, middle
    from nldsl.extras import require
    from nldsl.passes.plan import plan
    from nldsl.train.disk import Disk, replace_file

    from .compile import parameters

    unknown = sorted(set(choices.entries) - set(ALL))
    if unknown:
        raise click.UsageError(f"no function {unknown[0]!r}; there are {', '.join(ALL)}")
    require("iree.compiler", extra="mlir", why="to compile a module of IREE")
    options = Options(entry, tuple(sorted(dims.items())))
    program = middle(front(file, options), options)
    schedule = plan(program)
    made = whole_module(schedule, choices.entries, choices.batch, choices.ticks)
    ending, values = parameters(program, seed)
    stored = output.with_suffix(ending)
    more = {
        "file": Path(file).name,
        "file_sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(),
        "nldsl": __version__,
        "settings": dims,
        "seed": seed,
        "fixed": {axis: n for axis, n in (("batch", choices.batch), ("time", choices.ticks)) if n},
    }
    files = package(made, schedule, stored.name, more, choices.target, choices.cpu, choices.gpu)
    written = {stored: values, **{output.with_suffix(suffix): data for suffix, data in files.items()}}
    disk = Disk()
    for path, data in written.items():
        replace_file(disk, path, data)
        note(f"wrote {path}")
    return list(written)
