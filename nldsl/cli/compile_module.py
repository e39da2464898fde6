"""`nldsl compile -o OUT.vmfb`: a program as one module of IREE, with its parameters and a loader."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import note

if TYPE_CHECKING:
    from nldsl.driver import Options
    from nldsl.ir.program import Program

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
    from nldsl.backends.iree.files import ALL, files
    from nldsl.driver import Options, front
    from nldsl.train.disk import Disk, replace_file

    from .compile import parameters

    unknown = sorted(set(choices.entries) - set(ALL))
    if unknown:
        raise click.UsageError(f"no function {unknown[0]!r}; there are {', '.join(ALL)}")
    options = Options(entry, tuple(sorted(dims.items())))
    checked = front(file, options)
    about, data = _module(checked, options, choices)
    ending, values = parameters(checked, seed)
    stored = output.with_suffix(ending)
    more = {
        "file": Path(file).name,
        "file_sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(),
        "nldsl": __version__,
        "settings": dims,
        "seed": seed,
        "parameters_file": stored.name,
    }
    made = files({**more, **about}, data)
    written = {stored: values, **{output.with_suffix(suffix): part for suffix, part in made.items()}}
    disk = Disk()
    for path, content in written.items():
        replace_file(disk, path, content)
        note(f"wrote {path}")
    return list(written)


def _module(checked: Program, options: Options, choices: Choices) -> tuple[dict[str, Any], bytes]:
    """The module of a checked program and what there is to say about it, from the store where it has been compiled."""
    from nldsl.backends.iree.compiler import options_of
    from nldsl.runtime import module_store

    target, cpu, gpu = choices.target, choices.cpu, choices.gpu
    sizes = (f"batch {choices.batch}", f"ticks {choices.ticks}")
    named = ("target " + target, *options_of(target, cpu, gpu), *sizes, *choices.entries)
    key = module_store.module_key(checked, named, target == "llvm-cpu" and cpu == "host")
    found = module_store.read(key)
    if found is None:  # only now is what compiles needed
        from nldsl.backends.iree.package import built
        from nldsl.driver import middle
        from nldsl.extras import require
        from nldsl.passes.plan import plan

        require("iree.compiler", extra="mlir", why="to compile a module of IREE")
        schedule = plan(middle(checked, options))
        found = built(schedule, choices.entries, choices.batch, choices.ticks, target, cpu, gpu)
        module_store.write(key, *found)
    return found
