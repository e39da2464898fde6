"""Compiled programs on disk, by what they were compiled from: the second process does not compile again.

An entry is a JSON file: the simplified program, the emitted source and what the backend keeps besides; a line before
it has the hash of the rest, which is compared first. Its name is a hash of the checked program with the texts it came
from, the options, and the compiler itself (the text of every file of the package), so that an entry is never stale. It
is written aside and renamed, so that two processes never mix theirs. Entries hold Python source that will be imported;
therefore the folder must belong to the user and be writable by nobody else, as with Python's own ``__pycache__``.

``NLDSL_CACHE`` names another folder, or ``off``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nldsl
from nldsl.ir.print import print_program
from nldsl.ir.program import Program
from nldsl.ir.store import from_plain, spans_of, to_plain

MOST = 200  # entries; the oldest go first
BROKEN = (OSError, ValueError, KeyError, TypeError, IndexError)


class CacheWarning(UserWarning):
    """An entry that could not be used."""


@dataclass(frozen=True)
class Entry:
    """What compiling gave: the program that backends see, and the facts that loading its source needs. ``kept``: what
    the backend wants to know besides, see ``backends.interface.Kept``."""

    program: Program
    source: str
    loss_inputs: tuple[str, ...]
    kept: Any = None


def folder() -> Path | None:
    """Where entries are; None where the user has switched it off or the folder is not safe to use."""
    wish = os.environ.get("NLDSL_CACHE", "")
    if wish.lower() in ("off", "0", "no"):
        return None
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        place = Path(wish) if wish else (Path(home) if home else Path.home() / ".cache") / "nldsl"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.stat()
    except (OSError, RuntimeError):
        return None
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return None
    return place


def key_of(program: Program, *options: object) -> str:
    """The name of the entry for a checked program, before its derivatives are expanded."""
    digest = hashlib.sha256(_compiler())
    spans = spans_of(program)
    files = {s.file.path: s.file.text for s in spans}
    for part in (print_program(program), *map(repr, options), *(t for f in sorted(files.items()) for t in f)):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    digest.update(repr([(s.file.path, s.start, s.end) for s in spans]).encode())
    return digest.hexdigest()[:40]


def read(key: str, before: Program) -> Entry | None:
    """The entry of that name; ``before`` is the program that the key was made from."""
    place = folder()
    if place is None:
        return None
    path = place / f"{key}.json"
    try:
        check, _, rest = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    try:
        if check.decode("ascii", "replace") != _check(key, rest):
            raise ValueError("not what was written")
        found: dict[str, Any] = json.loads(rest)
        program = from_plain(found["program"], before)
        entry = Entry(program, str(found["source"]), tuple(found["loss_inputs"]), found["kept"])
        os.utime(path)  # the oldest are removed, so what is used stays
    except BROKEN:
        warnings.warn(f"the compiled program in {path} is damaged and compiled again", CacheWarning, stacklevel=3)
        return None
    return entry


def write(key: str, entry: Entry, before: Program) -> None:
    """Store an entry; a folder that cannot be written is no error."""
    place = folder()
    if place is None:
        return
    with contextlib.suppress(*BROKEN):
        program = to_plain(entry.program, before)
        if program is None:
            return
        found = {"program": program, "source": entry.source, "loss_inputs": entry.loss_inputs, "kept": entry.kept}
        rest = json.dumps(found).encode()
        handle, temporary = tempfile.mkstemp(dir=place, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(_check(key, rest).encode() + b"\n" + rest)
        Path(temporary).replace(place / f"{key}.json")
        _trim(place)


def _check(key: str, rest: bytes) -> str:
    return f"{key} {hashlib.sha256(rest).hexdigest()}"


def _trim(place: Path) -> None:
    entries = sorted(place.glob("*.json"), key=lambda p: p.stat().st_mtime)
    for path in entries[: max(0, len(entries) - MOST)]:
        path.unlink(missing_ok=True)


@cache
def _compiler() -> bytes:
    """The compiler as it is on disk: a changed file of the package makes every entry another one."""
    root = Path(nldsl.__file__).resolve().parent
    found = hashlib.sha256(nldsl.__version__.encode())
    for folder_, _, names in sorted(os.walk(root, followlinks=True)):
        for name in sorted(names):
            if name.endswith((".py", ".lark")):
                data = Path(folder_, name).read_bytes()  # 450 files: 10 ms, where their sizes and times take 8
                found.update(f"{folder_[len(str(root)) :]}/{name} {len(data)}\n".encode() + data)
    return found.digest()
