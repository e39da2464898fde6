"""Which tokens make the next batch. A sampler's whole state is a cursor: batch `n` is a pure function of `n`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nldsl.train.data import TokenStream
from nldsl.train.errors import problem

__all__ = ["Batch", "Sampler", "evaluation_batches"]


@dataclass(frozen=True)
class Batch:
    """`tokens` is `[batch, length + 1]`; `continues` says that each row goes on where it ended in the last batch."""

    tokens: torch.Tensor
    continues: bool = False


class Sampler:
    """Batches of a stream: random windows, or (`streaming`) consecutive segments in `batch` parallel lanes."""

    def __init__(self, stream: TokenStream, *, batch: int, length: int, seed: int = 0, streaming: bool = False) -> None:
        lanes = batch if streaming else 1
        if stream.size // lanes < length + 1:
            said = f"{lanes} lanes of {length + 1} tokens" if streaming else f"one window of {length + 1} tokens"
            raise problem(
                "NL0803",
                f"the training data has {stream.size} tokens, too few for {said}",
                hints=("use more data, a smaller `--length`, or a smaller `--batch`",),
            )
        self.stream = stream
        self.batch = batch
        self.length = length
        self.seed = seed
        self.streaming = streaming
        self.cursor = 0

    @property
    def batches_per_epoch(self) -> int:
        """How many batches pass over the data once (on average, for random windows)."""
        return max(1, (self.stream.size // self.batch - 1) // self.length)

    def next(self) -> Batch:
        """Return the next batch and move on."""
        starts = self._starts()
        continues = self.streaming and self.cursor % self.batches_per_epoch != 0
        rows = [self.stream.read(int(start), self.length + 1) for start in starts]
        self.cursor += 1
        return Batch(torch.from_numpy(np.stack(rows)), continues)

    def _starts(self) -> list[int]:
        if not self.streaming:
            # A generator per batch: any batch can be drawn again without drawing those before it.
            generator = np.random.default_rng((self.seed, self.cursor))
            found: list[int] = generator.integers(0, self.stream.size - self.length, size=self.batch).tolist()
            return found
        lane = self.stream.size // self.batch
        inside = (self.cursor % self.batches_per_epoch) * self.length
        return [lane * row + inside for row in range(self.batch)]

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor and what it means."""
        return {**self._identity(), "cursor": self.cursor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved cursor; the sampler must draw from the same data in the same way."""
        said = {"batch": "--batch", "length": "--length", "seed": "--seed", "streaming": "--stream"}
        for key, here in self._identity().items():
            if state.get(key) != here:
                raise problem(
                    "NL0815",
                    "the checkpoint was written with other data"
                    if key not in said
                    else f"the checkpoint was written with `{said[key]}` {state.get(key)}, now it is {here}",
                    notes=(f"{key} then: {state.get(key)}; now: {here}",),
                    hints=("resume with the same data and options, or start a new run in another `--out`",),
                )
        self.cursor = int(state["cursor"])

    def _identity(self) -> dict[str, Any]:
        return {
            "size": self.stream.size,
            "batch": self.batch,
            "length": self.length,
            "seed": self.seed,
            "streaming": self.streaming,
        }


def evaluation_batches(stream: TokenStream, *, batch: int, length: int, limit: int = 0) -> Iterator[torch.Tensor]:
    """Cut the first `limit` tokens (0: all) into windows that predict each token but the first exactly once."""
    size = min(stream.size, limit + 1) if limit else stream.size
    windows = (size - 1) // length
    for first in range(0, windows, batch):
        rows = [stream.read(row * length, length + 1) for row in range(first, min(first + batch, windows))]
        yield torch.from_numpy(np.stack(rows))
    rest = (size - 1) - windows * length
    if rest > 0:
        yield torch.from_numpy(stream.read(windows * length, rest + 1)[None])
