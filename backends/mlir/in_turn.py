"""What is done to a block of results, as a loop over them: its code stands there once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from nldsl.backends.mlir.lane import Lane
from nldsl.backends.mlir.text import Ix, Val, at
from nldsl.backends.mlir.views import load, store

Place = dict[str, Ix]  # by label
Epilogue = Callable[[Place, Val, "tuple[str, int] | None"], None]
Looped = Callable[[list[Val], int, Callable[[Ix, Ix], Place], str], None]


def in_turn(lane: Lane, columns: list[tuple[Ix, int]], epilogue: Epilogue) -> Looped:
    """What takes the results of a block through memory of its own, one vector after the other. It may not be the memory
    of the target, whose old entries ``epilogue`` may need."""
    f = lane.f

    def write(values: list[Val], rows: int, cell: Callable[[Ix, Ix], Place], along: str) -> None:
        (first, width), count = columns[0], len(columns)
        step = max(width, 1)
        vec = (1, width) if width else None
        held = lane.scratch((rows, count * step))
        for n, value in enumerate(values):
            store(f, held, (Ix(n // count), Ix(n % count * step)), value, vec)
        with ExitStack() as stack:
            row = at(stack.enter_context(f.loop(f.index(0), f.index(rows), 1))) if rows > 1 else Ix()
            across = Ix()
            if count > 1:
                across = at(stack.enter_context(f.loop(f.index(0), f.index(count * step), step, "j")))
            result = load(f, held, (row, across), vec)
            epilogue(cell(row, first + across), result, (along, width) if width else None)

    return write
