"""One tick of a whole program as one function: it reads the states before the tick and writes those after it apart.

Besides the kinds of ``Argument``, a tensor may be ``before``: a state (or an anchor) before the tick. A state that
changes only at the ticks of a clock is written only then: at others the caller gives the tensor on as it is. Anchors
and resets are the caller's business too. Of a large window (``sliding.py``) only the new rows are written, behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nldsl.backends.mlir.carry import Carry
from nldsl.backends.mlir.function import Key
from nldsl.backends.mlir.kernel import Held, KernelWriter
from nldsl.backends.mlir.sliding import Slide, slides
from nldsl.backends.mlir.steps import Steps
from nldsl.backends.mlir.text import at
from nldsl.backends.mlir.views import View
from nldsl.ir.program import Instr
from nldsl.ir.types import Clock


def written(body: tuple[Instr, ...], name: str, value: int) -> tuple[int | None, Clock | None]:
    """What a state takes after a tick, and at the ticks of which clock alone; (None, None) if it never changes."""
    instr = body[value]
    if _is(instr, name):
        return None, None
    if instr.op == "when" and _is(body[instr.args[1]], name):
        return instr.args[0], instr.attr("clock")
    return value, None


def _is(instr: Instr, name: str) -> bool:
    return instr.op == "state" and bool(instr.attr("state") == name)


@dataclass
class StepWriter(KernelWriter):
    """``clocks``: the states that change, with the clock at whose ticks alone they do (None: at all ticks)."""

    clocks: dict[str, Clock | None] = field(default_factory=dict)
    slides: dict[str, Slide] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {v for _, v in self.outputs}
        sizes = {a.name: a.size for a in self.program.axes if isinstance(a.size, int)}
        found = slides(self.body, [(name, v) for (name, _), v in self._named_carry()], sizes)
        self.slides = {s.name: s for s in found if s.added not in given}

    def _hold(self, key: Key) -> Held:
        if key not in self.held:
            slide = self.slides.get(key[0]) if not key[1] else None
            view = self._rows(slide, 0, slide.kept) if slide else self.source("before", key, self.type_of(key[0]))
            self.held[key] = Held(view)
        return self.held[key]

    def _rows(self, slide: Slide, start: int, size: int) -> View:
        """Some rows of the buffer of a window."""
        type = self.type_of(slide.name)
        whole = self.source("before", (slide.name, 0), replace(type, shape=(slide.room, *type.shape[1:])))
        return whole.sliced(len(whole.dims) - len(type.shape), start, size)

    def _held(self) -> None:
        pass  # everything is where it is read

    def _segment(self, steps: Steps) -> None:
        f, lane = self.f, self.lane
        f.depth = 4
        lane.tick = at("%tick")
        f.known.append({})
        self._clocks()
        changes = []
        appended: dict[int, View] = {}
        for slide in self.slides.values():
            if slide.joined in self.needed:
                lane.views[slide.joined] = self._rows(slide, 0, slide.kept + slide.rows)
                appended[slide.added] = self._rows(slide, slide.kept, slide.rows)
        for (name, _), value in self._named_carry():
            if name in self.slides:
                continue
            new, clock = written(self.body, name, value)
            if new is not None:
                changes.append((name, new, clock))
                self.clocks[name] = clock
        targets = self._outputs(steps, [v for _, v, _ in changes])
        late = [v for _, v, _ in changes if v not in targets]
        late += [v for (n, _), v in self._named_carry() if v not in targets and n not in self.slides]
        steps.run({**targets, **appended}, late)
        self._spread_outputs(steps)
        always = [(name, v) for name, v, clock in changes if clock is None]
        Carry(steps, [(self._target(n), self._axes((n, 0)), v) for n, v in always]).write()
        for name, value, clock in changes:
            if clock is not None:
                with f.when(lane.fires[clock]):
                    Carry(steps, [(self._target(name), self._axes((name, 0)), value)]).write()
        f.known.pop()

    def _target(self, name: str) -> View:
        return self.source("state", (name, 0), self.type_of(name))
