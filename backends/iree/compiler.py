"""MLIR text to a module of IREE's virtual machine, for this CPU or for a GPU that need not be here."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from nldsl.backends.iree.text import DEVICE
from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.extras import require
from nldsl.source import NO_SPAN

TARGETS = ("llvm-cpu", "cuda")
# What is tried, in this order. From O2 on IREE fuses more than it can then compile (an update of several states, for
# example). Where it fuses a mask made of places into a sum, its kernels for sums on GPUs cannot be spread over threads
# ("failed to distribute"): then sums take the way of other operations.
PLAIN_SUMS = "--iree-codegen-llvmgpu-use-reduction-vector-distribution=false"
ATTEMPTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "llvm-cpu": (("--iree-opt-level=O1",), ("--iree-opt-level=O0",)),
    "cuda": (
        ("--iree-opt-level=O1",),
        ("--iree-opt-level=O1", PLAIN_SUMS),
        ("--iree-opt-level=O0", PLAIN_SUMS),
    ),
}
# Checking the IR between passes is a fifth of the time of the compiler; nobody debugs its machine code; constants are
# few, and computing them while compiling means to compile a module for that. Where tensors are is asked along chains of
# operations, which are as long as a program makes them: an unrolled iteration has thousands
QUICK = (
    "--iree-stream-affinity-solver-max-iterations=100000",
    "--verify=false",
    "--iree-opt-const-eval=false",
    "--iree-llvmcpu-debug-symbols=false",
    "--iree-llvmcpu-slp-vectorization=false",
)
_CPU = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UNKNOWN = re.compile(r"Unknown CPU|Unknown CUDA target|not a recognized processor")
_EXAMPLES = "for example `host`, `generic`, `x86-64-v3` or `sm_80`"
_SIGNAL = re.compile(r"^Error code: -(\d+)$", re.MULTILINE)
_PASS = re.compile(r"(?:::|\b)(\w+Pass)::runOnOperation")
_FIRST = re.compile(r"^(?P<place>\S+?:\d+:\d+): error: (?P<message>.*)$", re.MULTILINE)


def flags(target: str, cpu: str = "host", gpu: str = "sm_80") -> list[str]:
    """The options of the compiler for a target."""
    if target not in TARGETS:
        raise problem(f"no target `{target}`", f"there are {', '.join(TARGETS)}")
    for name in (cpu, gpu):
        if not _CPU.fullmatch(name):
            raise problem(f"no processor has the name {name!r}", _EXAMPLES)
    if target == "cuda":
        return [f"--iree-hal-target-device={DEVICE}=cuda", f"--iree-cuda-target={gpu}"]
    device = [f"--iree-hal-target-device={DEVICE}=local", "--iree-hal-local-target-device-backends=llvm-cpu"]
    return [*device, f"--iree-llvmcpu-target-cpu={cpu}"]


def options_of(target: str, cpu: str = "host", gpu: str = "sm_80") -> list[str]:
    """All options that modules are compiled with."""
    return [*flags(target, cpu, gpu), *QUICK, *(option for tried in ATTEMPTS[target] for option in tried)]


def compile_text(text: str, target: str = "llvm-cpu", cpu: str = "host", gpu: str = "sm_80") -> bytes:
    """The module as bytes. Raises DiagnosticError with the compiler's first finding; what was compiled is kept."""
    options = flags(target, cpu, gpu)
    compiler = require("iree.compiler", extra="mlir", why="to compile a module of IREE")
    processor = cpu if target == "llvm-cpu" else gpu
    found: object = None
    for attempt in ATTEMPTS[target]:
        try:
            found = compiler.compile_str(
                text,
                input_type="none",
                extra_args=[*options, *QUICK, *attempt],
                strip_source_map=True,
            )
            break
        except compiler.CompilerToolError as error:
            if _UNKNOWN.search(str(error)):
                raise problem(f"IREE knows no processor `{processor}` for {target}", _EXAMPLES) from None
            if attempt == ATTEMPTS[target][-1]:
                raise _failed(text, target, str(error)) from None
    if not isinstance(found, bytes):
        raise _failed(text, target, "the compiler gave no module")
    return found


def _failed(text: str, target: str, said: str) -> DiagnosticError:
    first = _FIRST.search(said)
    message = first["message"] if first else said.strip().partition("\n")[0]
    stopped = _SIGNAL.search(said)
    if stopped and not first:
        where = _PASS.search(said)
        message = f"the compiler was stopped by signal {stopped[1]}" + (f" in {where[1]}" if where else "")
    folder = Path(tempfile.mkdtemp(prefix="nldsl-iree-"))
    (folder / "module.mlir").write_text(text, encoding="utf-8")
    (folder / "said.txt").write_text(said, encoding="utf-8")
    hint = f"the MLIR and all that IREE said are in {folder}; please report it"
    return problem(f"IREE cannot compile the module for {target}: {message}", hint)


def problem(message: str, hint: str) -> DiagnosticError:
    """What IREE cannot do, as an error to raise."""
    return DiagnosticError(Diagnostic("NL0797", message, NO_SPAN, hints=(hint,)))
