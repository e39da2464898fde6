"""What passes can still derive while a backend lowers: a schedule brings it along, since backends import no pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nldsl.dims import Dim
from nldsl.ir.backward import BackwardLoop
from nldsl.ir.build import Builder
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.ending import Ending
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import Type

Body = tuple[Instr, ...]


@dataclass(frozen=True)
class Derivations:
    """``backward``: the way back through a loop over segments, if it has one. ``vjp``: the cotangents of values of a
    body from those of others. ``fitted``: a cotangent as one of a value of that type. ``simplify_body``: a body
    without what is superfluous, and the new numbers of its values. ``expanded``: a program without ``grad``.
    ``endings``: what the last segments of a loop still have to do where nobody reads the states after them; the second
    way back is one that reads kept values. ``keeping``: a way back that does, where that is worth it."""

    backward: Callable[[ChunkLoop, Program], BackwardLoop | None]
    vjp: Callable[[Builder, dict[int, int], Sequence[int], tuple[str, ...]], list[int | None]]
    fitted: Callable[[Builder, int, Type], int]
    simplify_body: Callable[[Body, Sequence[int], Sequence[str], dict[str, Dim]], tuple[Body, dict[int, int]]]
    expanded: Callable[[Program], Program]
    endings: Callable[[ChunkLoop, BackwardLoop | None, Program, BackwardLoop | None], tuple[Ending, ...]]
    keeping: Callable[[BackwardLoop, Program], BackwardLoop | None]
