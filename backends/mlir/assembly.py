"""The function around the code of a segment: its tensors, the loop over lanes, the loop over segments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.backends.mlir.function import HEADER, NUMBERS
from nldsl.backends.mlir.lane import Buffer
from nldsl.backends.mlir.memory import ALIGNED, STEP, helpers
from nldsl.backends.mlir.text import MEMREF, Function
from nldsl.ir.types import BATCH

LONGEST = 400  # lines of one function: LLVM takes more than twice as long for twice as many
NAME = re.compile(r"%\w+")
DEFINED = re.compile(r"(%\w+)(?::\d+)? = ")


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
    body.append(f"      %ticks = arith.muli %segment, {f.index(ticks)} : index")
    body.append("      %start = arith.addi %ticks, %offset : index")
    body.append("      %start_sequences = arith.muli %start, %sequences : index")
    body.append("      %tick = arith.addi %ticks, %tick0 : index")
    outlined = _Outlined(f, buffers, elements, blocks.conditions)
    body += outlined.calls(blocks.segment)
    body += ["    }", *blocks.closing, "  }", "  return", "}"]
    head = [f"func.func @{f.name}(%table: !llvm.ptr, %memory: !llvm.ptr, %begin: i64, %end: i64) {{"]
    head += [f"  {name} = {text}" for text, name in f.constants.items()]
    return "\n".join([helpers(f.real), *outlined.functions, *head, *body, ""])


def _tensors(f: Function, buffers: Sequence[Buffer], elements: Sequence[str]) -> list[str]:
    lines = [f"  %slot{n} = arith.constant {n} : i64" for n in range(HEADER + len(elements))]
    for n, name in enumerate(NUMBERS):
        lines.append(f"  %{name}_i = func.call @nl_number(%table, %slot{n}) : (!llvm.ptr, i64) -> i64")
        lines.append(f"  %{name} = arith.index_cast %{name}_i : i64 to index")
    for n, element in enumerate(elements):
        lines.append(_argument(n, element))
    for buffer in buffers:
        lines += _scratch(f, buffer)
    lines.append("  %lane_begin = arith.index_cast %begin : i64 to index")
    lines.append("  %lane_end = arith.index_cast %end : i64 to index")
    return lines


def _argument(number: int, element: str) -> str:
    call = f"func.call @nl_tensor_{element}(%table, %slot{HEADER + number})"
    return f"  %arg{number} = {call} : (!llvm.ptr, i64) -> {MEMREF[element]}"


def _scratch(f: Function, buffer: Buffer) -> list[str]:
    call = f"func.call @nl_scratch_{f.real}(%memory, {buffer.name}_at)"
    return [
        f"  {buffer.name}_at = arith.constant {buffer.offset} : i64",
        f"  {buffer.name} = {call} : (!llvm.ptr, i64) -> {MEMREF[f.real]}",
    ]


class _Outlined:
    """The steps of a segment as functions of their own: one large function takes LLVM far longer than its parts."""

    def __init__(
        self, f: Function, buffers: Sequence[Buffer], elements: Sequence[str], conditions: Sequence[str]
    ) -> None:
        self.f = f
        self.elements = elements
        self.buffers = {b.name: b for b in buffers}
        self.constants = {name: text for text, name in f.constants.items()}
        self.conditions = set(conditions)
        self.functions: list[str] = []

    def calls(self, lines: Sequence[str]) -> list[str]:
        """The lines with blocks of steps replaced by calls."""
        found: list[str] = []
        block: list[str] = []
        for part in self._steps(lines):
            if block and len(block) + len(part) > LONGEST:
                found += self._called(block)
                block = []
            block += part
        return found + self._called(block)

    @staticmethod
    def _steps(lines: Sequence[str]) -> list[list[str]]:
        parts: list[list[str]] = [[]]
        for line in lines:
            if line.strip() == STEP:
                parts.append([])
            else:
                parts[-1].append(line)
        return parts

    def _called(self, lines: list[str]) -> list[str]:
        code = [line for line in lines if not line.lstrip().startswith("//")]
        text = "\n".join(code)
        defined = set(DEFINED.findall(text))
        if len(code) < LONGEST // 4 or defined & self.conditions:
            return lines
        outside = sorted(set(NAME.findall(re.sub(r'"[^"]*"', "", text))) - defined)
        head: list[str] = []
        passed: list[tuple[str, str]] = []
        for name in outside:
            if name in self.constants:
                head.append(f"  {name} = {self.constants[name]}")
            elif name in self.buffers:
                head += _scratch(self.f, self.buffers[name])
            elif name.startswith("%arg"):
                number = int(name[4:])
                head.append(f"  %slot{HEADER + number} = arith.constant {HEADER + number} : i64")
                head.append(_argument(number, self.elements[number]))
            else:
                passed.append((name, "i1" if name in self.conditions else "index"))
        name = f"@{self.f.name}_{len(self.functions)}"
        pairs = [("%table", "!llvm.ptr"), ("%memory", "!llvm.ptr"), *passed]
        signature = ", ".join(f"{n}: {t}" for n, t in pairs)
        first = f'func.func private {name}({signature}) attributes {{no_inline, passthrough = ["noinline"]}} {{'
        self.functions.append("\n".join([first, *head, *lines, "  return", "}"]))
        given, types = ", ".join(n for n, _ in pairs), ", ".join(t for _, t in pairs)
        return [f"        func.call {name}({given}) : ({types}) -> ()"]
