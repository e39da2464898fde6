"""States that a loop holds side by side, put together and taken apart."""

from __future__ import annotations

from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import Held, Node
from nldsl.backends.iree.shapes import join, pick, spread
from nldsl.ir.backward import Key
from nldsl.ir.chunk import ChunkLoop


def gathered(low: Lower, loop: ChunkLoop, states: dict[Key, Held], key: Key) -> Node:
    """A state, or the states of a pack side by side."""
    pack = next((p for p in loop.packs if p.name == key[0]), None)
    if pack is None:
        return states[key]
    parts = []
    for state in pack.states:
        own = states[state, key[1]]
        lead = len(own.axes)
        parts.append(
            low.view(own, own.axes, (1, *own.shape), [*range(lead), *range(lead + 1, lead + 1 + len(own.shape))])
        )
    return spread(low, join(low, parts, 0), pack.axis)


def apart(low: Lower, loop: ChunkLoop, states: dict[Key, Held]) -> dict[Key, Held]:
    """The states of packs each by itself."""
    packs = {p.name: p for p in loop.packs}
    found: dict[Key, Held] = {}
    for (name, period), value in states.items():
        if name not in packs:
            found[name, period] = value
            continue
        for n, state in enumerate(packs[name].states):
            found[state, period] = pick(low, value, value.axes.index(packs[name].axis), n)
    return found
