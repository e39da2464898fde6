"""The loop structure of a program over many ticks: what is computed for all ticks at once, and what in a loop.

A ``Schedule`` is a list of phases in the order in which they run. Each phase makes the values it lists available to
later ones, for all ticks of the call, that is with the mapped axis ``time``. Values are those of ``Program.body``.

Leaves need no phase: a ``param``, a ``const`` and the ``state`` of a state that no tick changes are the same at all
ticks, an ``input`` is a stream. ``clock`` and ``iota`` are listed like any other value.

``Phase`` is an open set: a pass may replace a phase by one of its own, and a backend dispatches on the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from nldsl.ir.demand import reachable, roots
from nldsl.ir.program import Program

RECOMPUTE_ABOVE = 256 * 2**20  # bytes


@dataclass(frozen=True)
class Phase:
    """Some work over all ticks of a call."""


@dataclass(frozen=True)
class Parallel(Phase):
    """Values that depend on no tick before their own; computed with ``time`` as one more mapped axis.

    Guards do not matter here: a guarded value is computed at every tick, and ``when`` selects.
    """

    values: tuple[int, ...]


@dataclass(frozen=True)
class Delay(Phase):
    """A state that is the value of the tick before: its stream is that of ``value``, moved by one tick."""

    state: str
    value: int


@dataclass(frozen=True)
class Scan(Phase):
    """A loop over the ticks for states that depend on their own past.

    ``values`` are computed in each round, in this order; ``exports`` (some of them, or of the states as read at the
    beginning of the tick) are kept for all ticks. Anchors and resets of the states belong to the loop.
    """

    states: tuple[str, ...]
    values: tuple[int, ...]
    exports: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """``phases`` give the outputs and the new states. ``loss_phases`` follow them where all of ``loss_inputs`` (the
    inputs that nothing else needs: targets, the next token) are given, and complete the losses and probes. ``late`` are
    the values that only they need. ``backwards`` are the derived backward passes of those loops that have one (of class
    ``ir.backward.BackwardLoop``). They keep inputs and boundaries of segments and compute the rest again; a backend
    that can also keep everything does so in a call where that takes at most ``recompute_above`` bytes, by its estimate.
    ``tick_form``, where a backend has asked for it, gives a loop over ticks as a loop over segments of one tick (of
    class ``ir.chunk.ChunkLoop``) with its backward pass (or None); ``tick`` is one tick of the whole program like that.
    ``waiting``: the same for ``completing(program)`` and ``looking(program)``, where states wait for the next input.
    ``decode`` gives, for calls of one tick, a schedule of outputs and states without segments, whose loops have taken
    over what each lane can do for itself.
    ``autocast``: what is emitted may run under ``torch.autocast``. ``wide``: values of the program that a module in
    half precision computes in float32 (``passes/precision.py``). ``derivations``: what passes can still derive while a
    backend lowers (of class ``ir.derivations.Derivations``).
    """

    program: Program
    phases: tuple[Phase, ...]
    loss_phases: tuple[Phase, ...] = ()
    loss_inputs: tuple[str, ...] = ()
    late: frozenset[int] = frozenset()
    backwards: tuple[Any, ...] = ()
    recompute_above: int = RECOMPUTE_ABOVE
    tick_form: Callable[[Scan], tuple[Any, Any]] | None = None
    tick: Any = None
    waiting: tuple[Any, Any] | None = None
    decode: Callable[[], Schedule] | None = None
    autocast: bool = True
    wide: frozenset[int] = frozenset()
    derivations: Any = None

    def all_phases(self) -> Iterator[Phase]:
        yield from self.phases
        yield from self.loss_phases

    def backward_of(self, phase: Phase) -> Any:
        """The backward pass of a phase, or None."""
        return next((b for b in self.backwards if b.loop is phase), None)


def needs_next(schedule: Schedule) -> bool:
    """Whether the states of a tick depend on the inputs of the next one."""
    ahead = {i.name for i in schedule.program.inputs if i.ahead} - set(schedule.loss_inputs)
    return any(i.op == "input" and i.attr("input") in ahead for i in schedule.program.body)


def completing(program: Program) -> Program:
    """The new states of a tick alone, for a caller that has the inputs one tick ahead: they are inputs like others."""
    inputs = tuple(replace(i, ahead=0) for i in program.inputs)
    return replace(program, inputs=inputs, outputs=(), losses=(), probes=())


def looking(program: Program) -> Program:
    """The outputs of a tick alone: the states stay as they are."""
    return replace(program, updates=(), losses=(), probes=())


def anchor_key(state: str, period: int) -> str:
    """The name under which the anchor of a state is stored next to the states."""
    return f"{state}@{period}"


def anchors(program: Program) -> tuple[tuple[str, int], ...]:
    """Every (state, period) that something reads with ``anchor``, in order of first use."""
    live = (program.body[v] for v in sorted(reachable(program.body, roots(program))))
    return tuple(dict.fromkeys((i.attr("state"), i.attr("period")) for i in live if i.op == "anchor"))


def init_values(program: Program, name: str) -> tuple[int, ...]:
    """The values of ``Program.init`` that the initial value of a state needs, in order."""
    needed = set()
    stack = [program.state(name).init]
    while stack:
        value = stack.pop()
        if value not in needed:
            needed.add(value)
            stack.extend(program.init[value].args)
    return tuple(sorted(needed))


def without_backward(program: Program, states: Iterable[str], shared: bool = False) -> str:
    """Why a loop of these states has no backward pass of its own (``nldsl/passes/backward.py``); "" if it may have
    one. ``shared``: there is code for sequences that share a state."""
    for name in states:
        state = program.state(name)
        if state.shared and not shared:
            return f"all sequences of the batch share the state `{name}`"
        if state.reset.kind == "clock" and init_reads(program, name):
            other = init_reads(program, name)[0]
            return f"within a sequence `{name}` is reset to what depends on the state `{other}`"
    return ""


def init_reads(program: Program, name: str) -> tuple[str, ...]:
    """The states that the initial value of a state is computed from."""
    instrs = (program.init[v] for v in init_values(program, name))
    return tuple(dict.fromkeys(i.attr("state") for i in instrs if i.op == "state"))
