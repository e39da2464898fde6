"""Compiled modules of IREE on disk, by everything that went into them: compiling again takes as long as reading them.

An entry is one file: a line with the number of the layout, its own key and the hash of what follows, then the facts
about the module as JSON, then the module. It is written aside and renamed, so that two processes never mix theirs.
What does not fit its first line is said, removed, and compiled again. The folder is that of ``nldsl.runtime.cache``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nldsl.ir.program import Program
from nldsl.runtime.cache import folder, key_of

LAYOUT = "nldsl-module-1"  # another one never meets older entries
MOST = 100  # entries; the oldest go first
Kept = tuple[dict[str, Any], bytes]


class StoreWarning(UserWarning):
    """An entry that could not be used."""


def module_key(program: Program, options: Sequence[str], host: bool) -> str:
    """The name of the entry of a checked program. ``options``: all that the module depends on besides; ``host``: it is
    for the CPU at hand."""
    try:
        compiler = version("iree-base-compiler")
    except PackageNotFoundError:
        compiler = "missing"
    return key_of(program, LAYOUT, compiler, [*options], processor() if host else "", _optimizers(program))


def _optimizers(program: Program) -> list[str]:
    """The memories that train the parameters: they are no part of the program itself."""
    levels = {level.name: level.optimizer for level in program.levels}
    wanted = dict.fromkeys((p.level, tuple(int(str(s)) for s in p.type.shape)) for p in program.params)
    found = []
    for name, shape in wanted:
        make = levels.get(name)
        if make is not None:
            found.append(f"{name} {shape} {key_of(make(shape))}")
    return found


@cache
def processor() -> str:
    """The CPU at hand, with all its extensions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    found = {x.partition(":")[0].strip(): x.partition(":")[2].strip() for x in lines if x.startswith(wanted)}
    return f"{platform.machine()} {sorted(found.items())}"


def read(key: str) -> Kept | None:
    """What ``write`` got for this key."""
    place = _place(key)
    if place is None:
        return None
    try:
        data = place.read_bytes()
    except OSError:
        return None
    head, _, rest = data.partition(b"\n")
    if head.decode("ascii", "replace") != _head(key, rest):
        place.unlink(missing_ok=True)
        warnings.warn(f"the module in {place} is damaged and compiled again", StoreWarning, stacklevel=2)
        return None
    about, _, module = rest.partition(b"\n")
    with contextlib.suppress(OSError):
        os.utime(place)  # the oldest are removed, so what is used stays
    return json.loads(about), module


def write(key: str, about: dict[str, Any], module: bytes) -> None:
    """Store an entry; a folder that cannot be written is no error."""
    place = _place(key)
    if place is None:
        return
    rest = json.dumps(about).encode() + b"\n" + module
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=place.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(_head(key, rest).encode() + b"\n" + rest)
        Path(temporary).replace(place)
        entries = sorted(place.parent.glob("*.module"), key=lambda p: p.stat().st_mtime)
        for old in entries[: max(0, len(entries) - MOST)]:
            old.unlink(missing_ok=True)


def _place(key: str) -> Path | None:
    where = folder()
    return None if where is None else where / f"{key}.module"


def _head(key: str, rest: bytes) -> str:
    return f"{LAYOUT} {key} {hashlib.sha256(rest).hexdigest()}"
