"""Functions found again by what they are of, without their text: a program of the cache, a loop, a length, a type.

``cache.py`` knows compiled code by its text, which takes longer to write than to compile some of it. An entry here is
a file that names the code and says what its callers need. Its own name is a hash of the program's entry (which
depends on the program, the options, the compiler, and the CPU) and of what the function is of; its first line is the
hash of the rest, compared before it is read. Files are written aside and renamed. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nldsl.backends.mlir.cache import CacheWarning, compiled, directory, kept, key_of
from nldsl.backends.mlir.engine import Native
from nldsl.backends.mlir.facts import read_kernel, stored_kernel
from nldsl.backends.mlir.function import Kernel, UnsupportedError

LAYOUT = "nldsl-function-1"  # of a file: another one never meets older entries
Parts = tuple[object, ...]  # numbers and texts; the first one is the program's entry in the cache, "" for one without
Made = tuple[Kernel, Any]  # a function, and what else its caller wants to know, as JSON takes it


def function(parts: Parts, make: Callable[[], Made]) -> tuple[Kernel, Native, Any]:
    """A function of a program. ``make`` writes it, and raises UnsupportedError where it has none: that is kept, too."""
    place = _place(parts)
    found = None if place is None else _read(place)
    if found is not None:
        if "refused" in found:
            raise UnsupportedError(found["refused"])
        kernel = read_kernel(found["kernel"])
        native = kept(found["code"], kernel.name)
        if native is not None:
            return kernel, native, found["more"]
    try:
        kernel, more = make()
    except UnsupportedError as problem:
        _write(place, {"refused": str(problem)})
        raise
    native = compiled(kernel.text, kernel.name)
    _write(place, {"kernel": stored_kernel(kernel), "code": key_of(kernel.text), "more": more})
    return kernel, native, more


def answer(parts: Parts, make: Callable[[], Any]) -> Any:
    """What is so of a program, as JSON takes it."""
    place = _place(parts)
    found = None if place is None else _read(place)
    if found is not None:
        return found["answer"]
    result = make()
    _write(place, {"answer": result})
    return result


def _place(parts: Parts) -> Path | None:
    folder = directory() if parts[0] else None
    if folder is None:
        return None
    return folder / f"{hashlib.sha256(repr((LAYOUT, *parts)).encode()).hexdigest()}.json"


def _read(place: Path) -> dict[str, Any] | None:
    try:
        data = place.read_bytes()
    except OSError:
        return None
    check, _, rest = data.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != check:
        place.unlink(missing_ok=True)
        warnings.warn(f"{place} is damaged: what it names is made again", CacheWarning, stacklevel=4)
        return None
    with contextlib.suppress(OSError):
        os.utime(place)
    found: dict[str, Any] = json.loads(rest)
    return found


def _write(place: Path | None, found: dict[str, Any]) -> None:
    """A folder that cannot be written is no error."""
    if place is None:
        return
    rest = json.dumps(found).encode()
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(dir=place.parent, prefix="new-")
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
        Path(temporary).replace(place)
