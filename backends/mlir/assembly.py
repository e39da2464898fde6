"""The function around the code of a segment: its tensors, the loop over lanes, the loop over segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.backends.mlir.function import HEADER, NUMBERS
from nldsl.backends.mlir.memory import ALIGNED, Buffer, helpers
from nldsl.backends.mlir.outlined import Outlined, memref
from nldsl.backends.mlir.text import Function
from nldsl.ir.types import BATCH


@dataclass(frozen=True)
class Blocks:
    """Lines before the loop over segments of a lane, within it, and after it. ``conditions``: their truth values that
    the lines of several steps use."""

    opening: list[str]
    segment: list[str]
    closing: list[str]
    conditions: tuple[str, ...] = ()


def assembled(
    f: Function,
    buffers: Sequence[Buffer],
    elements: Sequence[str],
    lanes: Sequence[tuple[str, int]],
    ticks: int,
    forward: bool,
    blocks: Blocks,
) -> str:
    """The module. ``elements``: of each tensor; ``lanes``: axes with their sizes, the batch first."""
    for number in (0, 1, ticks, ALIGNED):
        f.index(number)
    body = _tensors(f, buffers, elements)
    body.append("  scf.for %lane = %lane_begin to %lane_end step %c1 {")
    rest = "%lane"
    for n in reversed(range(len(lanes))):
        axis, size = lanes[n]
        if axis != BATCH:
            body.append(f"    %lane_{n} = arith.remui {rest}, {f.index(size)} : index")
            body.append(f"    %rest_{n} = arith.divui {rest}, {f.index(size)} : index")
            rest = f"%rest_{n}"
    body.append(f"    %batch = arith.addi {rest}, %c0 : index")
    body.append("    %batch_ticks = arith.muli %batch, %total : index")
    body += blocks.opening
    body.append("    scf.for %round = %c0 to %segments step %c1 {")
    if forward:
        body.append("      %segment = arith.addi %round, %c0 : index")
    else:
        body.append("      %rounds = arith.subi %segments, %c1 : index")
        body.append("      %segment = arith.subi %rounds, %round : index")
    body.append("      %segment_number = arith.addi %segment, %first : index")
    body.append("      %segment_batches = arith.muli %segment_number, %batches : index")
    body.append("      %run_batches = arith.muli %segment, %batches : index")
    body.append(f"      %ticks = arith.muli %segment, {f.index(ticks)} : index")
    body.append("      %start = arith.addi %ticks, %offset : index")
    body.append("      %start_sequences = arith.muli %start, %sequences : index")
    body.append("      %tick = arith.addi %ticks, %tick0 : index")
    tensors = {b.name: f.real for b in buffers} | {f"%arg{n}": element for n, element in enumerate(elements)}
    constants = {name: text for text, name in f.constants.items()}
    outlined = Outlined(f.name, constants, tensors, blocks.conditions)
    body += outlined.calls(blocks.segment)
    body += ["    }", *blocks.closing, "  }", "  return", "}"]
    head = [f"func.func @{f.name}(%table: !llvm.ptr, %memory: !llvm.ptr, %begin: i64, %end: i64) {{"]
    head += [f"  {name} = {text}" for text, name in f.constants.items()]
    return "\n".join([helpers(f.real), *f.helpers.values(), *outlined.functions, *head, *body, ""])


def _tensors(f: Function, buffers: Sequence[Buffer], elements: Sequence[str]) -> list[str]:
    lines = [f"  %slot{n} = arith.constant {n} : i64" for n in range(HEADER + len(elements))]
    for n, name in enumerate(NUMBERS):
        lines.append(f"  %{name}_i = func.call @nl_number(%table, %slot{n}) : (!llvm.ptr, i64) -> i64")
        lines.append(f"  %{name} = arith.index_cast %{name}_i : i64 to index")
    for n, element in enumerate(elements):
        lines.append(f"  %arg{n}_p = func.call @nl_address(%table, %slot{HEADER + n}) : (!llvm.ptr, i64) -> !llvm.ptr")
        lines.append(memref(f"%arg{n}", element))
    for buffer in buffers:
        lines.append(f"  {buffer.name}_at = arith.constant {buffer.offset} : i64")
        place = f"func.call @nl_scratch(%memory, {buffer.name}_at) : (!llvm.ptr, i64) -> !llvm.ptr"
        lines.append(f"  {buffer.name}_p = {place}")
        lines.append(memref(buffer.name, f.real))
    lines.append("  %lane_begin = arith.index_cast %begin : i64 to index")
    lines.append("  %lane_end = arith.index_cast %end : i64 to index")
    return lines
