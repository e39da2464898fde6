"""Pointwise work of all ticks as one loop without states: what a backend with native loops does in one pass.

    Parallel(values)  -->  Parallel(..), Fused(values, loop), Parallel(..), ..

A ``Fused`` is the ``Parallel`` of its values: whoever does not know it, or has no form for ``loop``, computes them as
such. ``loop`` gives those that something else needs; ``derived`` takes their cotangents back and computes the rest
again, so that nothing in between is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.schedule import Parallel


@dataclass(frozen=True)
class Fused(Parallel):
    """``loop``: a loop over segments without states."""

    loop: ChunkLoop
    derived: BackwardLoop
