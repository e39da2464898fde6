"""Watches the interpreter while hostile input is read: no code is run, no file touched, nothing contacted."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

__all__ = ["Forbidden", "watched"]

ROOT = Path(__file__).parents[2]

# Where the interpreter and the compiler read their own files.
_READABLE = tuple(
    {
        str(Path(p).resolve())
        for p in (ROOT, sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
    }
)
_REFUSED = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
    "shutil.",
    "ctypes.",
    "urllib.",
    "pickle.",
    "code.__new__",
    "sys.settrace",
    "sys.setprofile",
)


class Forbidden(BaseException):
    """Something that reading a program never does. Not an Exception: nothing on the way up may swallow it."""


_active = False


def _hook(event: str, args: tuple[object, ...]) -> None:
    if not _active:
        return
    if event in ("exec", "compile"):
        if not _is_import(sys._getframe()):
            raise Forbidden(event, args[:1])
    elif event == "open":
        path, mode = args[0], args[1]
        if isinstance(path, int):
            return
        if isinstance(mode, str) and set(mode) & set("wax+"):
            raise Forbidden(event, path, mode)
        real = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        if not real.startswith(_READABLE):
            raise Forbidden(event, path, mode)
    elif event.startswith(_REFUSED):
        raise Forbidden(event, args)


def _is_import(frame: FrameType | None) -> bool:
    """Whether an import is under way: a module that is needed for the first time."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


_installed = False


@contextmanager
def watched() -> Iterator[None]:
    """Refuse what a compiler must not do while it reads a program."""
    global _active, _installed
    if not _installed:
        sys.addaudithook(_hook)  # for the life of the process; it does nothing while not active
        _installed = True
    _active = True
    try:
        yield
    finally:
        _active = False
