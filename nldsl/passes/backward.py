"""The backward pass of a loop over segments, derived from its body.

    ChunkLoop(body)  -->  BackwardLoop(body again, and the cotangents of its leaves)

Needs: a chunk loop whose states, where they are reset within the sequence, start from values that depend on no other
state. Guarantees: the gradient of the loop as written, to rounding; nothing of a segment is kept but what was given and
the states at its beginning. Otherwise None: the caller differentiates what it emitted.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import TypeVar

from nldsl.ir.backward import BackwardLoop, InitialBackward, Key, Leaf
from nldsl.ir.build import Builder
from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.program import Program
from nldsl.ir.schedule import Schedule, init_values, without_backward
from nldsl.ir.types import BATCH, TIME, Type
from nldsl.passes.common_factors import factored
from nldsl.passes.simplify import simplify_body
from nldsl.passes.simplify_scans import SCAN_RULES
from nldsl.passes.sink_guards import with_guards
from nldsl.passes.unread import logged_only
from nldsl.passes.vjp import vjp

# a sum over sequences is the last thing that is done, so that kernels can leave it to whoever has all of them
SUMS_LAST = frozenset({"axis-sum-of-scaled"})
K = TypeVar("K", bound=Hashable)


def backward(loop: ChunkLoop, program: Program, shared: bool = False) -> BackwardLoop | None:
    """The loop over the same segments that takes cotangents back, or None if there is none. ``shared``: also where the
    sequences of a batch share a state, which only code that has all of them at once can run."""
    if without_backward(program, loop.states, shared):
        return None
    return _Derivation(loop, program).derive()


def with_backward(schedule: Schedule, shared: bool = False) -> Schedule:
    """The schedule with the backward pass of each of its chunk loops that has one; ``shared``: see ``backward``."""
    loops = [p for p in schedule.all_phases() if isinstance(p, ChunkLoop)]
    found = [backward(loop, schedule.program, shared) for loop in loops]
    return replace(schedule, backwards=tuple(b for b in found if b is not None))


class _Derivation:
    def __init__(self, loop: ChunkLoop, program: Program) -> None:
        self.loop = loop
        self.program = program
        self.axes = [*program.axis_names(), *(a.name for a in loop.lanes)]
        self.builder = Builder(self.axes)
        self.packs = {p.name: p for p in loop.packs}
        held = {s for p in loop.packs for s in p.states}
        self.names = {*self.packs, *(s for s in loop.states if s not in held)}
        self.value = self._copied()

    def derive(self) -> BackwardLoop:
        seeds = self._seeds()
        leaves = self._leaves()
        found = vjp(self.builder, seeds, [self.value[v] for v in leaves], self._lanes())
        known = {
            v: fitted(self.builder, c, self.loop.body[v].type)
            for v, c in zip(leaves, found, strict=True)
            if c is not None
        }
        carry = self._carry(known)
        outputs: dict[int, int] = {}
        sums: dict[Leaf, int] = {}
        for v, cotangent in known.items():
            instr = self.loop.body[v]
            if instr.op == "given" and TIME in instr.type.axes:
                self._add(outputs, instr.attr("value"), cotangent)
            elif instr.op == "given":
                self._add(sums, ("given", instr.attr("value")), cotangent)
            elif instr.op == "param":
                self._add(sums, ("param", instr.attr("param")), cotangent)
            elif instr.op == "state" and instr.attr("state") not in self.names:
                self._add(sums, ("state", instr.attr("state")), cotangent)
        return self._simplified(carry, outputs, sums)

    def _lanes(self) -> tuple[str, ...]:
        """The axes in which all states of the loop are independent: sums over them come last, so that a kernel that has
        one lane can leave them to whoever has all."""
        mixed = set[str]()
        for instr in self.loop.body:
            if instr.op in ("collect", "spread", "axis_sum", "lane"):
                mixed.add(instr.attr("axis"))
            elif instr.op == "batch_mean":
                mixed.add(BATCH)
        shared = [set(self._type(name).axes) for name in self.names]
        if not shared:  # a loop without states
            shared = [set(self.loop.body[v].type.axes) - {TIME} for _, v in self.loop.outputs]
        return self.builder.order(tuple(set.intersection(*shared) - mixed)) if shared else ()

    def _copied(self) -> list[int]:
        """The body of the loop in the new one; its states are those at the beginning of the segment."""
        values: list[int] = []
        for instr in self.loop.body:
            self.builder.guard = instr.guard
            attrs = dict(instr.attrs)
            if instr.op in ("state", "anchor") and instr.attr("state") in self.names:
                key = {"state": instr.attr("state"), "period": attrs.get("period", 0)}
                values.append(self.builder.leaf("boundary", instr.type, instr.name, instr.span, **key))
            elif not instr.args and instr.op not in ("const", "iota"):
                values.append(self.builder.leaf(instr.op, instr.type, instr.name, instr.span, **attrs))
            else:
                args = [values[a] for a in instr.args]
                values.append(self.builder.emit(instr.op, *args, name=instr.name, span=instr.span, **attrs))
        self.builder.guard = None
        return values

    def _leaves(self) -> list[int]:
        ops = ("given", "param", "state", "anchor")
        return [v for v, i in enumerate(self.loop.body) if i.op in ops and i.type.kind == "real"]

    def _type(self, name: str) -> Type:
        """The type of a state or a pack."""
        if name not in self.packs:
            return self.program.state(name).type
        pack = self.packs[name]
        type = self.program.state(pack.states[0]).type
        return Type(type.shape, self.builder.order((*type.axes, pack.axis)), type.kind)

    # ---- where the cotangents come from

    def _seeds(self) -> dict[int, int]:
        seeds: dict[int, int] = {}
        for name, value in self.loop.carry:
            if self._type(name).kind == "real":
                cotangent = self._cotangent(name, 0)
                self._add(seeds, self.value[value], fitted(self.builder, cotangent, self.loop.body[value].type))
        logged = logged_only(self.program, self.loop)
        for value, inside in self.loop.outputs:
            type = self.program.body[value].type
            if type.kind == "real" and value not in logged:
                every = Type(type.shape, self.builder.order((*type.axes, TIME)))
                name = self.program.body[value].name
                cotangent = self.builder.leaf("cotangent_of", every, f"d_{name}" if name else "d_y", value=value)
                self._add(seeds, self.value[inside], fitted(self.builder, cotangent, self.loop.body[inside].type))
        return seeds

    def _cotangent(self, name: str, period: int) -> int:
        hint = f"d_{name.rpartition('.')[2]}".replace("+", "_")
        return self.builder.leaf("cotangent", self._type(name), hint, state=name, period=period)

    # ---- where they go

    def _carry(self, known: dict[int, int]) -> dict[Key, int]:
        """The cotangent of each state and anchor at the beginning of the segment. An anchor, and a state that the loop
        does not change, also keep what came from later segments."""
        carry: dict[Key, int] = {}
        changed = {name for name, _ in self.loop.carry}
        for v, cotangent in known.items():
            instr = self.loop.body[v]
            if instr.op in ("state", "anchor") and instr.attr("state") in self.names:
                period = instr.attr("period") if instr.op == "anchor" else 0
                self._add(carry, (instr.attr("state"), period), cotangent)
        for name in sorted(self.names):
            if self._type(name).kind == "real":
                if name not in changed:
                    self._add(carry, (name, 0), self._cotangent(name, 0))
                carry.setdefault((name, 0), self._zero(name))
        for name, period in self.loop.anchors:
            if self._type(name).kind == "real":
                self._add(carry, (name, period), self._cotangent(name, period))
        return carry

    def _zero(self, name: str) -> int:
        zero, shape = self.builder.const(0.0), self._type(name).shape
        return self.builder.emit("broadcast", zero, shape=shape) if shape else zero

    def _add(self, found: dict[K, int], key: K, value: int) -> None:
        found[key] = self.builder.emit("add", found[key], value) if key in found else value

    def _simplified(self, carry: dict[Key, int], outputs: dict[int, int], sums: dict[Leaf, int]) -> BackwardLoop:
        sizes = {a.name: a.size for a in (*self.program.axes, *self.loop.lanes) if a.size is not None} | {TIME: TICKS}
        roots = [*carry.values(), *outputs.values(), *sums.values()]
        more = SCAN_RULES if self.loop.serial else ()
        body, simple = simplify_body(tuple(self.builder.instrs), roots, self.axes, sizes, SUMS_LAST, more=more)
        body, moved = factored(body, [simple[r] for r in roots], self.axes)
        number = {old: moved[new] for old, new in simple.items() if new in moved}
        if self.loop.serial:
            body = with_guards(body, [number[r] for r in roots])
        forward = {number[new]: old for old, new in enumerate(self.value) if new in number}
        return BackwardLoop(
            self.loop,
            body,
            _renumbered(carry.items(), number),
            _renumbered(outputs.items(), number),
            _renumbered(sums.items(), number),
            tuple(i for name in self.loop.states for i in self._initial(name)),
            tuple(forward.items()),
        )

    def _initial(self, name: str) -> tuple[InitialBackward, ...]:
        """The way from the initial value of a state to the parameters that it is made of."""
        state = self.program.state(name)
        needed = init_values(self.program, name)
        read = [v for v in needed if self.program.init[v].op == "param"]
        if state.reset.kind != "clock" or state.type.kind != "real" or not read:
            return ()
        builder = Builder(list(self.axes))
        value: dict[int, int] = {}
        for v in needed:
            instr = self.program.init[v]
            attrs = dict(instr.attrs)
            if instr.args or instr.op in ("const", "iota"):
                value[v] = builder.emit(instr.op, *(value[a] for a in instr.args), span=instr.span, **attrs)
            else:
                value[v] = builder.leaf(instr.op, instr.type, instr.name, instr.span, **attrs)
        cotangent = builder.leaf("cotangent", state.type, f"d_{name.rpartition('.')[2]}_0", state=name, period=0)
        seed = fitted(builder, cotangent, builder.type(value[state.init]))
        found = vjp(builder, {value[state.init]: seed}, [value[v] for v in read], ())
        sums: dict[Leaf, int] = {}
        for v, part in zip(read, found, strict=True):
            if part is not None:
                leaf: Leaf = ("param", self.program.init[v].attr("param"))
                sums[leaf] = builder.emit("add", sums[leaf], part) if leaf in sums else part
        sizes = {a.name: a.size for a in self.program.axes if a.size is not None}
        body, number = simplify_body(tuple(builder.instrs), [*sums.values()], self.axes, sizes)
        return (InitialBackward(name, body, _renumbered(sums.items(), number)),) if sums else ()


def fitted(builder: Builder, cotangent: int, type: Type) -> int:
    """Summed over the axes (and dims) to which a value of this type was stretched when it left its body."""
    for axis in builder.type(cotangent).axes:
        if axis not in type.axes:
            cotangent = builder.emit("axis_sum", cotangent, axis=axis)
    shape = builder.type(cotangent).shape
    if shape == type.shape:
        return cotangent
    lead = len(shape) - len(type.shape)
    dims = tuple(d for d in range(len(shape)) if d < lead or (type.shape[d - lead] == 1 and shape[d] != 1))
    cotangent = builder.emit("sum", cotangent, dims=dims)
    return builder.emit("reshape", cotangent, shape=type.shape)


def _renumbered(pairs: Iterable[tuple[K, int]], number: dict[int, int]) -> tuple[tuple[K, int], ...]:
    return tuple((key, number[value]) for key, value in pairs)
