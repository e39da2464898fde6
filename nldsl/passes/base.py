"""What a pass is, and how one rebuilds a body: instructions are copied in order, the pass decides about each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Protocol

from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.ir.program import Axis, Instr, Program


class Pass(Protocol):
    """A frozen dataclass; its fields are its options. Needs and gives a program that ``ir/verify.py`` accepts."""

    name: ClassVar[str]

    def apply(self, program: Program) -> Program: ...


# The new value of an instruction, from the builder of the new body and the instruction's new operands.
Rewrite = Callable[[Builder, Instr, tuple[int, ...]], int]


def copy(builder: Builder, instr: Instr, args: tuple[int, ...]) -> int:
    """The instruction itself; its type is inferred anew, for an operand may have fewer axes than before."""
    if instr.op in ops.LEAVES:
        return builder.leaf(instr.op, instr.type, instr.name, instr.span, **dict(instr.attrs))
    return builder.emit(instr.op, *args, name=instr.name, span=instr.span, **dict(instr.attrs))


def rebuild(body: tuple[Instr, ...], builder: Builder, rewrite: Rewrite) -> list[int]:
    """The new value of each instruction of ``body``, made in order under its guard."""
    values: list[int] = []
    for instr in body:
        builder.guard = instr.guard
        values.append(rewrite(builder, instr, tuple(values[a] for a in instr.args)))
    builder.guard = None
    return values


def rewrite_program(program: Program, rewrite: Rewrite) -> Program:
    """Both bodies rebuilt with the same rewrite. Axes that it adds to the builder must be declared by the caller."""
    axes = list(program.axis_names())
    body, init = Builder(axes), Builder(axes)
    body_values = rebuild(program.body, body, rewrite)
    init_values = rebuild(program.init, init, rewrite)
    return with_bodies(program, body, body_values, init, init_values)


def with_bodies(
    program: Program, body: Builder, body_values: list[int], init: Builder, init_values: list[int]
) -> Program:
    """``program`` with new bodies, everything that names a value of the old ones renumbered."""

    def renumber(pairs: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        return tuple((name, body_values[value]) for name, value in pairs)

    return replace(
        program,
        body=tuple(body.instrs),
        init=tuple(init.instrs),
        states=tuple(replace(s, init=init_values[s.init]) for s in program.states),
        updates=renumber(program.updates),
        outputs=renumber(program.outputs),
        losses=renumber(program.losses),
        probes=renumber(program.probes),
    )


def with_axes(program: Program, added: dict[str, Axis]) -> Program:
    """``program`` with these mapped axes declared after its own."""
    return replace(program, axes=program.axes + tuple(added.values()))
