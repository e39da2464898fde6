"""Optional packages: imported where they are needed, and named with their pip line when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from .diagnostics.diagnostic import Diagnostic, DiagnosticError
from .source import NO_SPAN

__all__ = ["EXTRAS", "installed", "pip_line", "require"]

# Extra -> the modules it brings, in the order `doctor` lists them. Tests compare it with pyproject.toml.
EXTRAS: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "safetensors"),
    "train": ("torch", "safetensors", "tensorboard"),
    "viz": ("graphviz", "pygraphviz"),
    "triton": ("torch", "triton"),
    "mlir": ("torch", "torch_mlir", "iree.compiler", "iree.runtime"),
}


def require(module: str, extra: str, why: str = "") -> ModuleType:
    """Import an optional module, or tell the user which extra brings it.

    `why` finishes the sentence "`module` is needed ...": `to train a model`.
    """
    assert extra in EXTRAS, extra
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DiagnosticError(_missing(module, extra, why, error)) from error


def installed(module: str) -> bool:
    """Whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def pip_line(extra: str) -> str:
    """Return the command that installs an extra."""
    return f'pip install "nldsl-compiler[{extra}]"'


def _missing(module: str, extra: str, why: str, error: ImportError) -> Diagnostic:
    needed = (f"it is needed {why}",) if why else ()
    top = module.split(".")[0]
    if isinstance(error, ModuleNotFoundError) and (error.name or top).split(".")[0] == top:
        message = f"the package `{top}` is not installed"
        return Diagnostic("NL0790", message, NO_SPAN, notes=needed, hints=(f"install it: {pip_line(extra)}",))
    message = f"the package `{top}` is installed but cannot be imported"
    hints = (f"install it again: {pip_line(extra)}", "`nldsl doctor` shows what works here")
    return Diagnostic("NL0791", message, NO_SPAN, notes=(*needed, str(error)), hints=hints)
