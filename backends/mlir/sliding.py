"""States that are windows: each tick drops their first rows and appends new ones.

    s <- slice(concat(s, x), rows of x ..)

``slides`` finds them in the body of a tick. Such a state needs not be copied at each tick: it is a view of a longer
buffer, the new rows are written behind it, and the state after the tick is a view that begins later. The rows of the
states before stay what they are, so that any of them may go on; what goes on from a state whose next rows are taken
already, or that is not a view of such a buffer, is copied into a buffer of its own first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nldsl.ir.program import Instr

LARGE = 1 << 13  # numbers of a window of a sequence for which copies take longer than a view
SPARE = 8  # a buffer has one row more for so many of the window, so that it is seldom copied


@dataclass(frozen=True)
class Slide:
    """The state ``name`` of ``kept`` rows: ``joined`` is it with the rows of ``added`` behind; ``room``: the rows of a
    buffer."""

    name: str
    kept: int
    rows: int
    added: int
    joined: int

    @property
    def room(self) -> int:
        return self.kept + self.rows * max(16, self.kept // (SPARE * self.rows))


def slides(body: Sequence[Instr], carry: Sequence[tuple[str, int]], sizes: Mapping[str, int]) -> list[Slide]:
    """The states of a tick that are large windows. ``sizes``: of the axes but the batch."""
    found: list[Slide] = []
    for name, value in carry:
        cut = body[value]
        if cut.op != "slice" or cut.attr("dim") != 0 or cut.guard is not None:
            continue
        joined = cut.args[0]
        both = body[joined]
        if both.op != "concat" or both.attr("dim") != 0 or len(both.args) != 2 or both.guard is not None:
            continue
        old, new = (body[a] for a in both.args)
        if old.op != "state" or old.attr("state") != name or old.type.kind != "real" or new.type.axes != old.type.axes:
            continue
        whole = [n for n in (*old.type.shape, new.type.shape[0]) if isinstance(n, int)]
        if len(whole) <= len(old.type.shape) or new.guard is not None:
            continue
        kept, rows = whole[0], whole[-1]
        numbers = math.prod(whole[:-1]) * math.prod(sizes.get(a, 1) for a in old.type.axes)
        fits = cut.attr("start") == rows and cut.attr("stop") == kept + rows
        if fits and numbers >= LARGE and all(both.args[1] != s.added for s in found):
            found.append(Slide(name, kept, rows, both.args[1], joined))
    return found


ROOM = "_nldsl_room"  # of a buffer: who has written the rows behind a state that begins at each row


def slid(state: Tensor, dim: int, rows: int, room: int) -> tuple[int, Tensor]:
    """The address at which a state begins that has room for ``rows`` rows behind it, and the state that begins so many
    rows later. ``dim``: the rows; ``room``: of a buffer."""
    kept = state.shape[dim]
    buffer = state._base
    start = -1 if buffer is None else _start(state, buffer, dim, rows)
    if buffer is None or start < 0:
        shape = (*state.shape[:dim], room, *state.shape[dim + 1 :])
        buffer, start = torch.empty(shape, dtype=state.dtype), 0
        buffer.narrow(dim, 0, kept).copy_(state)
        setattr(buffer, ROOM, {0: None})
    address = buffer.data_ptr() + start * buffer.stride(dim) * buffer.element_size()
    return address, buffer.narrow(dim, start + rows, kept)


def _start(state: Tensor, buffer: Tensor, dim: int, rows: int) -> int:
    """The row of a buffer at which a state begins that may grow there, or -1."""
    taken: dict[int, object] | None = getattr(buffer, ROOM, None)
    if taken is None or state.stride() != buffer.stride():
        return -1
    sizes, own = buffer.shape, state.shape
    if sizes[:dim] != own[:dim] or sizes[dim + 1 :] != own[dim + 1 :]:
        return -1
    start, rest = divmod(int(state.storage_offset()) - int(buffer.storage_offset()), buffer.stride(dim))
    if rest or start < 0 or start + own[dim] + rows > sizes[dim]:
        return -1
    mine = object()
    return start if taken.setdefault(start, mine) is mine else -1  # in one step: threads may share a state
