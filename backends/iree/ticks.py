"""A loop over ticks as a loop over segments of one tick: one kind of loop is enough, and its derivative exists."""

from __future__ import annotations

from nldsl.backends.iree.copies import Copies
from nldsl.ir.build import Builder
from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.program import Program
from nldsl.ir.schedule import Scan, anchors
from nldsl.ir.types import TIME, Type


def as_loop(program: Program, scan: Scan) -> ChunkLoop:
    """The loop whose segments have one tick. Its body is only right for ``ticks`` = 1."""
    builder = Builder([*program.axis_names()])
    copies = Copies(builder, program.body, lambda v: _leaf(builder, program, v, scan))
    copies.run(scan.values)
    updates = dict(program.updates)
    carry = tuple((name, copies.take(updates[name])) for name in scan.states if name in updates)
    outputs = tuple((v, copies.take(v)) for v in scan.exports)
    own = tuple(key for key in anchors(program) if key[0] in scan.states)
    return ChunkLoop(scan, tuple(builder.instrs), carry, outputs, (), own, 1, kind="tick by tick", hoist=False)


def _leaf(builder: Builder, program: Program, v: int, scan: Scan) -> int:
    instr = program.body[v]
    attrs = dict(instr.attrs)
    if instr.op in ("const", "iota"):
        return builder.emit(instr.op, span=instr.span, **attrs)
    own = instr.op in ("state", "anchor") and instr.attr("state") in scan.states
    if own or instr.op == "param" or (instr.op == "state" and instr.attr("state") not in dict(program.updates)):
        return builder.leaf(instr.op, instr.type, instr.name, instr.span, **attrs)
    every = Type(instr.type.shape, builder.order((*instr.type.axes, TIME)), instr.type.kind)
    if instr.op == "clock":
        leaf = builder.leaf("clock", every, instr.name, instr.span, **attrs)
    else:
        leaf = builder.leaf("given", every, instr.name, instr.span, value=v)
    rows = builder.emit("collect", leaf, axis=TIME, size=TICKS, span=instr.span)
    return builder.emit("sum", rows, dims=(0,), span=instr.span)  # of one tick
