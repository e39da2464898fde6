"""Shift registers: states that hold the last values of a stream.

    s <- concat(s[1:], x)        s: [m, ..], x: [1, ..]

However long, such a state has no recurrence: what it holds at a tick are m values of the stream before it. Needs: a
``Scan``. Gives: its registers, and for each value of the loop that is some consecutive rows of a register and of its
newest value, which ones (a *view*: ``concat(s, x)`` is rows 0 to m + 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nldsl.ir.program import Instr, Program
from nldsl.ir.schedule import Scan
from nldsl.passes.levels import operands

Piece = tuple[int, int, int]  # rows start to stop of a value


@dataclass(frozen=True)
class Register:
    """``size``: the rows of the state; ``newest``: the value of one row that enters at each tick."""

    state: str
    size: int
    newest: int


@dataclass(frozen=True)
class View:
    """Rows ``start`` to ``stop`` of a register (the oldest first) and, as row ``size``, its newest value."""

    register: Register
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


def registers(program: Program, scan: Scan) -> dict[str, Register]:
    """The states of a loop that are shift registers."""
    updates = dict(program.updates)
    found: dict[str, Register] = {}
    for name in scan.states:
        type = program.state(name).type
        if name not in updates or not type.shape or not isinstance(type.shape[0], int):
            continue
        size, parts = type.shape[0], _pieces(program.body, updates[name])
        if len(parts) != 2:
            continue
        (kept, start, stop), (newest, first, last) = parts
        own = program.body[kept]
        if own.op == "state" and own.attr("state") == name and (start, stop) == (1, size) and last - first == 1:
            whole = program.body[newest].type.shape[:1] == (1,)
            if whole and program.body[newest].type.shape[1:] == type.shape[1:]:
                found[name] = Register(name, size, newest)
    return found


def views(program: Program, scan: Scan, found: Mapping[str, Register]) -> dict[int, View]:
    """The values of the loop that are rows of these registers."""
    result: dict[int, View] = {}
    for value in scan.values:
        instr = program.body[value]
        if instr.op not in ("state", "concat", "slice"):
            continue
        view = _view(program.body, _pieces(program.body, value), found)
        if view is not None and view.length > 1:
            result[value] = view
    return result


def _view(body: Sequence[Instr], parts: tuple[Piece, ...], found: Mapping[str, Register]) -> View | None:
    first = body[parts[0][0]]
    if first.op != "state" or first.attr("state") not in found:
        return None
    register = found[first.attr("state")]
    _, start, stop = parts[0]
    for value, begin, end in parts[1:]:
        if stop != register.size or value != register.newest or (begin, end) != (0, 1):
            return None
        stop += 1
    return View(register, start, stop)


def _pieces(body: Sequence[Instr], value: int) -> tuple[Piece, ...]:
    """A value as rows of others, one after the other, ``concat`` and ``slice`` of the first dim taken apart."""
    instr = body[value]
    size = instr.type.shape[0] if instr.type.shape else None
    if not isinstance(size, int):
        return ((value, 0, 1),)
    if instr.op == "concat" and instr.attr("dim") == 0:
        return _joined([p for a in instr.args for p in _pieces(body, a)])
    if instr.op == "slice" and instr.attr("dim") == 0:
        start, stop = instr.attr("start"), instr.attr("stop")
        return tuple(_cut(_pieces(body, instr.args[0]), start, stop))
    return ((value, 0, size),)


def _joined(parts: list[Piece]) -> tuple[Piece, ...]:
    found: list[Piece] = []
    for value, start, stop in parts:
        if found and found[-1][0] == value and found[-1][2] == start:
            found[-1] = (value, found[-1][1], stop)
        else:
            found.append((value, start, stop))
    return tuple(found)


def _cut(parts: tuple[Piece, ...], start: int, stop: int) -> list[Piece]:
    found, at = [], 0
    for value, first, last in parts:
        low, high = max(start, at), min(stop, at + last - first)
        if low < high:
            found.append((value, first + low - at, first + high - at))
        at += last - first
    return found


def sources(
    program: Program, scan: Scan, live: Sequence[str], found: Mapping[str, Register]
) -> dict[str, frozenset[str]]:
    """The states among ``live`` that what enters each register depends on, also through other registers."""
    known: dict[str, frozenset[str]] = {name: frozenset() for name in found}
    while True:
        reads: dict[int, frozenset[str]] = {}
        for value in scan.values:
            instr = program.body[value]
            own: frozenset[str] = frozenset()
            if instr.op == "state":
                name = instr.attr("state")
                own = known.get(name, frozenset((name,)) if name in live else frozenset())
            for arg in operands(instr):
                own |= reads.get(arg, frozenset())
            reads[value] = own
        new = {name: reads.get(r.newest, frozenset()) for name, r in found.items()}
        if new == known:
            return known
        known = new


def windowed(program: Program, scan: Scan, found: Mapping[int, View]) -> dict[int, frozenset[int]]:
    """For each value of the loop the lengths of the views that it is computed from."""
    known: dict[int, frozenset[int]] = {}
    for value in scan.values:
        own: frozenset[int] = frozenset((found[value].length,)) if value in found else frozenset()
        if value not in found:
            for arg in program.body[value].args:
                own |= known.get(arg, frozenset())
        known[value] = own
    return known
