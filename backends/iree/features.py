"""Which extensions of x86-64 a module needs: IREE does not check them, and a CPU without them stops the process."""

from __future__ import annotations

from pathlib import Path

_V2 = ("cx16", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
LEVELS = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}
# What LLVM makes use of in code of numbers, where ``host`` has it; other flags of Linux are of no matter to a module
_USED = ("avx", "bmi", "sse", "ssse", "fma", "f16c", "popcnt", "movbe", "amx", "gfni", "adx", "abm", "vaes", "vpclmul")


def features_of(cpu: str, info: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The extensions that a module for ``cpu`` may use, by the names of Linux; empty where they are not known."""
    if cpu in LEVELS:
        return sorted(LEVELS[cpu])
    if cpu != "host":
        return []
    try:
        lines = info.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return sorted({f for f in flags if f.startswith(_USED)})
