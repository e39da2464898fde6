"""The functions that a loop can have: their names, and how they are written from its bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nldsl.backends.mlir.engine import vector_bytes
from nldsl.backends.mlir.function import Kernel, UnsupportedError
from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program

FORWARD, BACKWARD, REPLAY = "forward", "backward", "replay"
KEEPING = " keeping"
ENDING = " ending "


@dataclass(frozen=True)
class Forms:
    """A loop and its way back. ``keeping``: the way back that reads values which its ``loop``, of the same segments,
    keeps."""

    loop: ChunkLoop
    backward: BackwardLoop | None
    keeping: BackwardLoop | None = None


class Bodies:
    """The forms of a loop. A program from the cache has them made when a function is wanted that it does not have."""

    def __init__(self, make: Callable[[], Forms]) -> None:
        self._make = make
        self._made: Forms | None = None

    def __call__(self) -> Forms:
        if self._made is None:
            self._made = self._make()
        return self._made


def named(way: str, ending: int = -1, keeps: bool = False) -> str:
    """The name of a function: of a whole segment (-1), or of an ending; one that ``keeps`` values for the way back, or
    that reads them."""
    form = f"{way}{KEEPING}" if keeps else way
    return form if ending < 0 else f"{form}{ENDING}{ending}"


def write_function(forms: Forms, program: Program, name: str, ticks: int, real: str, rows: int) -> Kernel:
    """The function of a segment of some ticks; raises UnsupportedError. A tick by tick loop keeps no boundaries: its
    ticks run once more, by a function that leaves out the streams and keeps them."""
    from nldsl.backends.mlir.kernel import KernelWriter

    lanes = vector_bytes() // (4 if real == "f32" else 8)
    loop, backward = forms.loop, forms.backward
    way = name.removesuffix(KEEPING)
    if way != name:
        assert forms.keeping is not None
        loop, backward = forms.keeping.loop, forms.keeping
    if way == BACKWARD:
        assert backward is not None
        return KernelWriter(backward, program, ticks, real, lanes, (), rows=rows).write()
    again = way == REPLAY
    saved = backward.boundaries if backward is not None and (again or loop.size > 1) else ()
    loop = replace(loop, outputs=()) if again else loop
    return KernelWriter(loop, program, ticks, real, lanes, saved, rows=rows).write()


def fitting(kernel: Kernel, usual: Kernel) -> Kernel:
    """A function of an ending whose lanes and tensors are those of the usual one, or some of them; else it raises
    UnsupportedError."""
    same = (kernel.axes, kernel.batched, kernel.rows) == (usual.axes, usual.batched, usual.rows)
    if not same or not {*kernel.arguments} <= {*usual.arguments}:
        raise UnsupportedError("an ending has other tensors than a whole segment")
    if {a for a in usual.arguments if a.kind == "output"} - {*kernel.arguments}:
        raise UnsupportedError("an ending leaves out a stream")
    return kernel
