"""What the demo does by default: which model, which sizes, which budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nldsl.stdlib

__all__ = ["MODEL", "DemoSettings"]

MODEL = "models/hope.nl"

# Small enough to learn in minutes on two cores. Everything else is as the program says.
SIZES: dict[str, Any] = {"chunk": 64, "layers": 1}
# The reference interpreter walks through every scalar's derivative: sizes for comparing with it.
TINY: dict[str, Any] = {"vocab": 11, "d": 8, "heads": 2, "layers": 1, "hidden": 3, "cms_hidden": 6, "chunk": 4}


@dataclass(frozen=True)
class DemoSettings:
    """`minutes` is all the training there is; `frozen_share` of it is the second run, with the slow levels frozen."""

    out: Path = Path("out") / "demo"
    backend: str = "auto"
    minutes: float = 5.0
    frozen_share: float = 0.25
    threads: int = 2
    seed: int = 0
    batch: int = 8
    length: int = 256
    heldout_bytes: int = 1 << 16
    sample_bytes: int = 400
    prompt: str = "def "
    corpus: Path | None = None  # the standard library of this Python
    dims: tuple[tuple[str, Any], ...] = tuple(sorted(SIZES.items()))

    @property
    def program(self) -> Path:
        """The file of the model."""
        return Path(nldsl.stdlib.__file__).parent / MODEL

    @property
    def short_minutes(self) -> float:
        """The budget that both runs of the comparison get."""
        return self.minutes * self.frozen_share

    @property
    def long_minutes(self) -> float:
        """The budget of the main run; its first part is the comparison's."""
        return self.minutes - self.short_minutes
