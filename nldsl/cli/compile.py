"""`nldsl compile`: a program as one Python file, or one module of IREE, that runs without nldsl, and its parameters."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .backend_option import require_backend
from .output import note
from .settings import OPTION_HELP, parse_settings

if TYPE_CHECKING:
    from nldsl.ir.program import Program

__all__ = ["command"]


@click.command("compile")
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", required=True, metavar="OUT", help="Where to write the module: OUT.py or OUT.vmfb.")
@click.option("--entry", metavar="NAME", help="The model, block or memory to compile; by default the last one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help=OPTION_HELP)
@click.option("--backend", default="auto", show_default=True, help="Which backend writes the code.")
@require_backend
@click.option("--seed", default=0, show_default=True, help="Of the parameters' first values.")
@click.option("--target", default="llvm-cpu", show_default=True, help="Of OUT.vmfb: llvm-cpu or cuda.")
@click.option("--cpu", default="host", show_default=True, help="For which CPU: host, generic, x86-64-v3, ..")
@click.option("--gpu", default="sm_80", show_default=True, help="For which GPU.")
@click.option("--entries", default="", metavar="NAME,..", help="The functions of OUT.vmfb; by default all.")
@click.option("--batch", default=0, metavar="N", help="A fixed size of the batch of OUT.vmfb.")
@click.option("--ticks", default=0, metavar="N", help="A fixed number of ticks of a call of OUT.vmfb.")
def command(
    file: str,
    output: str,
    entry: str | None,
    settings: tuple[str, ...],
    backend: str,
    require_backend: bool,
    seed: int,
    target: str,
    cpu: str,
    gpu: str,
    entries: str,
    batch: int,
    ticks: int,
) -> int:
    """Compile a program to a module that does not need nldsl to run: OUT.py (PyTorch), or OUT.vmfb (--backend mlir).

    OUT.vmfb is one module of IREE for a CPU or a GPU; OUT.py beside it loads it with NumPy and iree-base-runtime alone.

    Next to it: OUT.safetensors with the first values of the parameters (OUT.params.json where safetensors is not
    installed), and OUT.json, which says what goes in and out. Each file is written whole or not at all.
    """
    from nldsl.train.disk import Disk, replace_file

    path = Path(output)
    if path.suffix == ".vmfb":
        if backend not in ("auto", "mlir"):
            raise click.UsageError(f"OUT.vmfb is written by the backend mlir, not {backend}")
        from .compile_module import Choices, write_module

        names = tuple(n.strip() for n in entries.split(",") if n.strip())
        choices = Choices(target, cpu, gpu, names, batch, ticks)
        write_module(file, path, entry, parse_settings(settings), seed, choices)
        return 0
    if path.suffix != ".py":
        raise click.UsageError(f"the module needs a name that ends in .py or .vmfb, not {output}")
    dims = parse_settings(settings)
    program, source, used = compiled(file, entry, dims, backend, require_backend)
    ending, values = parameters(program, seed)
    stored = path.with_suffix(ending)
    meta = description(program, file, dims, used, seed, source, stored.name)
    disk = Disk()
    written = [stored, path.with_suffix(".json"), path]
    for file_path, data in zip(written, (values, meta, source.encode()), strict=True):
        replace_file(disk, file_path, data)
        note(f"wrote {file_path}")
    return 0


def compiled(
    file: str, entry: str | None, dims: dict[str, Any], backend: str, required: bool = False
) -> tuple[Program, str, str]:
    """The program, the code of the backend, and the backend's name. ``required``: see ``--require-backend``."""
    from nldsl.backends.registry import BACKENDS, backend_named
    from nldsl.driver import Options, front, middle
    from nldsl.passes.plan import plan

    if backend != "auto" and backend not in BACKENDS:
        raise click.UsageError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
    options = Options(entry, tuple(sorted(dims.items())))
    program = middle(front(file, options), options)
    chosen = backend_named(backend, required)
    if not getattr(chosen, "standalone", True):
        raise click.UsageError(f"the code of the backend {chosen.name} needs nldsl to run; compile for torch instead")
    return program, chosen.emit(plan(program)), chosen.name


def parameters(program: Program, seed: int) -> tuple[str, bytes]:
    """The ending and the content of the file of first values, in float32 as modules begin."""
    import numpy as np

    from nldsl.extras import installed
    from nldsl.runtime.initialize import initialize

    values = {name: np.ascontiguousarray(x, dtype=np.float32) for name, x in initialize(program, seed).items()}
    if installed("safetensors"):
        from safetensors.numpy import save

        return ".safetensors", bytes(save(values))
    stored = {name: x.tolist() for name, x in values.items()}
    return ".params.json", (json.dumps(stored) + "\n").encode()


def description(
    program: Program, file: str, dims: dict[str, Any], backend: str, seed: int, source: str, values: str
) -> bytes:
    """What the module is: its origin, and the names and shapes of what goes in and out."""
    from nldsl import __version__

    said = {
        "program": program.name,
        "file": Path(file).name,
        "file_sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest(),
        "module_sha256": hashlib.sha256(source.encode()).hexdigest(),
        "nldsl": __version__,
        "backend": backend,
        "settings": dims,
        "seed": seed,
        "parameters_file": values,
        "inputs": {i.name: str(i.type) for i in program.inputs},
        "outputs": {name: str(program.body[value].type) for name, value in program.outputs},
        "losses": [name for name, _ in program.losses],
        "states": {s.name: str(s.type) for s in program.states},
        "parameters": {p.name: str(p.type) for p in program.params},
    }
    return (json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode()
