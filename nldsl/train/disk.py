"""The few file operations of a save, in one place so that a crash at any of them can be tried."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

__all__ = ["Disk"]


class Disk:
    """Operations that have reached the disk when they return. Tests replace them to make each of them fail."""

    def make_directory(self, path: Path) -> None:
        """Make a directory; it must not exist."""
        path.mkdir()

    def write(self, path: Path, data: bytes) -> None:
        """Write a new file."""
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def sync_directory(self, path: Path) -> None:
        """Make the names inside a directory durable."""
        if os.name == "nt":  # directories cannot be opened there; renames are journalled
            return
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or directory its final name in one step."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all that is in it, as far as possible."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)


def replace_file(disk: Disk, path: Path, data: bytes) -> None:
    """Write a file so that its name always stands for the whole old or the whole new text."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a run that was killed
        disk.write(temporary, data)
        disk.rename(temporary, path)
        disk.sync_directory(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
