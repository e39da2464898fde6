"""A loop over segments as one MLIR function: all segments of a run, for some lanes, on one thread.

The function takes a table of numbers and addresses, scratch memory of the thread, and the lanes to do. Tensors lie in
canonical layout: mapped axes in the order batch, time, declared ones, then the logical dimensions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nldsl.backends.mlir.assembly import Blocks, assembled
from nldsl.backends.mlir.carry import Carry
from nldsl.backends.mlir.function import Argument, Kernel, Key
from nldsl.backends.mlir.lane import Index, Lane, Vec
from nldsl.backends.mlir.memory import place
from nldsl.backends.mlir.nests import copy, fill
from nldsl.backends.mlir.steps import Steps
from nldsl.backends.mlir.sums import mixed_axes, peeled, shared_streams, split_sums
from nldsl.backends.mlir.text import Function, Ix, Val, at
from nldsl.backends.mlir.views import UnsupportedError, View, load
from nldsl.dims import substitute
from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.program import Instr, Program
from nldsl.ir.triangular import needs, zeros
from nldsl.ir.types import BATCH, TIME, Clock, Type, axis_order

# of the tensors that a way back reads: which segment it is, and that many batches
SAVED = {"boundary": ("%segment_number", "%segment_batches"), "kept": ("%segment", "%run_batches")}


@dataclass
class Held:
    """What is carried from segment to segment. ``members``: the arguments of a pack, side by side along ``dim``."""

    view: View
    members: tuple[View, ...] = ()
    dim: int = 0


@dataclass
class KernelWriter:
    """Writes the function of a loop, forward or backward, for segments of ``ticks`` ticks.

    ``rows``: how many sequences a lane has, whose streams then lie as [time, sequences, ..] (0: one, as [sequences,
    time, ..]). They are one more dimension of its tensors, so that a weight is read once for all of them. What looks
    over the sequences of a batch needs a lane that has all of them, as do segments of more than one tick."""

    loop: ChunkLoop | BackwardLoop
    program: Program
    ticks: int
    real: str
    lanes: int
    save: tuple[Key, ...] = ()
    name: str = "loop"
    rows: int = 0
    several: bool = True  # a call may have many segments
    arguments: list[Argument] = field(default_factory=list)
    sources: dict[Argument, View] = field(default_factory=dict)
    held: dict[Key, Held] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.forward = isinstance(self.loop, ChunkLoop)
        self.chunk: ChunkLoop = self.loop if isinstance(self.loop, ChunkLoop) else self.loop.loop
        loop = self.loop
        self.body: tuple[Instr, ...] = loop.body
        sums = () if isinstance(loop, ChunkLoop) else loop.sums
        self.kept = loop.kept if isinstance(loop, ChunkLoop) else ()
        self.outputs, self.surplus = shared_streams(self.body, loop.outputs, () if self.forward else self._lane_axes())
        roots = [*(v for _, v in (*loop.carry, *self.outputs)), *(k.inside for k in self.kept)]
        self.needed = reachable(self.body, [*roots, *(v for _, v in sums)])
        self.packs = {p.name: p for p in self.chunk.packs}
        extra = {a.name: a.size for a in self.chunk.lanes}
        order = (*self.program.axis_names(), *(a for a in extra if a not in self.program.axis_names()))
        self.order = axis_order((*order, TIME), order)
        mixed = {TIME, *extra} | mixed_axes(self.body, self.needed, peeled(self.body, sums))
        if self.rows:
            mixed.add(BATCH)
        if self.states():  # a state without an axis would be changed once for each of its lanes
            owned = {a for n in self.states() for a in self.program.state(n).type.axes}
            mixed |= owned - {BATCH, *self._lane_axes()}
        inner = [a for a in self.order if a in mixed]
        self.body, self.terms = split_sums(self.body, sums, inner)
        self.needed = reachable(self.body, [*roots, *(t.value for t in self.terms)])
        live = [self.body[v] for v in sorted(self.needed)]
        if not self.rows and (BATCH in inner or BATCH in mixed_axes(self.body, self.needed, frozenset())):
            raise UnsupportedError("an operation over the sequences of a batch")
        self.sizes: dict[str, int] = {}
        known = {TIME: self.ticks, BATCH: self.rows}
        for axis in inner:
            size = known.get(axis) or extra.get(axis) or self.program.axis_size(axis)
            self.sizes[axis] = self._whole(substitute(size or 0, {str(TICKS): self.ticks}))
        used = {a for i in live for a in i.type.axes} | {
            a for n in self.states() for a in self.program.state(n).type.axes
        }
        self.outer = [a for a in self.order if a in used and (a not in inner or a == BATCH)]
        if not self.rows and BATCH in self.outer:
            for name in self.states():
                if BATCH not in self.program.state(name).type.axes:
                    raise UnsupportedError(f"the state {name} is one for the whole batch")
        self.f = Function(self.name, self.real, self.lanes)

    def _lane_axes(self) -> tuple[str, ...]:
        """The axes that every state of the loop has."""
        axes = [set(self.program.state(n).type.axes) for n in self.chunk.states]
        return tuple(set.intersection(*axes)) if axes else ()

    def _whole(self, size: object) -> int:
        if not isinstance(size, int):
            raise UnsupportedError(f"an axis of size {size}")
        return size

    def states(self) -> tuple[str, ...]:
        return self.chunk.states

    # -- arguments

    def type_of(self, name: str) -> Type:
        """The type of a state, or of a pack."""
        if name not in self.packs:
            return self.program.state(name).type
        pack = self.packs[name]
        type = self.program.state(pack.states[0]).type
        return replace(type, axes=tuple(a for a in self.order if a in (*type.axes, pack.axis)))

    def source(self, kind: str, key: Any, type: Type) -> View:
        """The view of an argument for the lane and the segment at hand."""
        argument = Argument(kind, key, type)
        if argument in self.sources:
            return self.sources[argument]
        number = len(self.arguments)
        self.arguments.append(argument)
        element = "i64" if type.kind == "int" and kind in ("given", "cotangent_of") else ""
        axes = [a for a in self.order if a in type.axes]
        step = 1
        shape = [self.lane.size(s) for s in type.shape]
        strides: list[int] = []
        for size in reversed(shape):
            strides.insert(0, step)
            step *= size
        base, dims = Ix(), list(shape)
        lead: list[tuple[int, int]] = []
        if kind == "sum":
            axes = [a for a in axes if a in self.sizes]
        for axis in reversed(axes):
            if axis == TIME and kind == "kept":
                lead.insert(0, (step, self.ticks))
                step *= self.ticks
            elif axis == TIME and self.rows and BATCH in axes:
                lead.insert(0, (step * self.rows, self.ticks))
                base = base + at("%start_sequences") * step
            elif axis == BATCH and self.rows:
                lead.insert(0, (step, self.rows))
                if kind == "sum":
                    step *= self.rows
                else:
                    base = base + at("%batch") * (step * self.rows)
                    step = -1 if kind in SAVED else step
            elif axis == TIME:
                lead.insert(0, (step, self.ticks))
                base = base + at("%start") * step
            elif axis in self.sizes:
                lead.insert(0, (step, self.sizes[axis]))
                step *= self.sizes[axis]
            elif axis == BATCH:
                if TIME in axes and kind != "kept":
                    base = base + at("%batch_ticks") * step
                else:
                    base = base + at("%batch") * step
                    step = -1 if kind in SAVED else step
            else:
                base = base + at(f"%lane_{self.outer.index(axis)}") * step
                step *= self._whole(self.program.axis_size(axis))
        if kind == "sum":
            base = base + at("%lane") * step
        if kind in SAVED:
            own, batches = SAVED[kind]
            base = base + (at(batches) * self._per_batch(type) if step < 0 else at(own) * step)
        strides = [s for s, _ in lead] + strides
        dims = [n for _, n in lead] + dims
        view = View(f"%arg{number}", base, tuple(strides), tuple(dims), element)
        self.sources[argument] = view
        return view

    def _per_batch(self, type: Type) -> int:
        total = 1
        for size in type.shape:
            total *= self.lane.size(size)
        for axis in type.axes:
            if axis == BATCH:
                continue
            if axis in self.sizes:
                total *= self.sizes[axis]
            else:
                total *= self._whole(self.program.axis_size(axis))
        return total

    # -- the function

    def write(self) -> Kernel:
        f = self.f
        self.lane = Lane(f, self.body, self.needed, Counter(v for _, v in self._results()), self.ticks, self.sizes)
        self.lane.zero = zeros(self.body)
        kept = {k.inside: dict(k.unread) for k in self.kept}
        self.lane.need = needs(self.body, [v for _, v in self._results()], self.lane.zero, kept)
        self.lane.roots.update([*kept])
        f.touched = self.lane.touched
        steps = Steps(self.lane)
        self._leaves()
        steps.plan()
        outer, f.lines = f.lines, []
        f.depth = 3
        self._held()
        opening, f.lines = f.lines, []
        self.lane.opening = opening if self.several else None
        self._segment(steps)
        segment, f.lines = f.lines, []
        self._release()
        closing, f.lines = f.lines, outer
        return self._assembled(opening, segment, closing)

    def _results(self) -> list[tuple[object, int]]:
        loop = self.loop
        found: list[tuple[object, int]] = [*loop.carry, *self.outputs]
        return [*found, *((t.leaf, t.value) for t in self.terms)]

    def _leaves(self) -> None:
        """Views of what the body reads."""
        carried = {*self.packs, *self.states()}
        for v in sorted(self.needed):
            instr = self.body[v]
            op, type = instr.op, instr.type
            if op in ("given", "cotangent_of"):
                self.lane.views[v] = self.source(op, instr.attr("value"), type)
            elif op == "param":
                self.lane.views[v] = self.source(op, instr.attr("param"), type)
            elif op == "state" and instr.attr("state") not in carried:
                self.lane.views[v] = self.source("fixed", instr.attr("state"), type)
            elif op == "kept":
                self.lane.views[v] = self.source(op, instr.attr("value"), type)
            elif op == "boundary":
                name = instr.attr("state")
                self.lane.views[v] = self.source("boundary", (name, instr.attr("period")), self.type_of(name))
            if op == "param" or (v in self.lane.views and op in ("given", "state") and TIME not in type.axes):
                self.lane.still.add(self.lane.views[v].buffer)
        for v in sorted(self.needed):
            if self.body[v].op in ("state", "anchor", "cotangent") and v not in self.lane.views:
                instr = self.body[v]
                period = dict(instr.attrs).get("period", 0)
                self.lane.views[v] = self._hold((instr.attr("state"), period)).view

    def _hold(self, key: Key) -> Held:
        """Where a state is during the loop: a pack has memory of its own, other states stay where they are."""
        if key in self.held:
            return self.held[key]
        name, period = key
        type = self.type_of(name)
        if name not in self.packs:
            self.held[key] = Held(self.source("state", key, type))
            return self.held[key]
        pack = self.packs[name]
        axes = [a for a in type.axes if a in self.sizes]
        dims = (*(self.sizes[a] for a in axes), *(self.lane.size(s) for s in type.shape))
        members = tuple(self.source("state", (s, period), self.program.state(s).type) for s in pack.states)
        view = self.lane.scratch(dims)
        self.lane.buffers[-1].last = 1 << 30
        self.held[key] = Held(view, members, axes.index(pack.axis))
        return self.held[key]

    def _held(self) -> None:
        """Everything that is carried, and packs filled."""
        for key, _ in self._named_carry():
            self._hold(key)
        for name, period in self.chunk.anchors:
            self._hold((name, period))
            self._hold((name, 0))
        for saved in self.save:
            self._hold(saved)
        for held in self.held.values():
            for n, member in enumerate(held.members):
                with self.f.fence():
                    copy(self.lane, member, self._part(held, n))

    def _named_carry(self) -> list[tuple[Key, int]]:
        if isinstance(self.loop, ChunkLoop):
            return [((name, 0), v) for name, v in self.loop.carry]
        return list(self.loop.carry)

    @staticmethod
    def _part(held: Held, n: int) -> View:
        return held.view.fixed(held.dim, n)

    def _release(self) -> None:
        for held in self.held.values():
            for n, member in enumerate(held.members):
                with self.f.fence():
                    copy(self.lane, self._part(held, n), member)

    # -- one segment

    def _segment(self, steps: Steps) -> None:
        f, lane = self.f, self.lane
        f.depth = 4
        lane.tick = at("%tick")
        f.known.append({})
        self._clocks()
        if self.forward:
            self._take_anchors()
        else:
            self._unset()
        for key in self.save:
            with f.fence():
                copy(lane, self.held[key].view, self.source("boundary", key, self.type_of(key[0])))
        carry = self._named_carry()
        targets = self._outputs(steps, [v for _, v in carry])
        late = [v for _, v in carry if v not in targets]
        steps.run(targets, late)
        self._spread_outputs(steps)
        self._sums(steps)
        places = [(self.held[key].view, self._axes(key), value) for key, value in carry]
        Carry(steps, places).write()
        if self.forward:
            self._resets()
        else:
            self._give_anchors()
        f.known.pop()

    def _clocks(self) -> None:
        """Which clocks fire at the last tick of the segment."""
        f = self.f
        clocks: set[Clock] = {self.body[v].attr("clock") for v in self.needed if self.body[v].op == "when"}
        clocks |= {guard for v in self.needed if (guard := self.body[v].guard) is not None}
        for name in self.states():
            reset = self.program.state(name).reset
            if reset.kind == "clock" and reset.clock is not None:
                clocks.add(reset.clock)
        last = f.op(f"arith.addi %tick, {f.index(self.ticks)} : index")
        for clock in sorted(clocks, key=str):
            self.lane.fires[clock] = self._divides(clock.period, last, clock.start)

    def _divides(self, period: int, tick: str, start: bool = False) -> Val:
        f = self.f
        if start:
            tick = f.op(f"arith.subi {tick}, {f.index(1)} : index")
        rest = f.op(f"arith.remui {tick}, {f.index(period)} : index")
        return Val(f.op(f"arith.cmpi eq, {rest}, {f.index(0)} : index"), "b")

    def _take_anchors(self) -> None:
        for name, period in self.chunk.anchors:
            with self.f.when(self._divides(period, "%tick")):
                copy(self.lane, self.held[name, 0].view, self.held[name, period].view)

    def _give_anchors(self) -> None:
        """Where an anchor was taken at the first tick, its cotangent is the state's."""
        f = self.f
        for name, period in self.chunk.anchors:
            anchor, state = self._hold((name, period)).view, self._hold((name, 0)).view
            with f.when(self._divides(period, "%tick")):
                self._add_to(state, anchor)
                with f.fence():
                    fill(f, anchor, lambda _, v: f.number(0.0, v[1] if v else 0))

    def _outputs(self, steps: Steps, carried: Sequence[int]) -> dict[int, View]:
        """The streams, and what is kept, that can be written where they are computed."""
        self.spread: list[tuple[View, Type, int]] = []
        targets: dict[int, View] = {}
        written = [("output", value, self._stream_type(value), inside) for value, inside in self.outputs]
        written += [("kept", k.value, k.type, k.inside) for k in self.kept]
        for kind, value, type, inside in written:
            axes = [a for a in self.order if a in type.axes and a in self.sizes]
            view = self.source(kind, value, type)
            if list(self.lane.axes(inside)) == axes and self.lane.dims(inside) == view.dims and inside not in targets:
                targets[inside] = view
            else:
                self.spread.append((view, type, inside))
        return targets

    def _stream_type(self, value: int) -> Type:
        type = self.program.body[value].type
        axes = (*type.axes, *self.surplus.get(value, ()), TIME)
        return replace(type, axes=axis_order(axes, self.order), kind="real")

    def _spread_outputs(self, steps: Steps) -> None:
        """Streams that are the same along an axis, or that are written twice."""
        for view, type, inside in self.spread:
            axes = [a for a in self.order if a in type.axes and a in self.sizes]
            source = steps.in_memory(inside)
            own = self.lane.axes(inside)
            strides = [source.strides[own.index(a)] if a in own else 0 for a in axes] + [*source.strides[len(own) :]]
            sized = View(source.buffer, source.base, tuple(strides), view.dims)
            lead = len(axes)
            if source.dims[len(own) :] != view.dims[lead:]:
                raise UnsupportedError("an output of another shape than its stream")
            steps.lane.step += 1
            with self.f.fence():
                copy(self.lane, sized, view)

    def _sums(self, steps: Steps) -> None:
        """What is added up over the segments."""
        f, lane = self.f, self.lane
        for term in self.terms:
            value = term.value
            total = self.source("sum", (*term.leaf, term.gone), self.body[value].type)
            steps.ready(value)
            if value in lane.stored or lane.heavy(value):
                steps.store(value)
            lane.step += 1

            def entry(index: Index, vec: Vec | None, value: int = value, total: View = total) -> Val:
                before, new = load(f, total, index, vec), f.cast(lane.at(value, index, vec), "f")
                return f.apply("arith.addf", *f.same_width([before, new]))

            with f.fence():
                fill(f, total, entry)

    # -- what is carried

    def _axes(self, key: Key) -> list[str]:
        return [a for a in self.order if a in self.type_of(key[0]).axes and a in self.sizes]

    def _resets(self) -> None:
        """A state whose clock fires starts anew, with its anchors."""
        for name in self.states():
            reset = self.program.state(name).reset
            if reset.kind != "clock" or reset.clock is None:
                continue
            if any(name in p.states for p in self.packs.values()):
                raise UnsupportedError("a state of a pack that is reset within the sequence")
            initial = self.source("initial", name, self.program.state(name).type)
            with self.f.when(self.lane.fires[reset.clock]):
                for key, held in self.held.items():
                    if key[0] == name:
                        with self.f.fence():
                            copy(self.lane, initial, held.view)

    def _unset(self) -> None:
        """Where a state was reset after the segment, its cotangent is the one of the initial value."""
        f = self.f
        for name in self.states():
            reset = self.program.state(name).reset
            if reset.kind != "clock" or reset.clock is None:
                continue
            if any(name in p.states for p in self.packs.values()):
                raise UnsupportedError("a state of a pack that is reset within the sequence")
            total = self.source("sum", ("initial", name, ()), self.program.state(name).type)
            with f.when(self.lane.fires[reset.clock]):
                for key, held in self.held.items():
                    if key[0] == name:
                        self._add_to(total, held.view)
                        with f.fence():
                            fill(f, held.view, lambda _, v: f.number(0.0, v[1] if v else 0))

    def _add_to(self, total: View, part: View) -> None:
        f = self.f
        with f.fence():
            fill(
                f,
                total,
                lambda i, v: f.apply("arith.addf", *f.same_width([load(f, total, i, v), load(f, part, i, v)])),
            )

    # -- all of it

    def _assembled(self, opening: list[str], segment: list[str], closing: list[str]) -> Kernel:
        lanes = [(a, 0 if a == BATCH else self._whole(self.program.axis_size(a))) for a in self.outer]
        elements = [self.sources[a].element or self.f.real for a in self.arguments]
        scratch = place(self.lane.buffers, 4 if self.f.real == "f32" else 8)
        blocks = Blocks(opening, segment, closing, tuple(v.name for v in self.lane.fires.values()))
        text = assembled(self.f, self.lane.buffers, elements, lanes, self.ticks, self.forward, blocks)
        axes = tuple((a, n) for a, n in lanes if a != BATCH)
        batched = BATCH in self.outer
        return Kernel(self.name, text, tuple(self.arguments), scratch, axes, batched, self.ticks, self.real, self.rows)
