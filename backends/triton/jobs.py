"""Jobs from the call of a loop: its forward run, and the way back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from nldsl.backends.interface import LoopCall, LoopTensor
from nldsl.backends.triton.apart import taken_apart
from nldsl.backends.triton.equations import equations
from nldsl.backends.triton.job import Job, Key, Source
from nldsl.backends.triton.names import OWN, Names
from nldsl.backends.triton.partial_sums import PartialSums
from nldsl.backends.triton.reorder import reordered
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.dims import Dim
from nldsl.ir.backward import BackwardLoop, Leaf
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Instr, Program
from nldsl.ir.stages import _stages, stages
from nldsl.ir.types import TIME, Clock


def axes_of(program: Program, loop: ChunkLoop) -> tuple[tuple[str, Dim | None], ...]:
    """All mapped axes of a loop in canonical order, with their sizes."""
    known: list[tuple[str, Dim | None]] = [(a.name, a.size) for a in program.axes if a.size is None]
    known.append((TIME, None))
    known += [(a.name, a.size) for a in program.axes if a.size is not None]
    known += [(a.name, a.size) for a in loop.lanes]
    return tuple(known)


def own_name(name: str) -> str:
    """What to call an output: ``y``, where it has no name in the program."""
    return "y" if re.fullmatch(r"(x|joined)(_\d+)?", name) else name


@dataclass
class Naming:
    """The tensors of a call by what they are, in the loop: packs instead of their members."""

    call: LoopCall
    names: Names
    variables: dict[Key, Source]
    leaves: dict[Leaf, Source]
    numbers: dict[Leaf, str]
    outputs: dict[int, Source]
    initials: dict[str, Source]  # what states are reset to
    cotangents: dict[str, str] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)  # a name of the program that is also one of ours: new, old

    def cotangent(self, name: str) -> str:
        """The name of the cotangent of a tensor that the function takes or gives."""
        if name not in self.cotangents:
            self.cotangents[name] = self.names.new(f"d_{name}")
        return self.cotangents[name]

    @property
    def equations(self) -> tuple[str, ...]:
        """The statements by which the states of the loop change, for readers."""
        return equations(self.call.program, self.call.phase.states)

    @staticmethod
    def of(call: LoopCall) -> Naming:
        loop, program = call.phase, call.program
        names = Names([a.name for a in call.arguments])
        members = {state: pack for pack in loop.packs for state in pack.states}
        order = [name for name, _ in axes_of(program, loop)]
        variables: dict[Key, Source] = {}
        leaves: dict[Leaf, Source] = {}
        renamed: dict[str, str] = {}
        for tensor in call.arguments:
            own = names.new(tensor.name) if tensor.name in OWN else tensor.name
            if own != tensor.name:
                renamed[own] = tensor.name
            if tensor.kind in ("state", "anchor"):
                state, period = tensor.keys[0]
                pack = members.get(state)
                if pack is None:
                    variables[state, period] = Source(own, tensor.type)
                elif (pack.name, period) not in variables:
                    axes = tuple(sorted((*tensor.type.axes, pack.axis), key=order.index))
                    name = names.new(f"{tensor.name}_pack")
                    variables[pack.name, period] = Source(name, replace(tensor.type, axes=axes))
            else:
                leaves.update(dict.fromkeys(tensor.keys, Source(own, tensor.type, tensor.wide)))
        outputs = {}
        for tensor in call.results:
            if tensor.kind == "output":
                outputs[tensor.keys[0][1]] = Source(names.new(own_name(tensor.name)), tensor.type)
        found = Naming(call, names, variables, leaves, dict(call.numbers), outputs, {}, renamed=renamed)
        found._initials()
        return found

    def _initials(self) -> None:
        program, loop = self.call.program, self.call.phase
        for state, period in self.variables:
            pack = next((p for p in loop.packs if p.name == state), None)
            reset = program.state(pack.states[0] if pack else state).reset
            if period or reset.kind != "clock":
                continue
            if state not in (name for name, *_ in self.call.initials):
                raise UnsupportedError(f"`{state}` is reset to what depends on other states")
            source = Source(self.names.new(f"{self.variables[state, 0].name}_initial"), program.state(state).type)
            self.initials[state] = source


def leaf_of(instr: Instr) -> Leaf:
    """The leaf of a body as a call names it."""
    return (instr.op, instr.attr("value" if instr.op == "given" else instr.op))


def sources_of(body: tuple[Instr, ...], stage: tuple[int | None, ...], naming: Naming) -> dict[int, Source]:
    """The tensor behind each leaf that has one."""
    own = {state for state, _ in naming.variables}
    found = {}
    for value, instr in enumerate(body):
        if stage[value] is None or instr.op not in ("given", "param", "state"):
            continue
        if instr.op == "state" and instr.attr("state") in own:
            continue
        leaf = leaf_of(instr)
        if leaf in naming.leaves:
            source = naming.leaves[leaf]
            if set(source.type.axes) != set(instr.type.axes):
                raise UnsupportedError(f"`{source.name}` has other axes outside the loop")
            found[value] = source
        elif leaf not in naming.numbers:
            raise UnsupportedError(f"it reads a {instr.op} that is no argument")
    return found


def numbers_of(body: tuple[Instr, ...], naming: Naming) -> dict[int, str]:
    """The leaves that are numbers, as text."""
    found = {}
    for value, instr in enumerate(body):
        if instr.op in ("given", "param", "state") and leaf_of(instr) in naming.numbers:
            found[value] = naming.numbers[leaf_of(instr)]
    return found


def forward_job(naming: Naming, name: str) -> Job:
    """The loop as it runs. Where there is a way back it keeps what that one needs."""
    call = naming.call
    loop, program = call.phase, call.program
    axes = axes_of(program, loop)
    body, where = taken_apart(loop.body, [n for n, _ in axes])
    carry = tuple((s, where[v]) for s, v in loop.carry)
    outputs = tuple((v, where[inside]) for v, inside in loop.outputs)
    stage = stages(replace(loop, body=body, carry=carry, outputs=outputs), together=False)
    carried: dict[int, Key] = {}
    for value, instr in enumerate(body):
        if stage[value] is not None and instr.op in ("state", "anchor"):
            key = (instr.attr("state"), instr.attr("period") if instr.op == "anchor" else 0)
            if key in naming.variables:
                carried[value] = key
    return Job(
        name=name,
        body=body,
        stages=stage,
        axes=axes,
        sources=sources_of(body, stage, naming),
        numbers=numbers_of(body, naming),
        carried=carried,
        boundaries={},
        variables=naming.variables,
        carry=tuple(((s, 0), v) for s, v in carry),
        outputs=tuple((naming.outputs[v], inside) for v, inside in outputs),
        anchors=loop.anchors,
        resets={s: (_clock(program, s), source) for s, source in naming.initials.items()},
        keep=call.derived.boundaries if call.derived else (),
        equations=naming.equations,
    )


def _clock(program: Program, state: str) -> Clock:
    clock = program.state(state).reset.clock
    assert clock is not None
    return clock


def backward_job(naming: Naming, derived: BackwardLoop, name: str) -> tuple[Job, dict[str, Source]]:
    """The way back, and for each of its results (tensors named ``d_`` and the name of what they belong to) that."""
    lanes = forward_job(naming, name).lanes
    partial = PartialSums(derived.body, lanes, tuple(n for n, _ in axes_of(naming.call.program, naming.call.phase)))
    sums: list[tuple[Source, int]] = []
    belongs: dict[str, Source] = {}
    for leaf, root in derived.sums:
        of = naming.leaves.get(leaf)
        if of is None:
            continue
        value = partial.of(root)
        source = Source(naming.names.new(f"d_{of.name}_parts"), partial.body[value].type)
        sums.append((source, value))
        belongs[source.name] = of
    outputs = []
    for number, value in derived.outputs:
        of = naming.leaves.get(("given", number))
        if of is not None:
            part = partial.of(value)
            axes = {*of.type.axes, *(a for a in partial.body[part].type.axes if a in lanes)}
            type = replace(of.type, axes=tuple(sorted(axes, key=partial.order.index)))
            source = Source(naming.names.new(f"d_{of.name}"), type)
            outputs.append((source, part))
            belongs[source.name] = of
    job = _job(naming, derived, tuple(partial.body), name, tuple(outputs), tuple(sums))
    return job, belongs


def _job(
    naming: Naming,
    derived: BackwardLoop,
    body: tuple[Instr, ...],
    name: str,
    outputs: tuple[tuple[Source, int], ...],
    sums: tuple[tuple[Source, int], ...],
) -> Job:
    call = naming.call
    axes = axes_of(call.program, call.phase)
    order = [n for n, _ in axes]
    body, apart = taken_apart(body, order)
    results = [apart[v] for _, v in (*outputs, *sums)]
    body, again = reordered(body, [apart[v] for _, v in derived.carry], results, ("cotangent",), order)
    where = {old: again[at] for old, at in apart.items() if at in again}
    carry = tuple((key, where[v]) for key, v in derived.carry)
    outputs = tuple((source, where[v]) for source, v in outputs)
    sums = tuple((source, where[v]) for source, v in sums)
    results = [v for _, v in (*outputs, *sums)]
    stage = _stages(body, [v for _, v in carry], results, ("cotangent",), together=False)
    carried: dict[int, Key] = {}
    boundaries: dict[int, Key] = {}
    keys: dict[Key, None] = {key: None for key, _ in derived.carry}
    sources = sources_of(body, stage, naming)
    for value, instr in enumerate(body):
        if instr.op == "cotangent":
            key = (instr.attr("state"), instr.attr("period"))
            keys[key] = None
            if stage[value] is not None:
                carried[value] = key
        elif stage[value] is not None and instr.op == "boundary":
            boundaries[value] = (instr.attr("state"), instr.attr("period"))
        elif stage[value] is not None and instr.op == "cotangent_of":
            output = naming.outputs[instr.attr("value")]
            sources[value] = Source(naming.cotangent(output.name), output.type)
    held = naming.variables
    variables = {key: Source(naming.cotangent(held[key].name), held[key].type) for key in keys}
    return Job(
        name=name,
        body=body,
        stages=stage,
        axes=axes,
        sources=sources,
        numbers=numbers_of(body, naming),
        carried=carried,
        boundaries=boundaries,
        variables=variables,
        carry=carry,
        outputs=outputs,
        sums=sums,
        anchors=call.phase.anchors,
        resets={
            s: (_clock(call.program, s), Source(naming.cotangent(source.name), source.type))
            for s, source in naming.initials.items()
        },
        reverse=True,
        equations=naming.equations,
    )


def tensors(call: LoopCall, *kinds: str) -> list[LoopTensor]:
    """The arguments of these kinds."""
    return [a for a in call.arguments if a.kind in kinds]
