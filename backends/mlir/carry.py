"""The end of a segment: what is carried takes its new values, in its place where nothing reads the old ones."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.backends.mlir.nests import copy
from nldsl.backends.mlir.steps import Steps
from nldsl.backends.mlir.views import View

PLAIN = frozenset("add sub mul div neg where when const stop_grad".split())


@dataclass
class Carry:
    """``places``: where each carried tensor is, its inner axes, and its new value."""

    steps: Steps
    places: list[tuple[View, list[str], int]]

    def write(self) -> None:
        steps, lane = self.steps, self.steps.lane
        own = {held.buffer for held, _, _ in self.places}
        read = {v: self._reads(v, own) for _, _, v in self.places}
        values = [v for _, _, v in self.places]
        done: list[tuple[View, View]] = []
        for n, (held, axes, value) in enumerate(self.places):
            if lane.view(value) == held:
                continue
            later = any(held.buffer in read[v] for v in values[n + 1 :])
            direct = list(lane.axes(value)) == axes and self._same_place(value, held)
            if direct and not later and values.count(value) == 1:
                steps.store(value, held)
                continue
            source = steps.in_memory(value)
            if source.buffer in own and source.buffer != held.buffer:
                fresh = lane.scratch(source.dims)
                with lane.f.fence():
                    copy(lane, source, fresh)
                source = fresh
            done.append((self._stretched(source, value, held, axes), held))
        lane.step += 1
        for source, held in done:
            if source != held:
                with lane.f.fence():
                    copy(lane, source, held)

    def _stretched(self, source: View, value: int, held: View, axes: list[str]) -> View:
        """The value with the axes and dimensions of its place."""
        own = self.steps.lane.axes(value)
        strides = [source.strides[own.index(a)] if a in own else 0 for a in axes]
        rest = [
            0 if size == 1 else stride
            for stride, size in zip(source.strides[len(own) :], source.dims[len(own) :], strict=True)
        ]
        missing = len(held.dims) - len(axes) - len(rest)
        return View(source.buffer, source.base, (*strides, *[0] * missing, *rest), held.dims)

    def _reads(self, value: int, own: set[str]) -> set[str]:
        """The carried tensors that the code of a value still has to read."""
        lane, found, stack, seen = self.steps.lane, set[str](), [value], set[int]()
        while stack:
            v = stack.pop()
            if v in seen:
                continue
            seen.add(v)
            view = lane.view(v)
            if view is None:
                stack.extend(lane.body[v].args)
            elif view.buffer in own:
                found.add(view.buffer)
        return found

    def _same_place(self, value: int, held: View) -> bool:
        """Whether each new entry needs no other entry of the old tensor than its own."""
        lane = self.steps.lane
        if lane.dims(value) != held.dims or lane.view(value) is not None:
            return False
        if lane.heavy(value):
            return not self._reads(value, {held.buffer})
        stack, seen = [value], set[int]()
        while stack:
            v = stack.pop()
            if v in seen:
                continue
            seen.add(v)
            view = lane.view(v)
            if view is not None:
                if view.buffer == held.buffer and view != held:
                    return False
                continue
            instr = lane.body[v]
            plain = instr.op in PLAIN and not lane.heavy(v)
            if not plain and self._reads(v, {held.buffer}):
                return False
            if plain:
                stack.extend(instr.args)
        return True
