"""`nldsl doctor`: what is installed, what is missing and how to get it, and whether the rest works."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from nldsl import __version__
from nldsl.extras import EXTRAS, installed, pip_line

__all__ = ["command"]

_BASE = ("click", "lark", "numpy", "rich", "sympy")
# Distribution names that differ from the module's.
_DISTRIBUTIONS = {
    "torch_mlir": "torch-mlir",
    "iree.compiler": "iree-base-compiler",
    "iree.runtime": "iree-base-runtime",
}
_WIDTH = 20

Check = tuple[str, Callable[[], str]]


@click.command("doctor")
def command() -> int:
    """Show what is installed, what is missing and how to get it, and whether the rest works.

    A missing extra is no fault; the exit code is 1 only if something that is installed fails.
    """
    _line("nldsl", f"{__version__} ({Path(__file__).resolve().parents[1]})")
    _line("python", f"{platform.python_version()} ({sys.executable})")
    _line("platform", f"{platform.platform()}, {os.cpu_count()} cores")
    click.echo("\npackages")
    for module in _BASE:
        _line(module, _version(module))
    for extra, modules in EXTRAS.items():
        _extra(extra, modules)
    click.echo("\ntools")
    _line("dot", shutil.which("dot") or "not found; pygraphviz's own Graphviz is used")
    click.echo("\nself test")
    # Every check runs, also after one that failed.
    results = [_passes(name, check) for name, check in _checks()]
    return int(not all(results))


def _extra(extra: str, modules: tuple[str, ...]) -> None:
    missing = [m for m in modules if not installed(m)]
    click.echo(f"\nextra {extra}: {'missing, ' + pip_line(extra) if missing else 'present'}")
    for module in modules:
        _line(module, "missing" if module in missing else _version(module))


def _checks() -> Iterator[Check]:
    yield "check a program", _check_program
    if installed("torch"):
        yield "torch", _torch
        yield "compile a program", _compile_program
    if installed("torch") and installed("triton"):
        yield "triton", _triton
    if installed("pygraphviz"):
        yield "draw a graph", _draw


def _passes(name: str, check: Callable[[], str]) -> bool:
    start = time.perf_counter()
    try:
        result = check()
    except Exception as error:  # noqa: BLE001  a doctor reports whatever the patient has
        _line(name, f"FAILED: {type(error).__name__}: {error}")
        return False
    _line(name, f"{result or 'ok'} ({time.perf_counter() - start:.2f} s)")
    return True


def _check_program() -> str:
    from nldsl.api import check_text

    from .new import starter

    found = check_text(starter(Path("doctor.nl")))
    if found:
        raise RuntimeError(f"{found[0].code}: {found[0].message}")
    return ""


def _torch() -> str:
    import torch

    devices = [f"cpu, {torch.get_num_threads()} threads"]
    devices += [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    left, right = torch.randn(8, 8), torch.randn(8, 8)
    if not torch.allclose(left @ right, (right.T @ left.T).T, atol=1e-5):
        raise RuntimeError("a matrix product is wrong")
    return "; ".join(devices)


def _triton() -> str:
    """For which GPU kernels are made here, and whether they run in the interpreter instead."""
    import torch
    import triton

    parts = [f"version {triton.__version__}"]
    for i in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(i)
        parts.append(f"cuda:{i} {torch.cuda.get_device_name(i)}, sm_{major}{minor}")
    if not torch.cuda.is_available():
        parts.append("no GPU")
    parts.append("kernels run in the interpreter" if triton.knobs.runtime.interpret else "interpreter off")
    return "; ".join(parts)


def _compile_program() -> str:
    import tempfile

    import nldsl

    from .new import starter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.nl"
        path.write_text(starter(path), encoding="utf-8")
        nldsl.compile(path, dk=4, dv=4)
    return ""


def _draw() -> str:
    import pygraphviz

    graph = pygraphviz.AGraph(directed=True)
    graph.add_edge("a", "b")
    if b"<svg" not in graph.draw(format="svg", prog="dot"):
        raise RuntimeError("Graphviz drew nothing")
    return ""


def _version(module: str) -> str:
    try:
        return version(_DISTRIBUTIONS.get(module, module))
    except PackageNotFoundError:
        return "version unknown" if installed(module) else "missing"


def _line(name: str, text: str) -> None:
    click.echo(f"  {name:<{_WIDTH}} {text}")
