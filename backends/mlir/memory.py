"""Where the buffers of a kernel lie in scratch memory, and how a kernel gets at its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.backends.mlir.text import MEMREF

ALIGNED = 64  # bytes
STEP = "//~"  # a line of its own where a step begins


@dataclass
class Buffer:
    """A tensor in the scratch memory of a thread; the steps in which it is used say when its place is free."""

    name: str
    size: int
    first: int
    last: int
    offset: int = 0


def place(buffers: Sequence[Buffer], entry: int) -> int:
    """Offsets of the buffers, so that those in use at once do not overlap; the bytes they need together."""
    placed: list[Buffer] = []
    end = 0
    for buffer in sorted(buffers, key=lambda b: (b.first, -b.size)):
        size = buffer.size * entry + ALIGNED
        busy = sorted(
            (b.offset, b.offset + -(-(b.size * entry + ALIGNED) // ALIGNED) * ALIGNED)
            for b in placed
            if b.first <= buffer.last and buffer.first <= b.last
        )
        offset = 0
        for start, stop in busy:
            if offset + size <= start:
                break
            offset = max(offset, stop)
        buffer.offset = offset
        placed.append(buffer)
        end = max(end, offset + -(-size // ALIGNED) * ALIGNED)
    return end + ALIGNED


def helpers(real: str) -> str:
    """Functions that read the table, and that make memrefs of addresses."""
    struct = "!llvm.struct<(ptr, ptr, i64, array<1 x i64>, array<1 x i64>)>"
    lines = [
        "func.func private @nl_number(%p: !llvm.ptr, %i: i64) -> i64 {",
        "  %q = llvm.getelementptr %p[%i] : (!llvm.ptr, i64) -> !llvm.ptr, i64",
        "  %n = llvm.load %q : !llvm.ptr -> i64",
        "  return %n : i64",
        "}",
        "func.func private @nl_address(%p: !llvm.ptr, %i: i64) -> !llvm.ptr {",
        "  %pp = llvm.getelementptr %p[%i] : (!llvm.ptr, i64) -> !llvm.ptr, i64",
        "  %q = llvm.load %pp : !llvm.ptr -> !llvm.ptr",
        "  return %q : !llvm.ptr",
        "}",
        "func.func private @nl_scratch(%p: !llvm.ptr, %i: i64) -> !llvm.ptr {",
        "  %q = llvm.getelementptr %p[%i] : (!llvm.ptr, i64) -> !llvm.ptr, i8",
        "  return %q : !llvm.ptr",
        "}",
    ]
    for element in (real, "i64"):
        memref = MEMREF[element]
        lines.append(f"func.func private @nl_tensor_{element}(%q: !llvm.ptr) -> {memref} {{")
        lines.append("  %z = llvm.mlir.constant(0 : i64) : i64")
        lines.append("  %o = llvm.mlir.constant(1 : i64) : i64")
        lines.append("  %n = llvm.mlir.constant(9223372036854775807 : i64) : i64")
        lines.append(f"  %u = llvm.mlir.undef : {struct}")
        previous = "%u"
        for name, value, where in (
            ("a", "%q", "0"),
            ("b", "%q", "1"),
            ("c", "%z", "2"),
            ("d", "%n", "3, 0"),
            ("e", "%o", "4, 0"),
        ):
            lines.append(f"  %{name} = llvm.insertvalue {value}, {previous}[{where}] : {struct}")
            previous = f"%{name}"
        lines.append(f"  %m = builtin.unrealized_conversion_cast %e : {struct} to {memref}")
        lines.append(f"  return %m : {memref}")
        lines.append("}")
    return "\n".join(lines)
