"""The random number generators of a process as data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["capture", "preserved", "restore", "seed_all"]


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture() -> dict[str, Any]:
    """Return the state of every generator."""
    version, words, gauss = random.getstate()
    state = np.random.get_state(legacy=True)
    assert isinstance(state, tuple)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(state[0]), [int(word) for word in state[1]], int(state[2]), int(state[3]), float(state[4])],
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
    }


@contextmanager
def preserved() -> Iterator[None]:
    """Leave every generator as it was found."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


def restore(state: Any) -> None:
    """Put every generator into a captured state; raises ValueError for anything else."""
    try:
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        name, key, position, has_gauss, cached = state["numpy"]
        np.random.set_state((name, np.array(key, dtype=np.uint32), position, has_gauss, cached))
        torch.set_rng_state(state["torch"])
        if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"not the state of the random number generators: {error}") from None
