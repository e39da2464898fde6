"""The whole per-token IR: instructions, declarations, program. Immutable; see ``build.py`` to make one.

A program is the computation of one tick. ``body`` is in SSA form: instruction ``i`` defines value ``i`` from values
with smaller numbers. ``updates`` says which value each state has after the tick. ``init`` is a second body, without
inputs, that computes the initial values. An instruction with a ``guard`` is needed only at the ticks of that clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nldsl.dims import Dim
from nldsl.ir.types import Clock, Type
from nldsl.source import NO_SPAN, Span

Attrs = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Instr:
    """One operation of ``ops.py``. ``name`` is a hint from the program (for readable output), never meaning."""

    op: str
    args: tuple[int, ...]
    attrs: Attrs
    type: Type
    guard: Clock | None = None
    name: str = field(default="", compare=False)
    span: Span = field(default=NO_SPAN, compare=False, repr=False)

    def attr(self, key: str) -> Any:
        for name, value in self.attrs:
            if name == key:
                return value
        raise KeyError(key)


@dataclass(frozen=True)
class Axis:
    """A mapped axis; ``size`` is None for ``batch`` (known when the module runs)."""

    name: str
    size: Dim | None


@dataclass(frozen=True)
class InputDecl:
    """A stream with one value per tick. ``ahead`` is 1 for ``next(x)``: the value of stream ``source`` later by one."""

    name: str
    type: Type
    source: str = ""
    ahead: int = 0
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True)
class Initializer:
    """``kind``: constant(value) normal(std) uniform(low, high) identity(scale) values(nested tuple of numbers)."""

    kind: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ParamDecl:
    """A learned tensor. ``level``: the name of the outer level that trains it."""

    name: str
    type: Type
    initializer: Initializer
    level: str = ""
    owner: str = ""
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True)
class Reset:
    """``kind``: sequence | clock | never. For ``clock`` the reset happens after the ticks at which it fires."""

    kind: str = "sequence"
    clock: Clock | None = None


@dataclass(frozen=True)
class StateDecl:
    """``init`` is a value of ``Program.init``. ``hidden`` states (accumulators, delays) were added by the compiler."""

    name: str
    type: Type
    init: int
    reset: Reset = Reset()
    owner: str = ""
    shared: bool = False
    hidden: bool = False
    clock: Clock | None = None  # the clock on which it is assigned (None: every tick)
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True)
class Level:
    """``base`` is ``token`` or ``step``. ``optimizer`` maps the shape of a parameter to that memory's own program
    (see ``semantics``); it is None when the level has nothing to train by itself."""

    name: str
    base: str
    period: int
    optimizer: Any = field(default=None, compare=False, repr=False)
    optimizer_name: str = ""
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True)
class MemoryInfo:
    """An instance, for the level graph and for logs: where it is, what it is, which states and parameters it owns."""

    path: str
    template: str
    kind: str  # memory | block | model
    states: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    level: str = ""
    copies: Dim | None = None
    span: Span = field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True)
class Program:
    name: str
    axes: tuple[Axis, ...] = ()
    inputs: tuple[InputDecl, ...] = ()
    params: tuple[ParamDecl, ...] = ()
    states: tuple[StateDecl, ...] = ()
    body: tuple[Instr, ...] = ()
    updates: tuple[tuple[str, int], ...] = ()
    outputs: tuple[tuple[str, int], ...] = ()
    losses: tuple[tuple[str, int], ...] = ()  # (level name, value) of each ``minimize``
    probes: tuple[tuple[str, int], ...] = ()  # named values for logs: inner losses, gates, rates
    init: tuple[Instr, ...] = ()
    levels: tuple[Level, ...] = ()
    memories: tuple[MemoryInfo, ...] = ()

    def axis_names(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.axes)

    def axis_size(self, name: str) -> Dim | None:
        return next(a.size for a in self.axes if a.name == name)

    def state(self, name: str) -> StateDecl:
        return next(s for s in self.states if s.name == name)

    def param(self, name: str) -> ParamDecl:
        return next(p for p in self.params if p.name == name)
