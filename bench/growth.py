"""Whether time and memory grow as they should: linearly with the ticks of a sequence, and not with a token's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.sequences import Shape, Subject, data
from bench.timing import Clock, in_turn
from nldsl.bench.memory import peak_of

LENGTHS = (1024, 4096, 16384, 65536)


@dataclass(frozen=True)
class Growth:
    """``milliseconds`` (forward + backward, the best) and ``peak`` bytes at each of ``ticks``; ``decode``: microseconds
    per token after ``places`` tokens."""

    program: str
    ticks: tuple[int, ...]
    milliseconds: tuple[float, ...]
    peak: tuple[int, ...]
    places: tuple[int, ...]
    decode: tuple[float, ...]

    def off_line(self, values: Sequence[float]) -> float:
        """How far the longest is from the line through the origin and the second longest, as a fraction."""
        return values[-1] / (values[-2] * self.ticks[-1] / self.ticks[-2]) - 1

    def shown(self) -> str:
        """Two lines of text."""
        per = [f"{1e3 * m / t:.2f}" for m, t in zip(self.milliseconds, self.ticks, strict=True)]
        size = [f"{p / t / 1024:.1f}" for p, t in zip(self.peak, self.ticks, strict=True)]
        lines = [
            f"{self.program:22} us per tick {' '.join(per)} (last {100 * self.off_line(self.milliseconds):+.0f} %)"
        ]
        lines.append(f"{'':22} KiB per tick {' '.join(size)} (last {100 * self.off_line(self.peak):+.0f} %)")
        decoded = ", ".join(f"{d:.0f} us after {p}" for p, d in zip(self.places, self.decode, strict=True))
        return "\n".join([*lines, f"{'':22} one token: {decoded}"])


def growth(
    subject: Subject, backend: str, lengths: Sequence[int], places: Sequence[int], clock: Clock, width: int = 64
) -> Growth:
    """One head of one sequence."""
    module = subject.compile(Shape(1, 1, lengths[0], width), backend)
    times, peaks = [], []
    for ticks in lengths:
        streams = data(Shape(1, 1, ticks, width))
        leaves = [streams[n].requires_grad_() for n in subject.leaves.split()]
        forward = subject.run(module, streams)

        def both() -> None:
            for leaf in leaves:  # noqa: B023
                leaf.grad = None
            forward().sum().backward()  # type: ignore[no-untyped-call]  # noqa: B023

        times.append(in_turn([both], 4, 20, clock)[0].best)
        for leaf in leaves:
            leaf.grad = None
        peaks.append(peak_of(both))
    return Growth(
        subject.name,
        tuple(lengths),
        tuple(times),
        tuple(peaks),
        tuple(places),
        _decode(subject, module, places, clock, width),
    )


@torch.no_grad()
def _decode(subject: Subject, module: Any, places: Sequence[int], clock: Clock, width: int) -> tuple[float, ...]:
    """Microseconds per token after so many tokens, the best of 50. The tokens before are given in pieces of 4096."""
    found, state, done = [], module.init_state(1), 0
    given = subject.arguments(data(Shape(1, 1, 4096, width)))
    pieces = {n: x.flatten(0, 1) for n, x in given.items()}
    for place in places:
        while done < place:
            count = min(4096, place - done)
            _, state = module(**{n: x[:, :count] for n, x in pieces.items()}, state=state)
            done += count
        tick = {n: x[:, 0] for n, x in pieces.items()}
        best, own = float("inf"), state
        for _ in range(50):
            start = clock()
            _, own = module.step(**tick, state=own)
            best = min(best, clock() - start)
        found.append(1e6 * best)
    return tuple(found)
