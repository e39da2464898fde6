"""Import an emitted module: through the machinery of ``import``, from its source, without a file."""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import sys
from dataclasses import dataclass
from importlib.abc import InspectLoader
from types import ModuleType
from typing import Any


class SourceLoader(InspectLoader):
    """Gives the import system the source that this backend has emitted, and nothing else."""

    def __init__(self, source: str, path: str) -> None:
        self.source = source
        self.path = path

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.source, self.path)


@dataclass(frozen=True)
class Emitted:
    """An emitted module and its source; its functions are attributes. Copies share the module.

    ``loss_inputs`` may be missing in a call, which then gives no losses. ``needs_next``: the states of a tick depend on
    the inputs of the next one, and there is a ``peek``.
    """

    source: str
    module: ModuleType
    loss_inputs: tuple[str, ...] = ()
    needs_next: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Emitted:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.module, name)


def load(source: str, title: str = "program", loss_inputs: tuple[str, ...] = (), needs_next: bool = False) -> Emitted:
    """The functions of an emitted module. Tracebacks show its lines."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:32]
    name = f"nldsl_emitted_{title}_{digest}"
    path = f"{name}.py"
    if name in sys.modules:
        return Emitted(source, sys.modules[name], loss_inputs, needs_next)
    loader = SourceLoader(source, path)
    spec = importlib.util.spec_from_loader(name, loader, origin=path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # before the module runs: Triton reads the lines of a kernel where it is defined
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    loader.exec_module(module)
    sys.modules[name] = module  # torch.compile imports what it traces by name
    return Emitted(source, module, loss_inputs, needs_next)
