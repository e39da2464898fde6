"""From MLIR text to native functions: the JIT of the torch-mlir wheel, for the CPU at hand."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nldsl.extras import require

# What `convert-to-llvm` converts in one walk is not converted dialect by dialect, and nothing is made simpler that LLVM
# makes simpler anyway: a third of the time, and the same code.
PIPELINE = (
    "builtin.module(inline{default-pipeline=},convert-math-to-llvm,convert-math-to-libm,convert-scf-to-cf,"
    "convert-to-llvm,reconcile-unrealized-casts)"
)
LEVEL = 2  # of LLVM: 3 takes a quarter longer to unroll what is unrolled enough, and what it makes is no faster
PASSES = f"{PIPELINE} O{LEVEL}"  # what code depends on: part of the key of a cache
Packed = Any  # a ctypes function of one pointer: the addresses of the arguments


@lru_cache(maxsize=1)
def cpu_features() -> frozenset[str]:
    """The vector extensions of the host."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    line = next((x for x in text.splitlines() if x.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split()) & {"avx", "avx2", "fma", "avx512f", "avx512vl", "asimd", "sve"}


def vector_bytes() -> int:
    """How long the vectors of the host are."""
    found = cpu_features()
    if "avx512f" in found:
        return 64
    if "avx2" in found:
        return 32
    return 16


def target() -> str:
    """What native code depends on: part of the key of a cache."""
    return f"{platform.machine()} {' '.join(sorted(cpu_features()))}"


@dataclass
class Native:
    """A function in memory; ``owner`` keeps its code alive."""

    address: Packed
    owner: object


def compile_text(text: str, name: str, objects: Path | None = None) -> Native:
    """Compile a module and give its function ``name``; also write it as an object file to ``objects``."""
    require("torch_mlir", "mlir")
    from torch_mlir import ir
    from torch_mlir.execution_engine import ExecutionEngine
    from torch_mlir.passmanager import PassManager

    with ir.Context():
        module = ir.Module.parse(text)
        PassManager.parse(PIPELINE).run(module.operation)
        engine = ExecutionEngine(module, opt_level=LEVEL, enable_object_dump=objects is not None, enable_pic=True)
        address = engine.raw_lookup(name)
        if not address:
            raise RuntimeError(f"the compiled module has no function {name}")
        if objects is not None:
            engine.dump_to_object_file(str(objects))
    return Native(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address), engine)
