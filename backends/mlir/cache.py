"""Compiled modules on disk: shared objects keyed by everything that went into them.

A key is the text of the module, the versions of the compiler, and the CPU. An entry is one file, written aside and
renamed: the shared object, and behind it a line with the hash of both and the CPU it is for, which are compared
before it is loaded (a loader does not read past what the object says it has). What does not fit is said, removed, and
compiled again. Nothing is ever unpickled. ``trim.py`` removes what has not been used for longest.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import subprocess
import tempfile
import warnings
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from nldsl.backends.mlir.engine import PASSES, Native, compile_text, target
from nldsl.backends.mlir.outlined import plain
from nldsl.backends.mlir.trim import trim

LAYOUT = "3"  # of an entry: another number never meets older entries
MARK = b"\nnldsl-code "  # begins the line behind the object


class CacheWarning(UserWarning):
    """An entry of the cache that could not be used."""


def directory() -> Path | None:
    """The private folder of the cache: ``NLDSL_CACHE``, else under the user's; None where that says ``off``."""
    chosen = os.environ.get("NLDSL_CACHE", "")
    if chosen.lower() in ("off", "0", "no"):
        return None
    base = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nldsl"
    folder = base / "mlir"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
    except OSError:
        return None
    if hasattr(os, "getuid") and (info.st_uid != os.getuid() or info.st_mode & 0o022):
        return None  # others could put code there
    return folder


@lru_cache(maxsize=1)
def _versions() -> str:
    """The compilers that code depends on."""
    found = []
    for name in ("torch-mlir", "iree-base-compiler"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return "; ".join(found)


def key_of(text: str) -> str:
    """The name of an entry."""
    code = "\n".join(plain(text.split("\n")))  # the same code from other places of a program, or of another one
    parts = (LAYOUT, code, PASSES, _versions(), target())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def depends() -> tuple[str, ...]:
    """What code depends on besides the program and this package: part of the name of a program's entry."""
    return LAYOUT, PASSES, _versions(), target()


def kept(key: str, name: str) -> Native | None:
    """The function ``name`` of the entry ``key``, if it is there."""
    folder = directory()
    return None if folder is None else _loaded(folder / f"{key}.so", name)


def compiled(text: str, name: str) -> Native:
    """The function ``name`` of a module, from the cache where it has it."""
    folder = directory()
    lld = linker()
    if folder is None or lld is None:
        return compile_text(text, name)
    entry = folder / f"{key_of(text)}.so"
    found = _loaded(entry, name)
    if found is not None:
        return found
    with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as work:
        objects, library = Path(work) / "loop.o", Path(work) / "loop.so"
        native = compile_text(text, name, objects)
        command = [str(lld), "-flavor", "gnu", "-shared", "-Bsymbolic", "-o", str(library), str(objects)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0 and library.exists():
            with library.open("ab") as file:
                file.write(checked(library.read_bytes(), target()))
            library.replace(entry)
    trim(folder)
    return native


def checked(data: bytes, cpu: str) -> bytes:
    """The line behind an object."""
    return MARK + f"{hashlib.sha256(data + cpu.encode()).hexdigest()} {cpu}\n".encode("ascii")


def linker() -> Path | None:
    """The linker in IREE's compiler wheel: no toolchain is needed."""
    spec = find_spec("iree.compiler") if find_spec("iree") else None
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / "_mlir_libs" / "iree-lld"
    return path if path.exists() else None


def _loaded(entry: Path, name: str) -> Native | None:
    """An entry whose bytes are what was written, for this CPU; another one is removed."""
    try:
        whole = entry.read_bytes()
    except OSError:
        return None
    data, _, noted = whole.rpartition(MARK)
    digest, _, cpu = noted.decode("ascii", "replace").rstrip("\n").partition(" ")
    if hashlib.sha256(data + cpu.encode()).hexdigest() != digest:
        _remove(entry, "it is damaged")
        return None
    if cpu != target():
        _remove(entry, f"it is for another CPU ({cpu or 'unknown'}; this one: {target()})")
        return None
    try:
        library = ctypes.CDLL(str(entry))
        address = ctypes.cast(library[f"_mlir_{name}"], ctypes.c_void_p).value
    except (OSError, AttributeError) as problem:
        _remove(entry, f"it cannot be loaded ({problem})")
        return None
    assert address is not None
    with contextlib.suppress(OSError):
        os.utime(entry)  # the oldest are removed, so what is used stays
    return Native(ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address), library)


def _remove(entry: Path, why: str) -> None:
    """Remove an entry, and say so."""
    with contextlib.suppress(OSError):
        entry.unlink(missing_ok=True)
    warnings.warn(f"native code in the cache, {entry}, is compiled again: {why}", CacheWarning, stacklevel=3)
