"""The folder of native code has a bound: what has not been used for longest is removed.

Every use of a file sets its time. A file that is removed while a process runs its code stays in that process's memory;
another process that wants it compiles it again. What was written or read within the last hour is never removed, so that
nothing goes between being found and being loaded, and a program's files do not drive out each other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path

MOST_BYTES = 1 << 30  # some ten thousand functions
RECENT = 3600.0  # seconds
LEFT_OVER = 86400.0  # seconds after which an unfinished entry is one of a process that was killed
STAMP = "trimmed"  # its time says when the folder was last looked through


def trim(folder: Path, most: int = MOST_BYTES, recent: float = RECENT) -> None:
    """Looks the folder through, at most once in the time that is ``recent``, and brings it below ``most`` bytes. A
    folder that cannot be changed, and files that others remove at the same time, are no error."""
    now, stamp = time.time(), folder / STAMP
    with contextlib.suppress(OSError):
        if stamp.exists() and abs(now - stamp.stat().st_mtime) < recent:
            return
        stamp.touch()
        _trim(folder, most, now - recent, now - LEFT_OVER)


def _trim(folder: Path, most: int, recent: float, left_over: float) -> None:
    found: list[tuple[float, int, Path]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                known = entry.stat(follow_symlinks=False)
                if entry.name.startswith("new-"):
                    if known.st_mtime < left_over:
                        _remove(Path(entry.path))
                elif entry.name != STAMP and entry.is_file(follow_symlinks=False):
                    found.append((known.st_mtime, known.st_size, Path(entry.path)))
    total = sum(size for _, size, _ in found)
    for used, size, path in sorted(found):
        if total <= most or used > recent:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
