"""What a backend is, and what a backend gives that only has kernels for loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.ending import Endings
from nldsl.ir.program import Program
from nldsl.ir.schedule import RECOMPUTE_ABOVE, Schedule
from nldsl.ir.types import Type


class FallbackWarning(UserWarning):
    """What keeps the form of the torch backend."""


class Backend(Protocol):
    """Turns a schedule into code for a target."""

    @property
    def name(self) -> str: ...

    def emit(self, schedule: Schedule) -> str:
        """The code as text."""

    def load(self, source: str, schedule: Schedule) -> Any:
        """The functions of that code, as ``runtime/module.py`` calls them."""


@runtime_checkable
class Readable(Protocol):
    """A backend whose loops are code of another kind than its module: what ``nldsl emit`` shows."""

    def text(self, schedule: Schedule) -> str: ...


@runtime_checkable
class Kept(Protocol):
    """A backend whose modules are more than their source, and which a cache of programs can keep all the same: it says
    what else is to be known of a module, as JSON, and makes the module from that."""

    def depends(self) -> tuple[str, ...]:
        """What its code depends on besides the program and this package."""

    def begin(self, key: str) -> None:
        """What is emitted and loaded from now on is of the entry of that name."""

    def kept(self, loaded: Any) -> Any:
        """What is to be known of a module that ``load`` gave."""

    def load_kept(self, source: str, schedule: Schedule, kept: Any, planned: Callable[[], Schedule]) -> Any:
        """As ``load``. ``schedule`` has the program and ``loss_inputs`` alone, ``planned`` gives all of it. Raises
        KeyError, TypeError or ValueError for what ``kept`` did not give."""


@dataclass(frozen=True)
class LoopTensor:
    """A tensor that goes into the function of a loop, or comes out: its parameter name and its layout.

    The mapped axes of ``type`` come first, in the order batch, time, then as the program declares them, then the
    logical dims; ``time`` has all ticks of the call. ``kind`` and ``keys`` say what it is:

    state, anchor   ``keys`` is ((state, period),); an anchor has period > 0
    stream, other   ``keys`` are the leaves of the body that it is: ("given", value), ("param", name), ("state", name);
                    a stream has the axis ``time``
    output          ``keys`` is (("value", value),): a value of ``Program.body``

    ``low``: under autocast it may come in half precision. ``wide``: it is at least float32, whatever the module's type:
    a gate, see ``passes/precision.py``.
    """

    kind: str
    name: str
    type: Type
    keys: tuple[tuple[str, Any], ...]
    low: bool = False
    wide: bool = False


@dataclass(frozen=True)
class LoopCall:
    """The function of a loop, as the emitted module calls it.

        name(t, [T,] states.., anchors.., streams.., others..) -> states.., anchors.., outputs..

    ``t`` is the number of ticks before the call; ``T``, the number of ticks, is an argument only if there are no
    streams (``counts``). One result comes alone, several as a tuple. ``derived`` is the backward pass of the loop, if
    it has one: with it the function must be differentiable by autograd in all tensors of kind real. ``numbers`` are the
    leaves that are Python numbers: their text. A state keeps its dtype. Not ``last``: if this form of the loop is
    refused, another one is tried. ``initials``: for each state that is reset within the sequence a function that gives
    the value: the state, the name of the function, its arguments (the state as it is, for its sizes, then parameters of
    this call), its source. ``endings``: see ``ir/ending.py``; given the way back of ``keeping``, if that is used: one
    that reads values which the forward loop keeps, for calls that keep at most ``recompute_above`` bytes of them.
    ``plain``: the source of a module with the same function as the torch backend writes it, which autograd
    differentiates any number of times.
    """

    name: str
    program: Program
    phase: ChunkLoop
    derived: BackwardLoop | None
    arguments: tuple[LoopTensor, ...]
    results: tuple[LoopTensor, ...]
    numbers: tuple[tuple[tuple[str, Any], str], ...]
    counts: bool
    last: bool = True
    initials: tuple[tuple[str, str, tuple[str, ...], str], ...] = ()
    plain: Callable[[], str] | None = field(default=None, compare=False, repr=False)
    endings: Callable[[BackwardLoop | None], Endings] | None = field(default=None, compare=False, repr=False)
    keeping: Callable[[], BackwardLoop | None] | None = field(default=None, compare=False, repr=False)
    recompute_above: int = RECOMPUTE_ABOVE


@dataclass(frozen=True)
class LoopSource:
    """Python source of the function of a loop; ``imports`` (lines) and ``shared`` (definitions that several loops use)
    stand in the module once. ``packs``: the function has one more argument, ``cuts=()``: where sequences that lie in
    one row begin, and the end; the states have a row for each. ``ends``: the function has one more argument,
    ``ends=True``: whether the states after the call are wanted; without them they are given in their shapes alone."""

    source: str
    imports: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    packs: bool = False
    ends: bool = False


class LoopKernels(Protocol):
    """Gives loops over segments another form than the one a backend has for them."""

    def loop(self, call: LoopCall) -> LoopSource | None:
        """The function of a loop, or None: the backend writes it in its own form. What it refuses it says itself: by a
        remark, or by an error where the user has asked for this form."""
