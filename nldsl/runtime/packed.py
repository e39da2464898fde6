"""Sequences that lie in one row, for modules whose loops take them so: nothing is gathered.

``state["@cuts"]`` tells an emitted module where sequences begin, and the end; its states have a row for each. Those are
Python numbers: tables on the device are made once for the same numbers, and a call that gives them on the host never
waits for the device.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch

from nldsl.ir.program import Program
from nldsl.runtime.ragged import Ragged, Rows, separable
from nldsl.runtime.state import State

CUTS = "@cuts"


def runs_packed(program: Program, emitted: Any, form: Ragged) -> bool:
    """Whether a call goes to the module as it is: the inputs are one row, the loops take that, and no sequence needs
    another one or a tick that is not there yet."""
    return bool(form.cuts) and getattr(emitted, "PACKED", False) and not emitted.needs_next and separable(program)


def states_after(program: Program, start: State, states: dict[str, torch.Tensor], form: Ragged) -> tuple[State, ...]:
    """The state after each sequence, each for a batch of one."""
    rows = Rows(program)
    whole = State(start.tick, states)
    alone = [rows.select(whole, [n]) for n in range(len(form.lengths))]
    return tuple(State(s.tick + count, s.states) for s, count in zip(alone, form.lengths, strict=True))


@lru_cache(maxsize=16)
def followed(cuts: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """[1, time]: true but at the last tick of each sequence."""
    found = torch.ones(1, cuts[-1], dtype=torch.bool)
    found[0, [end - 1 for begin, end in pairwise(cuts) if begin < end]] = False
    return found.to(device)


def one_ahead(stream: torch.Tensor) -> torch.Tensor:
    """[1, time, ..] a tick earlier. What stands at the end of a sequence is of the next one, or its own: for places
    whose results do not count."""
    return torch.cat([stream[:, 1:], stream[:, -1:]], 1)


def at_places(streams: dict[str, torch.Tensor], counted: torch.Tensor) -> dict[str, torch.Tensor]:
    """Streams [1, time, ..] with zeros where ``counted`` is false."""
    return {n: torch.where(counted.reshape(*counted.shape, *[1] * (x.dim() - 2)), x, 0.0) for n, x in streams.items()}
