"""An emitted module with one tick in native code, for one kind of device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.backends.mlir.native_step import NativeStep, NoStep


@dataclass(frozen=True)
class NativeModule:
    """The functions of ``emitted``, and ``tick``: see ``NativeStep``. Copies share both. ``devices``: where its tensors
    may be (on ``meta`` nothing runs)."""

    emitted: Any
    tick: NativeStep | NoStep | None
    devices: tuple[str, ...] = ("cpu", "meta")

    def __deepcopy__(self, memo: dict[int, Any]) -> NativeModule:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.emitted, name)
