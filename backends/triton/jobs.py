"""Jobs from loops: the forward run of a ``ChunkLoop``, and the way back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from nldsl.backends.triton.job import Job, Key, Source
from nldsl.dims import Dim
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program
from nldsl.ir.stages import stages
from nldsl.ir.types import TIME, Type


class Names:
    """Python names from the names of a program, each once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = {"tick", "N", "T", "B", "TICKS", "rows", "bounds", "constants", "out", *taken}

    def new(self, hint: str) -> str:
        base = re.sub(r"\W", "_", hint, flags=re.ASCII).strip("_") or "x"
        base = base if base[0].isalpha() else f"x{base}"
        name, count = base, 1
        while name in self.taken:
            count += 1
            name = f"{base}_{count}"
        self.taken.add(name)
        return name


def axes_of(program: Program, loop: ChunkLoop) -> tuple[tuple[str, Dim | None], ...]:
    """All mapped axes of a loop in canonical order, with their sizes."""
    known: list[tuple[str, Dim | None]] = [(a.name, a.size) for a in program.axes if a.size is None]
    known.append((TIME, None))
    known += [(a.name, a.size) for a in program.axes if a.size is not None]
    known += [(a.name, a.size) for a in loop.lanes]
    return tuple(known)


def variable_types(program: Program, loop: ChunkLoop) -> dict[str, Type]:
    """What the loop carries: its states, packs instead of their members."""
    packed = {state for pack in loop.packs for state in pack.states}
    found = {name: program.state(name).type for name in loop.states if name not in packed}
    order = [name for name, _ in axes_of(program, loop)]
    for pack in loop.packs:
        type = program.state(pack.states[0]).type
        axes = tuple(sorted((*type.axes, pack.axis), key=order.index))
        found[pack.name] = replace(type, axes=axes)
    return found


def forward_job(
    program: Program, loop: ChunkLoop, name: str, sources: Mapping[int, Source], names: Names, keep: bool
) -> Job:
    """``sources`` are the tensors behind given values, parameters and states of other loops, by value of the body.
    ``keep``: the way back needs the carried values."""
    stage = stages(loop)
    types = variable_types(program, loop)
    variables: dict[Key, Source] = {(s, 0): Source(names.new(s), type) for s, type in types.items()}
    for state, period in loop.anchors:
        variables[state, period] = Source(names.new(f"{state}_at_{period}"), types[state])
    carried: dict[int, Key] = {}
    for value, instr in enumerate(loop.body):
        if stage[value] is None or instr.op not in ("state", "anchor"):
            continue
        state = instr.attr("state")
        if state in types:
            carried[value] = (state, instr.attr("period") if instr.op == "anchor" else 0)
    outputs = []
    order = [n for n, _ in axes_of(program, loop)]
    for value, inside in loop.outputs:
        type = program.body[value].type
        axes = tuple(sorted({*type.axes, TIME}, key=order.index))
        outputs.append((Source(names.new(program.body[value].name or "y"), replace(type, axes=axes)), inside))
    resets = {}
    for state, type in types.items():
        members = next((p.states for p in loop.packs if p.name == state), (state,))
        clock = program.state(members[0]).reset.clock
        if clock is not None and program.state(members[0]).reset.kind == "clock":
            resets[state] = (clock, Source(names.new(f"{state}_initial"), type))
    return Job(
        name,
        loop.body,
        stage,
        axes_of(program, loop),
        sources,
        carried,
        {},
        variables,
        tuple(((s, 0), v) for s, v in loop.carry),
        tuple(outputs),
        anchors=loop.anchors,
        resets=resets,
        keep=tuple(variables) if keep else (),
    )
