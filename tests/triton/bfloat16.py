"""bfloat16 in Triton's interpreter as the hardware has it.

The interpreter keeps bfloat16 as bits in integers. It multiplies matrices of these integers instead of the numbers, and
cuts a float32 off where the hardware rounds to the nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def rounded(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 as bits of the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(numbers, dtype=np.float32).view(np.uint32)
    up = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    found: np.ndarray[Any, Any] = np.where(np.isnan(numbers), np.uint32(0x7FC0), (bits + up) >> 16).astype(np.uint16)
    return found


def widened(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The numbers, in float32."""
    numbers: np.ndarray[Any, Any] = (bits.astype(np.uint32) << 16).view(np.float32)
    return numbers


def repair(setattr: Callable[[Any, str, Any], None]) -> None:
    """Repair the interpreter; ``setattr`` puts the functions where they belong."""
    import triton.language as tl
    from triton.runtime import interpreter

    handle, builder = interpreter.TensorHandle, interpreter.InterpreterBuilder
    product, cast = builder.create_dot, builder.cast_impl

    def wide(operand: Any) -> Any:
        return handle(widened(operand.data), tl.float32) if operand.dtype.scalar == tl.bfloat16 else operand

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return product(self, wide(a), wide(b), d, *rest)

    def cast_impl(self: Any, source: Any, type: Any) -> Any:
        if source.dtype.scalar == tl.float32 and type.scalar == tl.bfloat16:
            return handle(rounded(source.data), tl.bfloat16)
        return cast(self, source, type)

    setattr(builder, "create_dot", create_dot)
    setattr(builder, "cast_impl", cast_impl)
