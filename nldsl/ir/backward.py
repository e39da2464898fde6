"""The way back through a ``ChunkLoop``: the same segments, from the last one to the first.

The forward loop keeps its inputs and the states (and anchors) at the beginning of each segment; the rest is computed
again, but for what ``loop.kept`` lists (nothing, unless a backend has asked for it: ``passes/keep.py``). For each
segment, from the last to the first:

1. where a state was reset after the last tick, the cotangent of the state and of its anchors is that of its initial
   value, and becomes zero;
2. ``body`` runs once. Its leaves are

       given, param, const, iota, clock   as in the loop; ``state``: of the states of other loops, which no tick changes
       boundary(state, period)            the state as it was at the beginning of the segment (period > 0: its anchor)
       cotangent(state, period)           the cotangent of the state (anchor) at the end of the segment: what is carried
       cotangent_of(value)                the cotangent of an output in this segment
       kept(value)                        where ``loop.kept`` has it: a value of the loop's body in this segment

   A pack of the loop is one state here too. ``when`` and guards are as in the loop;
3. the carried cotangents take the values of ``carry``; ``outputs`` (value of ``Program.body``, value here) are the
   segment's part of the cotangents of streams; ``sums`` are added up over all segments: cotangents of parameters, of
   given values without time and of states of other loops, each under its leaf (op, name or value). A sum over an axis
   in which all states are independent comes last;
4. where an anchor was taken at the first tick of the segment, its cotangent is added to that of the state and is zero
   then.

After all segments, ``initials`` lead from the summed cotangents of (1) to what the initial values were made of.

The stages are found as for the loop: PREPARE needs no carried cotangent, STEP leads from one to the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Instr

Key = tuple[str, int]  # state, period (0: the state itself)
Leaf = tuple[str, str | int]  # ("param", name) | ("given", value) | ("state", name)


@dataclass(frozen=True)
class InitialBackward:
    """Leaves of ``body``: param, const, iota, and ``cotangent(state, period=0)`` of the initial value of ``state``."""

    state: str
    body: tuple[Instr, ...]
    sums: tuple[tuple[Leaf, int], ...]


@dataclass(frozen=True)
class BackwardLoop:
    """``forward`` says which value of the loop's body a value of this body is computed again."""

    loop: ChunkLoop
    body: tuple[Instr, ...]
    carry: tuple[tuple[Key, int], ...]
    outputs: tuple[tuple[int, int], ...]
    sums: tuple[tuple[Leaf, int], ...]
    initials: tuple[InitialBackward, ...] = ()
    forward: tuple[tuple[int, int], ...] = ()  # value here, value of loop.body

    @property
    def boundaries(self) -> tuple[Key, ...]:
        """The states (packs) and anchors whose values at the beginning of each segment the body needs."""
        return tuple(dict.fromkeys((i.attr("state"), i.attr("period")) for i in self.body if i.op == "boundary"))
