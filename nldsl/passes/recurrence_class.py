"""The class of a recurrence in words: what its decay is like, what it writes, what couples its states."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.ir.ops import LEAVES
from nldsl.passes.affine import Term
from nldsl.passes.affine_rules import Node
from nldsl.passes.recurrence import Recurrence

LINEAR = frozenset(
    "neg add sub mul div einsum sum reshape broadcast concat slice pad spread collect axis_sum cumsum when".split()
)


@dataclass(frozen=True)
class RecurrenceClass:
    """``decay``: none | scalar | channels | key side | value side | elementwise. ``rank``: reads of the state that each
    tick writes back. ``stacked``: states in the largest group that feed one another. ``anchored``: none | linear |
    nonlinear, what enters of values that are constant in a segment. ``slow``: nothing changes between slow updates.
    ``windows``: the lengths of the windows it sees. ``live``: something changes at every tick. ``mixed``: by full
    maps."""

    decay: str
    rank: int
    stacked: int
    anchored: str
    slow: bool
    windows: tuple[int, ...] = ()
    live: bool = True
    mixed: bool = False

    def __str__(self) -> str:
        if not self.windows:
            return self._recurrence()
        lengths = " and ".join(map(str, self.windows))
        window = f"window{'s' if len(self.windows) > 1 else ''} of {lengths} ticks"
        return f"{window}, {self._recurrence()}" if self.live or self.slow else window

    def _recurrence(self) -> str:
        if self.mixed:
            name = "general affine" if self.stacked < 2 else f"{self.stacked} stacked states, general affine"
            return name if self.anchored == "none" else f"anchored {self.anchored}: {name}"
        name = {
            "none": "no decay",
            "scalar": "scalar decay",
            "elementwise": "elementwise decay",
            "channels": "diagonal decay",
        }.get(self.decay, f"diagonal decay ({self.decay})")
        if self.rank:
            name += f" + rank {self.rank}"
        if self.stacked > 1:
            name = f"{self.stacked} stacked states, {name}"
        if self.anchored != "none":
            name = f"anchored {self.anchored}: {name}"
        return f"held between slow updates: {name}" if self.slow else name


def classify(recurrence: Recurrence, mixed: tuple[str, ...] = ()) -> RecurrenceClass:
    """The class of the whole loop, that of its worst state. ``mixed``: states that full maps lead to."""
    decays = [_decay(key, terms) for key, terms in recurrence.coefficients.items()]
    order = ("none", "scalar", "channels", "key side", "value side", "elementwise")
    decay = max(decays, key=order.index, default="none")
    if {"key side", "value side"} <= set(decays):
        decay = "elementwise"
    used = {t.source.key for terms in recurrence.writes.values() for t in terms if t.source is not None}
    rank = sum(isinstance(n, int) and _reads(recurrence, recurrence.rules.nodes[n], set()) for n in used)
    windows = tuple(sorted({r.size + 1 for r in recurrence.registers.values()}))
    slow = not recurrence.live and bool(recurrence.constant)
    return RecurrenceClass(
        decay,
        rank,
        len(mixed) or _stacked(recurrence),
        _anchored(recurrence),
        slow,
        windows,
        bool(recurrence.live),
        bool(mixed),
    )


def _decay(key: tuple[str, str], terms: tuple[Term, ...]) -> str:
    if key[0] == key[1] and all(not t.factors for t in terms):
        return "none" if sum(t.scale for t in terms) == 1 else "scalar"
    rank = len([x for x in terms[0].letters if x is not None])
    letters = {x for t in terms for f in t.factors for x in f.letters if x in t.letters and x is not None}
    if not letters:
        return "scalar"
    if len(letters) == rank and rank > 1:
        return "elementwise"
    last = {t.letters[-1] for t in terms}
    if rank == 1:
        return "channels"
    return "key side" if letters <= last else "value side"


def _reads(recurrence: Recurrence, node: Node, seen: set[int]) -> bool:
    """Whether a node depends on states."""
    for term in node.affine.terms:
        if term.source is None:
            continue
        if term.source.kind != "node":
            return True
        number = term.source.key
        assert isinstance(number, int)
        if number not in seen:
            seen.add(number)
            if _reads(recurrence, recurrence.rules.nodes[number], seen):
                return True
    return False


def _stacked(recurrence: Recurrence) -> int:
    """The number of states in the largest set joined by coefficients."""
    best = 1
    for state in recurrence.live:
        found, stack = {state}, [state]
        while stack:
            at = stack.pop()
            joined = {j if i == at else i for i, j in recurrence.coefficients if at in (i, j)}
            stack += joined - found
            found |= joined
        best = max(best, len(found))
    return best


def _anchored(recurrence: Recurrence) -> str:
    """Whether values at an anchor enter the loop, and through something that is not linear."""
    body = recurrence.program.body
    touched: set[int] = set()
    found = "none"
    for value in recurrence.scan.values:
        instr = body[value]
        own = instr.op in ("anchor", "state") and instr.attr("state") in recurrence.scan.states
        if own and (instr.op == "anchor" or instr.attr("state") in recurrence.constant):
            touched.add(value)
            found = "linear" if found == "none" and (instr.op == "anchor" or recurrence.live) else found
        elif any(a in touched for a in instr.args):
            touched.add(value)
            products = instr.op in ("mul", "einsum", "div") and sum(a in touched for a in instr.args) > 1
            if found != "none" and instr.op not in LEAVES and (instr.op not in LINEAR or products):
                found = "nonlinear"
    return found
