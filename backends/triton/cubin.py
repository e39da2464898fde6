"""Compile kernels for a GPU that need not be there, and read what the compiler says about them."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nldsl.backends.triton.host import Written, column_block, shortened, stages, warps
from nldsl.backends.triton.memory import pointer
from nldsl.backends.triton.tick_host import TickWritten
from nldsl.backends.triton.tick_host import warps as tick_warps
from nldsl.backends.triton.tick_kernel import CUTS, NUMBERS
from nldsl.backends.triton.tiles import more_blocks
from nldsl.extras import require
from nldsl.ir.types import TIME

# What vectors may be: the type of pointers, that of products, and how products of float32 are taken (``tf32``: where
# ``torch.backends.cuda.matmul.allow_tf32`` is set).
DTYPES = {
    "bf16": ("bf16", "bfloat16", "ieee"),
    "fp16": ("fp16", "float16", "ieee"),
    "fp32": ("fp32", "float32", "tf32x3"),
    "tf32": ("fp32", "float32", "tf32"),
}


@dataclass(frozen=True)
class Report:
    """What one thread and one program of a kernel use: registers, bytes spilled, bytes of shared memory."""

    name: str
    registers: int
    spilled: int
    shared: int

    def __str__(self) -> str:
        return f"{self.name}: {self.registers} registers, {self.spilled} bytes spilled, {self.shared} bytes shared"


def compile_kernel(
    kernel: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    capability: int = 90,
    warps: int = 4,
    stages: int = 2,
) -> Report:
    """Compile a ``triton.jit`` function to machine code of ``sm_<capability>``.

    ``types`` has the type of each argument that is no constant (``*fp32``, ``i64``). Needs no GPU. Raises what the
    compiler raises.
    """
    triton = require("triton", "triton", "to compile kernels")
    compiler = require("triton.compiler", "triton")
    base = require("triton.backends.compiler", "triton")
    places = {name: n for n, name in enumerate(kernel.arg_names)}
    attributes = {(places[name],): [["tt.divisibility", 16]] for name, type in types.items() if type.startswith("*")}
    signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
    known = {name: value for name, value in constants.items() if name in places}
    source = compiler.ASTSource(fn=kernel, signature=signature, constexprs=known, attrs=attributes)
    target = base.GPUTarget("cuda", capability, 32)
    options = {"num_warps": warps, "num_stages": stages}
    compiled = triton.compile(source, target=target, options=options)
    return _report(compiled, capability)


def compile_jobs(
    jobs: Iterable[Written], module: Any, capability: int = 90, part: str = "", dtype: str = "bf16"
) -> list[Report]:
    """Compile the kernels of jobs, which an emitted ``module`` has, as they are launched for vectors of a type.

    ``part``: only kernels with this in their names. ``dtype``: one of ``DTYPES``. Gates (also streams of numbers),
    states and workspaces are float32, but for workspaces in the type of products.
    """
    found = []
    own_type = DTYPES[dtype][0]
    for written in jobs:
        if isinstance(written, TickWritten):
            found += [_ticks(written, module, capability, dtype)] if part in written.kernel.name else []
            continue
        half = own_type != "fp32"
        block = written.frame.block if half or not shortened(written) else written.frame.single
        constants = {"BT": block, "LOG_BT": block.bit_length() - 1, **_types(dtype)}
        streams = [*written.inputs, *(s for s, _ in written.job.outputs)]
        wide = {s.name for s in streams if s.wide} | {name for name, s in written.like.items() if s.wide}
        low = {s.name for s in streams if TIME in s.type.axes and s.type.shape} - wide
        low |= {slot.name for slot in written.spaces.every() if slot.narrow}
        for kernel in written.kernels:
            if part not in kernel.name:
                continue
            types = {
                name if name == "tick" else pointer(name): "i64" if name == "tick" else "*i64" for name in kernel.frame
            }
            for name in (*kernel.arguments, *kernel.workspaces):
                types[pointer(name)] = f"*{own_type}" if name in low else "*fp32"
            own = {
                **constants,
                "BV": column_block(kernel) if half or not kernel.tiles else max(16, column_block(kernel) // 2),
                "BP": kernel.part_block,
                **more_blocks(" ".join(kernel.blocks), block),
            }
            function = getattr(module, kernel.name)
            found.append(compile_kernel(function, types, own, capability, warps(kernel), stages(kernel)))
    return found


def _types(dtype: str) -> dict[str, Any]:
    """What kernels compute in for vectors of a type, as ``host_library.kernel_types`` has it."""
    language = require("triton.language", "triton")
    _, product, precision = DTYPES[dtype]
    return {
        "REAL": language.float32,
        "DOT": getattr(language, product),
        "PRECISION": precision,
        "SOLVE": "tf32x3",
    }


def _ticks(written: TickWritten, module: Any, capability: int, dtype: str) -> Report:
    """The kernel of a loop over ticks."""
    kernel = written.kernel
    known = _types(dtype)
    streams = [*written.inputs, *(s for s, _ in written.job.outputs)]
    low = {s.name for s in streams if TIME in s.type.axes and s.type.shape}
    whole = {s.name for s in streams if s.type.kind == "int"}
    types = dict.fromkeys(kernel.mentioned(NUMBERS), "i32") | dict.fromkeys(kernel.mentioned([pointer(CUTS)]), "*i64")
    for name in kernel.pointers:
        types[pointer(name)] = "*i64" if name in whole else f"*{DTYPES[dtype][0]}" if name in low else "*fp32"
    constants = {c: kernel.columns.block if c == "BV" else known[c] for c in kernel.constants}
    return compile_kernel(getattr(module, kernel.name), types, constants, capability, tick_warps(kernel), 1)


def _report(compiled: Any, capability: int) -> Report:
    """Registers and spills are what ``ptxas`` says about the PTX of a kernel."""
    name = compiled.metadata.name
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "kernel.ptx"
        text.write_text(compiled.asm["ptx"], encoding="utf-8")
        suffix = "a" if capability >= 90 else ""
        options = ["-v", "--regAllocOptLevel=2", f"--gpu-name=sm_{capability}{suffix}"]  # what Triton itself passes
        command = [_ptxas(capability), *options, str(text), "-o", str(text.with_suffix(".o"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"ptxas: {done.stderr}")
    found = re.search(r"Used (\d+) registers", done.stderr)
    spilled = [int(n) for n in re.findall(r"(\d+) bytes spill", done.stderr)]
    return Report(name, int(found.group(1)) if found else -1, sum(spilled), compiled.metadata.shared)


def _ptxas(capability: int) -> str:
    """The assembler that Triton uses for this target."""
    backend = require("triton.backends.nvidia.compiler", "triton")
    found = backend.get_ptxas(capability)
    return str(getattr(found, "path", found[0] if isinstance(found, tuple) else found))
