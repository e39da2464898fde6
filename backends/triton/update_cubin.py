"""Compile the kernels of updates for a GPU that need not be there."""

from __future__ import annotations

from typing import Any

from nldsl.backends.triton.cubin import Report, compile_kernel
from nldsl.backends.triton.update_entries import EntryKernels
from nldsl.backends.triton.update_matrix import MatrixKernels
from nldsl.backends.triton.update_numbers import NAME
from nldsl.extras import require

SIZE, PARTS, WARPS, STAGES = 2048, 256, 8, 3  # as the runtime launches them


def compile_entries(kernels: EntryKernels, module: Any, capability: int = 90, half: bool = False) -> list[Report]:
    """All launches of an update entry by entry, for weights in bfloat16 or float32 and states in float32."""
    language = require("triton.language", "triton")
    found = []
    kind = language.bfloat16 if half else language.float32
    known = {"KIND": kind, "REAL": language.float32, "SIZE": SIZE, "PARTS": PARTS, "STORED": False}
    for name in (*kernels.sums, kernels.update):
        function = getattr(module, name)
        constants = {n: x for n, x in known.items() if n in function.arg_names}
        types = {n: _type(n) for n in function.arg_names if n not in constants}
        found.append(compile_kernel(function, types, constants, capability, WARPS, STAGES))
    return found


def compile_matrices(
    kernels: MatrixKernels, module: Any, capability: int = 90, half: bool = True, exact: bool = False
) -> list[Report]:
    """Every kernel of an update for one shape, once. ``exact``: products of float32 by three of TF32, not by one."""
    language = require("triton.language", "triton")
    low = language.bfloat16 if half else language.float32
    known = {"KIND": low, "REAL": language.float32, "DOT": low, "ALIGNED": True, "STORED": False}
    known["PRECISION"] = "tf32x3" if exact else "tf32"
    found: dict[str, Report] = {}
    for call in kernels.calls:
        if call.kernel in found:
            continue
        function = getattr(module, call.kernel)
        constants = {n: known[n] for n in call.constants}
        types = {n: _type(n) for n in function.arg_names if n not in constants}
        for n, (kind, key) in enumerate(call.tensors):
            is_low = half and kind == "slot" and kernels.slots[int(key)][1]
            types[function.arg_names[n]] = "*bf16" if is_low else "*fp32"
        found[call.kernel] = compile_kernel(function, types, constants, capability, call.warps, STAGES)
    return list(found.values())


def compile_numbers(module: Any, capability: int = 90) -> Report:
    """The kernel that counts the ticks."""
    types = {"step_ptr": "*i64", "held_ptr": "*fp32", "shared_ptr": "*fp32"}
    return compile_kernel(getattr(module, NAME), types, {}, capability, 1, STAGES)


def _type(name: str) -> str:
    if not name.endswith("_ptr"):
        return "fp32"
    return "*i64" if name in ("tensors_ptr", "blocks_ptr", "pieces_ptr", "lanes_ptr") else "*fp32"
