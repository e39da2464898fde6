"""Where the values lie that a call keeps for its way back, beside the states at the beginning of segments.

They are one tensor of a call. Each run of segments of one length has its part of it, and in that part each value a
place for all segments of the run: [segments, batch, axes.., dims..], as long as these segments are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nldsl.backends.mlir.function import Argument

ALIGNED = 16  # numbers: a line of the cache in float32


@dataclass(frozen=True)
class KeptLayout:
    """``places``: for each run of a call where each value begins, and how many numbers it is; ``total``: of all."""

    places: tuple[dict[Argument, tuple[int, int]], ...]
    total: int

    def parts(self, run: int, room: torch.Tensor) -> dict[Argument, torch.Tensor]:
        """The tensors of a run."""
        return {argument: room.narrow(0, start, size) for argument, (start, size) in self.places[run].items()}


def kept_layout(
    kept: Sequence[Argument], plan: Sequence[tuple[int, int, int]], numbers: Callable[[Argument, int, int], int]
) -> KeptLayout:
    """``plan``: runs of (ticks, number of segments, form). ``numbers``: of a value in so many segments of some
    ticks."""
    places: list[dict[Argument, tuple[int, int]]] = []
    total = 0
    for ticks, segments, _ in plan:
        run: dict[Argument, tuple[int, int]] = {}
        for argument in kept:
            size = numbers(argument, segments, ticks)
            run[argument] = total, size
            total += -(-size // ALIGNED) * ALIGNED
        places.append(run)
    return KeptLayout(tuple(places), total)
