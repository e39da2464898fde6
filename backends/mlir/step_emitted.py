"""An emitted module whose loops and ticks are native, for one kind of device; under transforms the torch form of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd import forward_ad

from nldsl.backends.mlir.native_step import NativeStep, NoStep


class Written:
    """The module with no native code, made when it is first needed; copies share it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Any = None

    def __call__(self) -> Any:
        """Its functions."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


def transformed() -> bool:
    """Whether PyTorch does with each operation what native code has no rule for: a transform of ``torch.func``
    (``vmap``, ``grad``, ``jvp``, what is made of them), or derivatives in forward mode."""
    if torch.compiler.is_compiling():  # there a loop is an operation with a shape and a derivative
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


@dataclass(frozen=True)
class NativeModule:
    """The functions of ``emitted``, and ``tick``: see ``NativeStep``. Copies share both. ``devices``: where its tensors
    may be (on ``meta`` nothing runs). ``written``: the same program without native code, for transforms. ``waiting``:
    where the states of a tick wait for the next input, the states of a tick alone, and its outputs alone."""

    emitted: Any
    tick: NativeStep | NoStep | None
    written: Written | None = field(default=None, repr=False)
    devices: tuple[str, ...] = ("cpu", "meta")
    waiting: tuple[NativeStep | NoStep | None, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> NativeModule:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.emitted, name)

    def _form(self) -> Any:
        return self.written() if self.written is not None and transformed() else self.emitted

    def forward(self, *arguments: Any) -> Any:
        """All ticks of a call, see ``nldsl.runtime.module.Emitted``."""
        return self._form().forward(*arguments)

    def step(self, *arguments: Any) -> Any:
        """One tick, where ``tick`` has no form."""
        return self._form().step(*arguments)

    def peek(self, *arguments: Any) -> Any:
        """The outputs of a tick that waits for its next input."""
        return self._form().peek(*arguments)
