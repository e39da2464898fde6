"""Sequences of different lengths in one call: right-padded rows, rows with holes, several sequences packed in a row.

Whatever the form, a call is a list of sequences, each a list of places in the inputs. The ticks of a sequence are its
places and nothing else: what is padded never writes, is never read, and no clock counts it; every sequence begins at
tick 1 (or goes on from its own state). The result equals a loop over the sequences.

Where nothing mixes sequences and the states after them are not asked for, those of similar lengths run as one batch,
padded by going round each sequence again: a tick never sees later ones, and no value occurs that the sequence does not
have. Otherwise the batch is cut at the end of every sequence, and goes on with the rows that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from nldsl.ir.program import Program
from nldsl.ir.schedule import anchor_key, anchors
from nldsl.ir.types import BATCH
from nldsl.runtime.inputs import InputError
from nldsl.runtime.state import State

Tensors = dict[str, torch.Tensor]
Run = Callable[[Tensors, State], tuple[Tensors, State]]


@dataclass(frozen=True)
class Ragged:
    """``places``: for each sequence its places in the inputs, as numbers ``row * time + tick``. ``cuts``: where packed
    sequences begin, and the end."""

    places: tuple[torch.Tensor, ...]
    rows: int
    time: int
    cuts: tuple[int, ...] = ()

    @property
    def lengths(self) -> list[int]:
        return [len(p) for p in self.places]

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def parts(self) -> list[Ragged]:
        """The same, sequences whose lengths differ by less than a factor of two together; empty ones left out."""
        found: dict[int, list[torch.Tensor]] = {}
        for places in self.places:
            if len(places):
                found.setdefault((len(places) - 1).bit_length(), []).append(places)
        return [Ragged(tuple(places), self.rows, self.time) for _, places in sorted(found.items())]

    def gather(self, stream: torch.Tensor) -> torch.Tensor:
        """[rows, time, ..] as [sequences, longest, ..]; shorter ones go round again. Empty ones take place 0."""
        index = torch.zeros(len(self.places), self.longest, dtype=torch.long, device=stream.device)
        for row, places in enumerate(self.places):
            if len(places):
                again = torch.arange(self.longest) % len(places)
                index[row] = places[again].to(stream.device)
        return stream.flatten(0, 1)[index]

    def scatter(self, stream: torch.Tensor, drop: int = 0) -> torch.Tensor:
        """[sequences, >= length - drop, ..] back to [rows, time, ..]: zero where there is no tick."""
        found = stream.new_zeros((self.rows * self.time, *stream.shape[2:]))
        parts = [s[: max(0, len(p) - drop)] for s, p in zip(stream, self.places, strict=True)]
        places = [p[: max(0, len(p) - drop)] for p in self.places]
        found = found.index_copy(0, torch.cat(places).to(stream.device), torch.cat(parts))
        return found.unflatten(0, (self.rows, self.time))  # type: ignore[no-untyped-call, no-any-return]


def ragged(
    rows: int,
    time: int,
    lengths: torch.Tensor | Sequence[int] | None,
    mask: torch.Tensor | None,
    cu_seqlens: torch.Tensor | Sequence[int] | None,
) -> Ragged:
    """The sequences of a call. Exactly one of the three is given.

    ``lengths``: [rows] integers, the ticks of each row that count, from the left. ``mask``: [rows, time], true where a
    place is a tick. ``cu_seqlens``: [sequences + 1] integers from 0 to ``time``: sequence i is places cu_seqlens[i] to
    cu_seqlens[i + 1] of the only row. Raises InputError.
    """
    if sum(given is not None for given in (lengths, mask, cu_seqlens)) != 1:
        raise InputError("give one of `lengths`, `mask` and `cu_seqlens`")
    if mask is not None:
        if tuple(mask.shape) != (rows, time):
            raise InputError(f"`mask` is [batch, time] = [{rows}, {time}], got {list(mask.shape)}")
        return Ragged(tuple(m.nonzero()[:, 0] + row * time for row, m in enumerate(mask.cpu().bool())), rows, time)
    given = lengths if lengths is not None else cu_seqlens
    assert given is not None
    numbers = [int(n) for n in (given.tolist() if isinstance(given, torch.Tensor) else given)]  # waits once
    if lengths is not None:
        if len(numbers) != rows or any(not 0 <= n <= time for n in numbers):
            raise InputError(f"`lengths` are {rows} numbers from 0 to {time}, got {numbers}")
        return Ragged(tuple(torch.arange(n) + row * time for row, n in enumerate(numbers)), rows, time)
    if rows != 1:
        raise InputError(f"packed sequences are in one row: with `cu_seqlens` the batch is 1, got {rows}")
    ordered = all(a <= b for a, b in pairwise(numbers))
    if len(numbers) < 2 or numbers[0] != 0 or numbers[-1] != time or not ordered:
        raise InputError(f"`cu_seqlens` goes up from 0 to {time}, got {numbers}")
    return Ragged(tuple(torch.arange(a, b) for a, b in pairwise(numbers)), rows, time, tuple(numbers))


def separable(program: Program) -> bool:
    """Whether no sequence sees another one, nor a state that outlives the call."""
    if any(s.shared or s.reset.kind == "never" for s in program.states):
        return False
    return not any(i.op == "batch_mean" or (i.op == "axis_sum" and i.attr("axis") == BATCH) for i in program.body)


def counts_ticks(program: Program) -> bool:
    """Whether the number of the tick matters: then only rows that are at the same tick can be one batch."""
    resets = any(s.reset.kind == "clock" for s in program.states)
    return resets or any(i.op in ("clock", "when", "anchor") for i in program.body)


def own_sequences(program: Program, inputs: Tensors) -> None:
    """Raises InputError for an input that all sequences of a batch share: it has no places of its own."""
    for declared in program.inputs:
        if declared.name in inputs and BATCH not in declared.type.axes:
            raise InputError(f"the input `{declared.name}` is one for all sequences: they cannot differ in length")


class Rows:
    """Takes states of several sequences apart, and puts states together."""

    def __init__(self, program: Program) -> None:
        self.program = program
        own = {s.name for s in program.states if BATCH in s.type.axes}
        self.batched = own | {anchor_key(s, p) for s, p in anchors(program) if s in own}

    def select(self, state: State, rows: Sequence[int]) -> State:
        """The state of some rows."""

        def taken(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[torch.tensor(list(rows), dtype=torch.long, device=tensor.device)]

        states = {n: taken(x) if n in self.batched else x for n, x in state.states.items()}
        return State(state.tick, states, {n: taken(x) for n, x in state.pending.items()})

    def stack(self, states: Sequence[State]) -> State:
        """One state for a batch of sequences. Raises InputError where they are at different ticks and that matters."""
        ticks = sorted({s.tick for s in states})
        if not states or (len(ticks) > 1 and counts_ticks(self.program)):
            raise InputError(
                f"`{self.program.name}` counts its ticks: sequences at ticks {', '.join(map(str, ticks))} are no batch"
            )
        if len({tuple(s.pending) for s in states}) > 1:
            raise InputError("some of the states wait for their next input, others do not")
        first = states[0]
        found = {
            n: torch.cat([s.states[n] for s in states]) if n in self.batched else x for n, x in first.states.items()
        }
        return State(ticks[0], found, {n: torch.cat([s.pending[n] for s in states]) for n in first.pending})

    def run(self, run: Run, inputs: Tensors, lengths: Sequence[int], start: State) -> tuple[Tensors, tuple[State, ...]]:
        """All sequences, cut where one of them ends: streams [sequences, longest, ..], and the state of each."""
        after: list[State | None] = [None] * len(lengths)
        active, state, at = list(range(len(lengths))), start, 0
        parts: dict[str, list[list[torch.Tensor]]] = {}
        for end in sorted(set(lengths)):
            if end > at:
                rows = {n: x[torch.tensor(active, device=x.device), at:end] for n, x in inputs.items()}
                streams, state = run(rows, state)
                for name, stream in streams.items():
                    pieces = parts.setdefault(name, [[] for _ in lengths])
                    for row, piece in zip(active, stream, strict=True):
                        pieces[row].append(piece)
                at = end
            done = [place for place, row in enumerate(active) if lengths[row] == end]
            for place in done:
                after[active[place]] = self.select(state, [place])
            left = [place for place in range(len(active)) if place not in done]
            if left:
                state = self.select(state, left)
            active = [active[place] for place in left]
        return {n: _padded(pieces, at) for n, pieces in parts.items()}, tuple(s for s in after if s is not None)


def _padded(pieces: list[list[torch.Tensor]], longest: int) -> torch.Tensor:
    """The pieces of each row one after the other, zeros behind them."""
    example = next(p[0] for p in pieces if p)
    rows = []
    for row in pieces:
        whole = torch.cat(row) if row else example[:0]
        rows.append(torch.cat([whole, whole.new_zeros((longest - len(whole), *whole.shape[1:]))]))
    return torch.stack(rows)
