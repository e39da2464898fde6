"""An emitted module with one tick in native code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nldsl.backends.mlir.native_step import NativeStep


@dataclass(frozen=True)
class WithStep:
    """The functions of ``emitted``, and ``tick``: see ``NativeStep``. Copies share both."""

    emitted: Any
    tick: NativeStep

    def __deepcopy__(self, memo: dict[int, Any]) -> WithStep:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.emitted, name)
