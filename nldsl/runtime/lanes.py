"""One program for many independent copies: a program without a batch, with one."""

from __future__ import annotations

from dataclasses import replace

from nldsl.ir.build import Builder
from nldsl.ir.program import Axis, Instr, Program
from nldsl.ir.types import BATCH, Type
from nldsl.passes.base import copy, rebuild


def batched(program: Program) -> Program:
    """The same program on a batch of inputs, with a state for each row; parameters stay as they are."""
    if BATCH in program.axis_names():
        return program
    axes = [BATCH, *program.axis_names()]

    def with_batch(type: Type) -> Type:
        return replace(type, axes=(BATCH, *type.axes))

    def rewrite(builder: Builder, instr: Instr, args: tuple[int, ...]) -> int:
        if instr.op in ("input", "state", "anchor"):
            instr = replace(instr, type=with_batch(instr.type))
        return copy(builder, instr, args)

    body, init = Builder(list(axes)), Builder(list(axes))
    values = rebuild(program.body, body, rewrite)
    starts = rebuild(program.init, init, rewrite)
    return replace(
        program,
        axes=(Axis(BATCH, None), *program.axes),
        inputs=tuple(replace(i, type=with_batch(i.type)) for i in program.inputs),
        states=tuple(replace(s, type=with_batch(s.type), init=starts[s.init]) for s in program.states),
        body=tuple(body.instrs),
        init=tuple(init.instrs),
        updates=tuple((name, values[v]) for name, v in program.updates),
        outputs=tuple((name, values[v]) for name, v in program.outputs),
        losses=(),
        probes=(),
    )
